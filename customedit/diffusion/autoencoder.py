"""The base's autoencoder: pictures to latents and back.

It computes in float32 whatever the base computes in: in float16 some autoencoders of Stable
Diffusion overflow, and bfloat16 has fewer steps between black and white than a picture. It
runs twice an edit, where the UNet runs a hundred times.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from customedit.diffusion.devices import to_device

DTYPE: Final = torch.float32
"""What the autoencoder computes in."""


@torch.no_grad()
def encode(vae: Any, batch: Tensor, device: torch.device) -> Tensor:
    """[n, 3, H, W] in [-1, 1] as latents, float32 [n, C, h, w]; the mean, not a draw."""
    out = vae.encode(to_device(batch, device).to(DTYPE))
    latents = out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latents
    scale, shift = _scaling(vae, latents)
    latents = latents.float()
    return (latents if shift is None else latents - shift) * scale


@torch.no_grad()
def decode(vae: Any, latents: Tensor, device: torch.device) -> Tensor:
    """Latents [n, C, h, w] as pixels float32 [n, 3, H, W], about [-1, 1].

    One after the other: a picture's decoding takes more memory than all else of its edit. The
    pixels of latents that are not finite are NaN: an autoencoder with a saturating first layer
    would turn infinities into a picture.
    """
    scale, shift = _scaling(vae, latents.to(device))
    scaled = latents.to(device, DTYPE) / scale
    if shift is not None:
        scaled = scaled + shift
    decoded = torch.cat([vae.decode(row[None]).sample.float() for row in scaled])
    finite = scaled.isfinite().flatten(1).all(1)[:, None, None, None]
    return decoded.masked_fill(~finite, float("nan"))


def _scaling(vae: Any, latents: Tensor) -> tuple[float | Tensor, float | Tensor | None]:
    """(scale, shift): the latents of the model are (the autoencoder's - shift) * scale.

    Numbers, or [1, C, 1, 1] for an autoencoder with a mean and a deviation for each channel.
    """
    config = vae.config
    mean, deviation = (getattr(config, f"latents_{n}", None) for n in ("mean", "std"))
    if mean is not None and deviation is not None:
        mean, deviation = (latents.new_tensor(v, dtype=DTYPE).view(1, -1, 1, 1)
                           for v in (mean, deviation))  # fmt: skip
        return config.scaling_factor / deviation, mean
    shift = getattr(config, "shift_factor", None)
    return config.scaling_factor, shift or None
