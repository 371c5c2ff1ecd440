"""Framings of references: crop augmentation as Custom Diffusion does it (arXiv 2212.04488).

With chance 2/3 the picture is brought to a side in [S/3, S], else in [1.2 S, 1.4 S]. Below 0.6 S it
is pasted at a random place, and the prompt says "far away" or "very small"; the loss counts inside
the pasted box less one latent cell. Above S a random crop is taken, "zoomed in" or "close up".

A third of a small latent is a handful of cells, nearly all of them edge on a grey that no base has
seen: ``least_cells`` says how small a pasted reference may become.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SMALLEST: Final = 1 / 3
"""Share of the side that a pasted reference has at the least, in the paper."""


@dataclass(frozen=True)
class Crop:
    """One framing of a reference.

    pixels: float32 [3, S, S] in [-1, 1]; mask: float32 [cells, cells] in [0, 1], how much the loss
    counts; prefix: what the prompt says of the framing.
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.float32]
    prefix: str


def square(image: Image.Image, side: int) -> Image.Image:
    """``image`` cropped in the middle to a square and brought to ``side``."""
    return middle_square(image).resize((side, side), Image.Resampling.LANCZOS)


def middle_square(image: Image.Image) -> Image.Image:
    """The largest square in the middle of ``image``: what is learned of a reference."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.crop((left, top, left + edge, top + edge))


def full_frame(
    image: Image.Image, side: int, factor: int, region: Image.Image | None = None
) -> Crop:
    """The middle square of ``image``. region: where the loss counts, as for ``random_crop``."""
    cells = side // factor
    mask = np.ones((cells, cells), np.float32)
    if region is not None:
        mask = _cells(_shares(region, side), factor)
    return Crop(_pixels(square(image, side)), mask, "")


def random_crop(
    image: Image.Image,
    side: int,
    factor: int,
    rng: np.random.Generator,
    *,
    least_cells: int = 0,
    region: Image.Image | None = None,
) -> Crop:
    """A random framing of ``image`` at ``side`` pixels; ``factor`` pixels make a latent cell.

    least_cells: how many cells a side a pasted reference has at the least, the paper's third for 0;
    region: where in ``image``, or in its middle square, the loss counts, mode F in [0, 1].
    """
    cells = side // factor
    low = max(SMALLEST, least_cells / cells)
    share = rng.uniform(low, 1) if rng.random() < 2 / 3 else rng.uniform(1.2, 1.4)
    scaled = max(factor * 3, round(side * share))
    picture = _pixels(square(image, scaled))
    shares = np.ones((scaled, scaled), np.float32) if region is None else _shares(region, scaled)
    if rng.random() < 0.5:
        picture, shares = picture[:, :, ::-1].copy(), shares[:, ::-1].copy()
    if scaled > side:
        top, left = rng.integers(0, scaled - side + 1, 2)
        prefix = str(rng.choice(["zoomed in", "close up"]))
        found = picture[:, top : top + side, left : left + side]
        counted = _cells(shares[top : top + side, left : left + side], factor)
        return Crop(found.copy(), counted, prefix)
    canvas = np.zeros((3, side, side), np.float32)  # mid-grey, as zeros are in [-1, 1]
    placed = np.zeros((side, side), np.float32)
    top, left = rng.integers(0, side - scaled + 1, 2)
    canvas[:, top : top + scaled, left : left + scaled] = picture
    placed[top : top + scaled, left : left + scaled] = shares
    mask = np.zeros((cells, cells), np.float32)
    y0, x0 = (-(-v // factor) + 1 for v in (top, left))
    y1, x1 = ((v + scaled) // factor - 1 for v in (top, left))
    mask[y0:y1, x0:x1] = 1
    if scaled == side:
        mask[:] = 1
    prefix = str(rng.choice(["far away", "very small"])) if share < 0.6 else ""
    return Crop(canvas, mask if region is None else mask * _cells(placed, factor), prefix)


def _pixels(image: Image.Image) -> NDArray[np.float32]:
    levels = np.asarray(image.convert("RGB"), np.float32)
    return (levels / 127.5 - 1).transpose(2, 0, 1).copy()


def _shares(region: Image.Image, side: int) -> NDArray[np.float32]:
    """The middle square of ``region`` at ``side``, [side, side] in [0, 1]."""
    return np.asarray(square(region, side), np.float32).clip(0, 1)


def _cells(shares: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Means over the cells of ``factor`` pixels."""
    cells = len(shares) // factor
    return shares.reshape(cells, factor, cells, factor).mean((1, 3)).astype(np.float32)
