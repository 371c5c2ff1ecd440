"""Which size a model works at."""

from __future__ import annotations

import math


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
