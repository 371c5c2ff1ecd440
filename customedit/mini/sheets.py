"""Picture sheets, for a person to look at what the figures say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from customedit.images import layout

Pixels = NDArray[np.uint8]

LINE: Final = 11
"""Height of a line of label, in pixels."""

INK, WRONG = (40, 40, 40), (200, 30, 30)


def labelled(image: Pixels, lines: Sequence[str], wrong: Sequence[bool] = ()) -> Pixels:
    """``image`` [h, w, 3] with ``lines`` below it; lines whose ``wrong`` is true are red."""
    h, w, _ = image.shape
    sheet = Image.new("RGB", (w + 4, h + LINE * len(lines) + 4), "white")
    sheet.paste(Image.fromarray(image), (2, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(9)
    for k, line in enumerate(lines):
        ink = WRONG if k < len(wrong) and wrong[k] else INK
        pen.text((4, h + LINE * k), line, fill=ink, font=font)
    return np.asarray(sheet)


def tiled(tiles: Sequence[Pixels], columns: int) -> Image.Image:
    """Tiles of one size in rows of ``columns``, on white."""
    return layout.tiled([Image.fromarray(tile) for tile in tiles], columns)


def heated(image: Pixels, heat: NDArray[np.float32], mask: NDArray[np.bool_]) -> Pixels:
    """``image`` [h, h, 3] darkened where ``heat`` [m, m] is small, the mask's outline in white.

    heat is taken relative to its maximum; mask: bool [m, m], the region that the heat should fill.
    """
    side = len(image)
    warm = Image.fromarray((heat / heat.max() * 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    share = np.asarray(warm, np.float32)[..., None] / 255
    mixed = image * (0.25 + 0.35 * share) + share * np.array([100, 60, 0], np.float32)
    out = np.clip(mixed, 0, 255).astype(np.uint8)
    times = side // len(mask)
    whole = mask.repeat(times, 0).repeat(times, 1)
    padded = np.pad(whole, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    out[whole & ~inner] = 255
    return out
