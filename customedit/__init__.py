"""Custom-Edit: teach a text-to-image model a look, then paint it into any picture.

Two steps, after Custom-Edit (arXiv:2305.15779): *customize* a diffusion model on a few reference
images, training only what reads the language (Custom Diffusion, arXiv:2212.04488); then *edit* a
picture with a prompt that names what was learnt (Prompt-to-Prompt or SDEdit).

Importing this package is cheap on purpose: whatever needs torch is imported by its own module, so
that a process which only needs the names never waits for it.
"""

__version__ = "0.1.0.dev0"
