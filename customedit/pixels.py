"""Pictures as tensors and back, and the source's own pixels around an edit."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from customedit.images.masks import Values, fit_mask
from customedit.images.outline import outline_region
from customedit.images.regions import paste_region, refine_region


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


def source_region(
    source: Image.Image,
    *,
    mask: Tensor | None = None,
    coarse: Tensor | None = None,
    outline: bool = False,
) -> Tensor:
    """Where an edit may show in the source: [height, width] float32 in [0, 1], at its size.

    mask: the user's own, [h, w] in [0, 1] at the source's size or of its aspect, taken as it is.
    coarse: a region that a method found, [h, w] in [0, 1] at any size, such as the cells of the
    latents: its edges are moved to those of the source's colours, with ``outline`` to those of the
    thing inside it. Exactly one of the two.

    Raises:
        InputError: for a mask or region that is not usable (``masks.fit_mask``).
        ValueError: for both or none.
    """
    if (mask is None) == (coarse is None):
        raise ValueError("give a mask or a coarse region")
    if mask is not None:
        return torch.from_numpy(fit_mask(_values(mask), source.size))
    assert coarse is not None
    refine = outline_region if outline else refine_region
    return torch.from_numpy(refine(_values(coarse), source))


def paste_preserved(
    source: Image.Image, edited: Image.Image, region: Tensor, *, feather: float
) -> Image.Image:
    """The edit inside ``region``, the source's own pixels outside: ``regions.paste_region``.

    region: [height, width] in [0, 1] at the source's size, as ``source_region`` gives it.
    """
    return paste_region(source, edited, _values(region), feather=feather)


def _values(tensor: Tensor) -> Values:
    return tensor.detach().float().cpu().numpy()
