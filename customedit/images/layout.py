"""Which size a model works at, and sheets: pictures side by side, with labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

LINE: Final = 11
"""Height of a line of a label, in pixels."""

MARGIN: Final = 4
"""White around a picture that has a label, in pixels."""

_INK: Final[Colour] = (40, 40, 40)
_WRONG: Final[Colour] = (200, 30, 30)


def fit(size: tuple[int, int], multiple: int, area: int) -> tuple[int, int]:
    """(width, height) near ``area`` pixels in the aspect of ``size``, sides of whole multiples.

    Each side is rounded to the nearest multiple, and is at least one. Of a picture so narrow that
    one side would be less, the other side stops where the area is full, and the aspect gives way.

    Raises:
        ValueError: unless all numbers are positive.
    """
    width, height = size
    if min(width, height, multiple, area) < 1:
        raise ValueError(f"size {size}, multiple {multiple} and area {area} must be positive")
    scale = math.sqrt(area / (width * height))
    narrow = min(width, height) * scale < multiple
    longest = max(1, area // multiple**2) if narrow else math.inf  # in multiples

    def side(pixels: int) -> int:
        return multiple * int(min(max(1, round(pixels * scale / multiple)), longest))

    return side(width), side(height)


def tiled(tiles: Sequence[Image.Image | None], columns: int) -> Image.Image:
    """``tiles`` in rows of ``columns``, on white: RGB. Each cell is as large as the largest tile.

    None leaves a cell empty.

    Raises:
        ValueError: if there are no tiles, or no columns.
    """
    sizes = [tile.size for tile in tiles if tile is not None]
    if not sizes or columns < 1:
        raise ValueError(f"{len(sizes)} tiles in {columns} columns make no picture")
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    out = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for k, tile in enumerate(tiles):
        if tile is not None:
            out.paste(tile, ((k % columns) * width, (k // columns) * height))
    return out


def tiled_rows(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """``rows`` of tiles below each other, as ``tiled`` has them; they may have different lengths.

    Raises:
        ValueError: if there are no tiles.
    """
    columns = max(map(len, rows), default=0)
    return tiled([tile for row in rows for tile in (*row, *[None] * (columns - len(row)))], columns)


def labelled(
    tile: Image.Image,
    lines: Sequence[str],
    *,
    wrong: Sequence[bool] = (),
    frame: Colour | None = None,
) -> Image.Image:
    """``tile`` with ``MARGIN`` white pixels around it and ``lines`` of text below: RGB.

    Each line is ``LINE`` pixels high, and cut where the tile with its margin ends. wrong: of the
    lines, from the first on, which are red; frame: the colour of a frame around the tile.
    """
    width, height = tile.width + 2 * MARGIN, tile.height + 2 * MARGIN
    out = Image.new("RGB", (width, height + LINE * len(lines)), "white")
    pen, font = ImageDraw.Draw(out), ImageFont.load_default(9)
    if frame is not None:
        pen.rectangle((1, 1, width - 2, height - 2), fill=frame)
    out.paste(tile, (MARGIN, MARGIN))
    for k, line in enumerate(lines):
        ink = _WRONG if k < len(wrong) and wrong[k] else _INK
        pen.text((MARGIN, height + LINE * k), line, fill=ink, font=font)
    return out
