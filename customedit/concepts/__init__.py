"""Concepts: looks taught from a few images. Prompts, training, files, merging.

``concept`` holds what a training gives or a file brings; ``files`` reads and writes those of all
programs, and ``effect`` proves that one changes anything; ``compress`` makes a concept small,
``merge`` makes several into one.
"""
