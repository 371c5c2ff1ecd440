"""Concepts: a look taught from a few images, as prompts, training, files, and what is done to them.

``concept`` holds what a training gives and its own file; ``compress`` makes it small, ``merge``
makes several into one, ``formats`` reads and writes the files of diffusers and of adobe's code.
"""
