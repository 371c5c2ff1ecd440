"""What families of random patterns are made of: tables of random numbers, noise, its levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

Levels = Callable[[Array, Array], Array]
"""(s [n], t [n]) -> level [n] in [0, count - 1]: a whole number is a colour, else it is a blend."""

Family = Callable[[np.random.Generator, int], Levels]
"""(rng, count of colours, 2 to 4) -> a pattern."""

ROWS: Final = 64
"""Rows of the tables of random numbers that patterns repeat up the side after."""


def whole(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number in [low, high], small ones as likely as large ones of the double size."""
    return int(np.floor(np.exp(rng.uniform(np.log(low), np.log(high + 1)))))


def saw(x: Array) -> Array:
    """Period 1, from 0 up to 1."""
    return x - np.floor(x)


def triangle(x: Array) -> Array:
    """Period 1, 0 at whole numbers and 1 between them."""
    return 1 - np.abs(2 * saw(x) - 1)


def of_table(table: NDArray[Any], row: Array, column: Array) -> NDArray[Any]:
    """``table`` [rows, columns] at whole-numbered places, repeated both ways."""
    return table[row.astype(np.int64) % table.shape[0], column.astype(np.int64) % table.shape[1]]


def noise(rng: np.random.Generator, around: int, octaves: int = 1, stretch: float = 1.0) -> Levels:
    """Smooth value noise in about [-1, 1]; ``around`` bumps go round, ``stretch`` x as high."""
    layers = [
        (2**k, rng.uniform(-1, 1, (ROWS, around * 2**k)).astype(np.float32)) for k in range(octaves)
    ]

    def value(s: Array, t: Array) -> Array:
        total = np.zeros(len(s), np.float32)
        for times, table in layers:
            x, y = s * around * times, t * around * times / stretch
            i, j = np.floor(x), np.floor(y)
            u, v = x - i, y - j
            u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
            low = of_table(table, j, i) * (1 - u) + of_table(table, j, i + 1) * u
            high = of_table(table, j + 1, i) * (1 - u) + of_table(table, j + 1, i + 1) * u
            total += (low * (1 - v) + high * v) / times
        return total

    return value


def split(values: Levels, rng: np.random.Generator, count: int, smooth: bool) -> Levels:
    """``values`` cut into ``count`` levels of random but fair shares, or blended between them."""
    s, t = sheet()
    shares = np.cumsum(rng.dirichlet(np.full(count, 6.0)))[:-1]
    cuts = np.quantile(values(s, t), shares)
    if not smooth:
        return lambda s, t: np.searchsorted(cuts, values(s, t)).astype(np.float32)
    ends = np.quantile(values(s, t), np.linspace(0.05, 0.95, count))
    return lambda s, t: np.interp(values(s, t), ends, np.arange(count)).astype(np.float32)


def sheet(columns: int = 64, rows: int = 40) -> tuple[Array, Array]:
    """Coordinates all over a surface, (s, t) [columns x rows]."""
    t, s = np.meshgrid(
        (np.arange(rows, dtype=np.float32) + 0.5) / columns,
        (np.arange(columns, dtype=np.float32) + 0.5) / columns,
        indexing="ij",
    )
    return s.ravel(), t.ravel()


def sequence(rng: np.random.Generator, length: int, count: int) -> NDArray[np.int64]:
    """``length`` >= ``count`` colours in which each occurs and none follows itself, in a ring."""
    while True:
        row = rng.integers(0, count, length)
        if len(set(row)) == count and np.all(row != np.roll(row, 1)):
            return row
