"""Which size a model works at, and pictures side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont


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


def tiled(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    """``tiles`` in rows of ``columns``, on white: RGB. Each cell is as large as the largest tile.

    Raises:
        ValueError: if there are no tiles, or no columns.
    """
    if not tiles or columns < 1:
        raise ValueError(f"{len(tiles)} tiles in {columns} columns make no picture")
    width, height = (max(sides) for sides in zip(*(t.size for t in tiles), strict=True))
    out = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for k, tile in enumerate(tiles):
        out.paste(tile, ((k % columns) * width, (k // columns) * height))
    return out


def table(rows: Sequence[tuple[str, Sequence[tuple[str, Image.Image]]]]) -> Image.Image:
    """Rows of pictures on white, RGB: each row's name at the left, a caption above each picture.

    rows: (name, [(caption, picture)]); rows may have different lengths.

    Raises:
        ValueError: if there are no pictures.
    """
    tiles = [tile for _, row in rows for _, tile in row]
    if not tiles:
        raise ValueError("no pictures make no table")
    font, line, gap = ImageFont.load_default(11), 16, 4
    width, height = (max(sides) for sides in zip(*(t.size for t in tiles), strict=True))
    left = math.ceil(max(font.getlength(name) for name, _ in rows)) + 2 * gap
    columns = max(len(row) for _, row in rows)
    size = (left + columns * (width + gap), len(rows) * (line + height + gap))
    out = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(out)
    for number, (name, row) in enumerate(rows):
        top = number * (line + height + gap)
        pen.text((gap, top + line + height / 2), name, fill="black", font=font, anchor="lm")
        for column, (caption, tile) in enumerate(row):
            x = left + column * (width + gap)
            pen.text((x, top + line / 2), caption, fill="black", font=font, anchor="lm")
            out.paste(tile, (x, top + line))
    return out
