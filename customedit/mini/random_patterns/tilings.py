"""Families of random patterns made of cells: tiles, lattices, figures in rows."""

from __future__ import annotations

from typing import Final

import numpy as np

from customedit.mini.random_patterns.tools import (
    ROWS,
    Array,
    Levels,
    of_table,
    saw,
    triangle,
    whole,
)


def diamonds(rng: np.random.Generator, count: int) -> Levels:
    """Lozenges side by side, each of one colour or nested."""
    n, tall = whole(rng, 4, 12), rng.uniform(0.6, 1.8)
    nested = rng.random() < 0.4
    table = rng.integers(0, count, (ROWS, n))
    phase = rng.uniform(0, 1)
    inner = rng.uniform(0.35, 0.65)

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n / tall + phase
        a, b = np.floor(x + y), np.floor(x - y)
        if nested:
            depth = np.minimum(triangle(x + y), triangle(x - y))
            ring = (depth > 1 - inner).astype(np.int64) + (
                (depth > 1 - inner / 2).astype(np.int64) if count > 2 else 0
            )
            return (np.where((a + b) % 2 == 0, ring, 0 if count < 4 else 3)).astype(np.float32)
        if count == 2:
            return ((a + b) % 2).astype(np.float32)
        return of_table(table, a - b, (a + b) // 2).astype(np.float32)

    return level


def triangles(rng: np.random.Generator, count: int) -> Levels:
    """Squares halved by a slant, the halves in random colours or all alike."""
    n, phase = whole(rng, 4, 14), rng.uniform(0, 1)
    table = rng.integers(0, count, (ROWS, 2 * n))
    turn = rng.integers(0, 2, (ROWS, n)) * int(rng.random() < 0.5)
    regular = count == 2 and rng.random() < 0.6

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n + phase
        i, j = np.floor(x), np.floor(y)
        u = np.where(of_table(turn, j, i) == 1, 1 - saw(x), saw(x))
        upper = (u + saw(y) > 1).astype(np.int64)
        if regular:
            return upper.astype(np.float32)
        return of_table(table, j, 2 * i + upper).astype(np.float32)

    return level


def bricks(rng: np.random.Generator, count: int) -> Levels:
    """Long tiles in running bond, with or without joints."""
    n, high, shift = whole(rng, 4, 10), rng.uniform(0.25, 0.6), rng.choice([0.5, 1 / 3])
    table = rng.integers(1, count, (ROWS, n)) if count > 2 else np.ones((ROWS, n), np.int64)
    joint, phase = rng.uniform(0.10, 0.22), rng.uniform(0, 1)

    def level(s: Array, t: Array) -> Array:
        y = t * n / high + phase
        x = s * n + shift * np.floor(y)
        gap = (saw(x) < joint * high * 1.2) | (saw(y) < joint * 1.6)
        return np.where(gap, 0, of_table(table, np.floor(y), np.floor(x))).astype(np.float32)

    return level


def basket(rng: np.random.Generator, count: int) -> Levels:
    """Blocks of upright and of lying bars by turns."""
    n, bars, phase = 2 * whole(rng, 2, 6), int(rng.integers(2, 4)), rng.uniform(0, 1)
    table = rng.integers(0, max(count - 1, 1), (ROWS, n))
    wide = rng.uniform(0.5, 0.75)
    own = count > 2 and rng.random() < 0.5  # each block of a colour of its own

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n + phase
        i, j = np.floor(x), np.floor(y)
        lying = (i + j) % 2 == 0
        place = saw(np.where(lying, y, x) * bars)
        kind = of_table(table, j, i) if own or count == 4 else lying * (count - 2)
        return np.where(place < wide, 1 + kind, 0).astype(np.float32)

    return level


def blocks(rng: np.random.Generator, count: int) -> Levels:
    """A grid of squares or oblongs in random colours: mosaic, or large fields."""
    n, tall = whole(rng, 4, 16), np.exp(rng.uniform(-0.7, 0.7))
    table, phase = rng.integers(0, count, (ROWS, n)), rng.uniform(0, 1)
    return lambda s, t: of_table(table, np.floor(t * n / tall + phase), np.floor(s * n)).astype(
        np.float32
    )


def honeycomb(rng: np.random.Generator, count: int) -> Levels:
    """Six-sided cells in random colours, with a joint in the last colour or without."""
    n, joint = whole(rng, 5, 12), rng.uniform(0.12, 0.3)
    with_joint = (count == 2 and rng.random() < 0.6) or (count > 2 and rng.random() < 0.4)
    cells = count - 1 if with_joint else count
    table = rng.integers(0, cells, (2 * ROWS, n))
    phase = rng.uniform(0, 1)
    step = np.float32(np.sqrt(3) / 2)

    def level(s: Array, t: Array) -> Array:
        y = t * n / step + phase
        best = np.full(len(s), np.inf, np.float32)
        beyond = np.full(len(s), np.inf, np.float32)
        kind = np.zeros(len(s), np.int64)
        for down in (-1, 0, 1, 2):
            row = np.floor(y) + down
            x = s * n - 0.5 * (row % 2)
            column = np.round(x)
            for side in (-1, 0, 1):
                d = np.hypot(x - column - side, (y - row) * step)
                closer = d < best
                beyond = np.where(closer, best, np.minimum(beyond, d))
                kind = np.where(closer, of_table(table, row, column + side), kind)
                best = np.where(closer, d, best)
        out = kind.astype(np.float32)
        return np.where(beyond - best < joint, count - 1, out) if with_joint else out

    return level


def mosaic(rng: np.random.Generator, count: int) -> Levels:
    """Crooked cells, filled to their borders, under a city-block or a chessboard distance."""
    n, city = whole(rng, 5, 14), rng.random() < 0.5
    px, py = rng.uniform(0, 1, (2, ROWS, n))
    table = rng.integers(0, count, (ROWS, n))

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n
        i, j = np.floor(x), np.floor(y)
        best = np.full(len(s), np.inf)
        kind = np.zeros(len(s), np.int64)
        for down in (-1, 0, 1):
            for side in (-1, 0, 1):
                dx = np.abs(i + side + of_table(px, j + down, i + side) - x)
                dy = np.abs(j + down + of_table(py, j + down, i + side) - y)
                d = dx + dy if city else np.maximum(dx, dy)
                kind = np.where(d < best, of_table(table, j + down, i + side), kind)
                best = np.minimum(d, best)
        return kind.astype(np.float32)

    return level


def trellis(rng: np.random.Generator, count: int) -> Levels:
    """Thin slanting lines that cross, with a mark in each mesh if there are colours for it."""
    n, tall, wide = whole(rng, 4, 11), rng.uniform(0.7, 1.6), rng.uniform(0.16, 0.32)
    mark, phase = rng.uniform(0.2, 0.36), rng.uniform(0, 1)
    table = rng.integers(0, 2, (ROWS, 1))  # which rows of meshes are filled

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n / tall + phase
        a, b = triangle(x + y), triangle(x - y)
        out = np.where(np.minimum(a, b) < wide, 1, 0)
        if count > 2:
            inside = np.minimum(a, b) > 1 - mark
            out = np.where(inside, 2, out)
        if count > 3:
            other = of_table(table, (np.floor(x + y) - np.floor(x - y)), x * 0)
            out = np.where((out == 0) & (other == 1), 3, out)
        return out.astype(np.float32)

    return level


def labyrinth(rng: np.random.Generator, count: int) -> Levels:
    """Quarter circles on tiles turned at random (Truchet tiles): winding paths."""
    n, wide = whole(rng, 4, 12), rng.uniform(0.28, 0.5)
    turn = rng.integers(0, 2, (ROWS, n))
    tint = rng.integers(0, max(count - 1, 1), (ROWS, n))
    phase = rng.uniform(0, 1)

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n + phase
        i, j = np.floor(x), np.floor(y)
        u, v = np.where(of_table(turn, j, i) == 1, 1 - saw(x), saw(x)), saw(y)
        near = np.minimum(np.abs(np.hypot(u, v) - 0.5), np.abs(np.hypot(1 - u, 1 - v) - 0.5))
        return np.where(near < wide / 2, 1 + of_table(tint, j, i), 0).astype(np.float32)

    return level


def _figure(kind: str, x: Array, y: Array) -> Array:
    """How far inside a figure of size 1 the points are, below zero outside."""
    ax, ay = np.abs(x), np.abs(y)
    if kind == "square":
        return 1 - np.maximum(ax, ay)
    if kind == "disc":
        return 1 - np.hypot(x, y)
    if kind == "lozenge":
        return 1 - ax - 0.6 * ay
    if kind == "cross":
        return np.maximum(np.minimum(0.34 - ax, 1 - ay), np.minimum(0.34 - ay, 1 - ax))
    if kind == "star":
        return 0.5 - np.sqrt(ax * ay) - 0.25 * np.hypot(x, y) - 0.1 * np.maximum(ax, ay)
    if kind == "triangle":
        return np.minimum(y + 0.6, 0.55 - 0.87 * ax - 0.5 * y)
    if kind == "bar":
        return np.minimum(1 - ax, 0.3 - ay)
    return np.minimum(1 - np.hypot(x, y), np.hypot(x - 0.55, y) - 0.8)  # crescent


_FIGURES: Final = ("square", "disc", "lozenge", "cross", "star", "triangle", "bar", "crescent")


def figures(rng: np.random.Generator, count: int) -> Levels:
    """Figures on a ground: in rows, in staggered rows or strewn; of one kind or two, any way up."""
    n, tall = whole(rng, 5, 13), rng.uniform(0.8, 1.3)
    kinds = rng.choice(_FIGURES, 2 if rng.random() < 0.3 else 1, replace=False)
    size = rng.uniform(0.3, 0.46, (ROWS, n)) if rng.random() < 0.4 else np.full((ROWS, n), 0.42)
    angle = np.full((ROWS, n), rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else 0.0)
    strewn = rng.random() < 0.4
    if strewn:
        angle = rng.uniform(0, 2 * np.pi, (ROWS, n))
    slip = rng.uniform(-0.16, 0.16, (2, ROWS, n)) * strewn
    tint = rng.integers(1, count, (ROWS, n)) if count > 2 else np.ones((ROWS, n), np.int64)
    shift, phase = 0.5 * (rng.random() < 0.6), rng.uniform(0, 1)

    def level(s: Array, t: Array) -> Array:
        y = t * n / tall + phase
        j = np.floor(y)
        x = s * n + shift * (j % 2)
        i = np.floor(x)
        u = saw(x) - 0.5 - of_table(slip[0], j, i)
        v = (saw(y) - 0.5 - of_table(slip[1], j, i)) * tall
        c, d = np.cos(of_table(angle, j, i)), np.sin(of_table(angle, j, i))
        r = of_table(size, j, i)
        u, v = (c * u - d * v) / r, (d * u + c * v) / r
        odd = (i % n + j) % 2 == 1
        inside = np.where(odd, _figure(kinds[-1], u, v), _figure(kinds[0], u, v)) > 0
        return np.where(inside, of_table(tint, j, i), 0).astype(np.float32)

    return level
