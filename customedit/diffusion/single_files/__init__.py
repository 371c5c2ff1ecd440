"""Single-file checkpoints in the original layout: ``.safetensors`` and ``.ckpt``.

They hold weights alone. What else a base needs is bundled here: the configurations of Stable
Diffusion 1.x and XL, as their folders on the hub have them, and CLIP's vocabulary.
"""
