"""Single-file checkpoints in the original layout: ``.safetensors`` and ``.ckpt``.

They hold weights alone. What else a base needs is bundled here: the configurations of Stable
Diffusion 1.x, XL and 3, as their folders on the hub have them, and CLIP's vocabulary. What has T5
(FLUX.1, and Stable Diffusion 3 with it) needs its configurations beside it.
"""
