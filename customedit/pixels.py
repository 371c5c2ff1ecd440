"""Pictures as tensors and back, and the source's own pixels around an edit."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from customedit.errors import InputError


def to_tensor(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """``image`` resized (Lanczos) to ``size`` (width, height): [1, 3, h, w] float32 in [-1, 1]."""
    resized = image.convert("RGB")
    if resized.size != size:
        resized = resized.resize(size, Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(resized))  # [h, w, 3]
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


def to_image(tensor: Tensor) -> Image.Image:
    """A picture of ``tensor`` [3, h, w] in [-1, 1]; what lies outside is clipped.

    Raises:
        ValueError: for another shape.
    """
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ValueError(f"a tensor [3, h, w] is wanted, got {tuple(tensor.shape)}")
    pixels = ((tensor.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return Image.fromarray(pixels.to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def paste_preserved(
    source: Image.Image, edited: Image.Image, mask: Tensor, *, feather: float = 8.0
) -> Image.Image:
    """The edit inside the mask, the source's own pixels outside: RGB, at the source's full size.

    mask: [h, w] in [0, 1] at any size, 1 for the edit; it and ``edited`` are resized to the
    source's size (the mask bilinearly). feather: over how many source pixels the mask's edge is
    drawn out; beyond that, where the feathered mask is 0, every byte is the source's.

    Raises:
        InputError: unless the mask has two axes and lies in [0, 1], and feather is 0 or more.
    """
    if mask.ndim != 2 or not mask.numel():
        raise InputError("mask", f"has shape {tuple(mask.shape)}", "give height x width numbers")
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise InputError("mask", "has numbers outside 0 to 1", "scale it")
    if not 0 <= feather < math.inf:
        raise InputError("feather", f"is {feather}", "give 0 pixels or more")
    out = source.convert("RGB")
    weight = Image.fromarray(mask.detach().float().cpu().numpy())
    weight = weight.resize(out.size, Image.Resampling.BILINEAR).point(lambda x: x * 255 + 0.5)
    weight = weight.convert("L")
    if feather:
        # Two boxes make a ramp that ends at `feather` pixels, where a Gaussian never quite does.
        box = ImageFilter.BoxBlur(feather / 2)
        weight = weight.filter(box).filter(box)
    if edited.size != out.size:
        edited = edited.resize(out.size, Image.Resampling.LANCZOS)
    # 8-bit weights: at 0 and 255 Pillow copies, so that bytes are kept and not just nearly so.
    return Image.composite(edited.convert("RGB"), out, weight)
