"""Boxes in a picture: left, top, right and bottom as fractions of its sides.

No torch: a front end refuses here what the library would refuse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

from customedit.errors import InputError

Box: TypeAlias = tuple[float, float, float, float]
"""(left, top, right, bottom) in [0, 1], of the width and height of a picture."""

INSIDE: Final = 0.5
"""The share of a cell that must lie in a region for the cell to be inside."""

ROUNDING: Final = 1e-6
"""By how much a share may be off."""


def check_box(box: Sequence[float], field: str = "box") -> None:
    """Check that ``box`` lies in the picture, has an area, and leaves a part of the picture out.

    Raises:
        InputError: naming ``field``.
    """
    shown = ", ".join(f"{number:g}" for number in box)
    if len(box) != 4 or not all(math.isfinite(n) and 0 <= n <= 1 for n in box):
        raise InputError(
            field, f"is {shown}", "give left, top, right, bottom, each from 0 to 1 of the picture"
        )
    left, top, right, bottom = box
    if not (left < right and top < bottom):
        raise InputError(
            field, f"is {shown}, which has no area", "give left below right and top below bottom"
        )
    if tuple(box) == (0, 0, 1, 1):
        raise InputError(field, "is the whole picture", "leave it out")


def axis_shares(first: float, last: float, cells: int) -> list[float]:
    """How much of each of ``cells`` equal parts of [0, 1] lies in [first, last], in [0, 1]."""
    return [max(0.0, min(last * cells, k + 1) - max(first * cells, k)) for k in range(cells)]


def check_cells(box: Box, cells: tuple[int, int], field: str = "box") -> None:
    """``check_share`` of a box. cells: (rows, columns)."""
    left, top, right, bottom = box
    rows, columns = cells
    share = max(axis_shares(top, bottom, rows)) * max(axis_shares(left, right, columns))
    check_share(share, cells, field)


def check_share(share: float, cells: tuple[int, int], field: str) -> None:
    """Check that a region is somewhere. share: the most of it in any of (rows, columns) cells.

    Raises:
        InputError: naming ``field``.
    """
    if share < INSIDE - ROUNDING:
        raise InputError(
            field,
            f"fills half of no latent cell, of which the picture has {cells[1]} x {cells[0]}",
            "give a larger region",
        )
