"""Pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image


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
