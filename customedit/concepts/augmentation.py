"""Crop augmentation as Custom Diffusion does it (arXiv 2212.04488 and its public code).

With chance 2/3 the picture is brought to a side in [S/3, S], else in [1.2 S, 1.4 S]. Below 0.6 S it
is pasted at a random place, and the prompt says "far away" or "very small"; the loss counts inside
the pasted box less one latent cell. Above S a random crop is taken, "zoomed in" or "close up".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Crop:
    """One framing of a reference.

    pixels: float32 [3, S, S] in [-1, 1]; mask: float32 [cells, cells], 1 where the loss counts;
    prefix: what the prompt says of the framing.
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.float32]
    prefix: str


def square(image: Image.Image, side: int) -> Image.Image:
    """``image`` cropped in the middle to a square and brought to ``side``."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    box = image.crop((left, top, left + edge, top + edge))
    return box.resize((side, side), Image.Resampling.LANCZOS)


def full_frame(image: Image.Image, side: int, factor: int) -> Crop:
    """The middle square of ``image``, all of it counted."""
    cells = side // factor
    return Crop(_pixels(square(image, side)), np.ones((cells, cells), np.float32), "")


def random_crop(image: Image.Image, side: int, factor: int, rng: np.random.Generator) -> Crop:
    """A random framing of ``image`` at ``side`` pixels; ``factor`` pixels make a latent cell."""
    cells = side // factor
    share = rng.uniform(1 / 3, 1) if rng.random() < 2 / 3 else rng.uniform(1.2, 1.4)
    scaled = max(factor * 3, round(side * share))
    picture = _pixels(square(image, scaled))
    if rng.random() < 0.5:
        picture = picture[:, :, ::-1].copy()
    if scaled > side:
        top, left = rng.integers(0, scaled - side + 1, 2)
        prefix = str(rng.choice(["zoomed in", "close up"]))
        found = picture[:, top : top + side, left : left + side]
        return Crop(found.copy(), np.ones((cells, cells), np.float32), prefix)
    canvas = np.zeros((3, side, side), np.float32)  # mid-grey, as zeros are in [-1, 1]
    top, left = rng.integers(0, side - scaled + 1, 2)
    canvas[:, top : top + scaled, left : left + scaled] = picture
    mask = np.zeros((cells, cells), np.float32)
    y0, x0 = (-(-v // factor) + 1 for v in (top, left))
    y1, x1 = ((v + scaled) // factor - 1 for v in (top, left))
    mask[y0:y1, x0:x1] = 1
    if scaled == side:
        mask[:] = 1
    prefix = str(rng.choice(["far away", "very small"])) if share < 0.6 else ""
    return Crop(canvas, mask, prefix)


def _pixels(image: Image.Image) -> NDArray[np.float32]:
    levels = np.asarray(image.convert("RGB"), np.float32)
    return (levels / 127.5 - 1).transpose(2, 0, 1).copy()
