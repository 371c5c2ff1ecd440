"""Patterns drawn at random, so that the base learns "patterned" as any pattern at all.

A family is a rule with random settings: it draws them and returns a function of surface
coordinates (see :mod:`customedit.mini.patterns`) that says which of ``count`` colours is where. All
families wrap: s = 0 and s = 1 meet. None is a look kept out of training nor close to one: no
slanted stripes (spiral), no crossed bands (plaid), no chips in a pale ground (terrazzo), no thin
irregular seams (gold cracks), no rings (leopard), no overlapping discs or half circles (scales,
waves), no petals (painted flowers). The tests measure how far they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

Levels = Callable[[Array, Array], Array]
"""(s [n], t [n]) -> level [n] in [0, count - 1]: a whole number is a colour, else it is a blend."""

Family = Callable[[np.random.Generator, int], Levels]
"""(rng, count of colours, 2 to 4) -> a pattern."""

LEAST_SHARE: Final = 0.06
"""Each colour of a pattern covers at least this share of the surface: captions name them all."""

TRIES: Final = 40

_ROWS: Final = 64
"""Rows of the tables of random numbers that patterns repeat up the side after."""


def _whole(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number in [low, high], small ones as likely as large ones of the double size."""
    return int(np.floor(np.exp(rng.uniform(np.log(low), np.log(high + 1)))))


def _saw(x: Array) -> Array:
    return x - np.floor(x)


def _triangle(x: Array) -> Array:
    return 1 - np.abs(2 * _saw(x) - 1)


def _of_table(table: NDArray[Any], row: Array, column: Array) -> NDArray[Any]:
    """``table`` [rows, columns] at whole-numbered places, repeated both ways."""
    return table[row.astype(np.int64) % table.shape[0], column.astype(np.int64) % table.shape[1]]


def _noise(rng: np.random.Generator, around: int, octaves: int = 1, stretch: float = 1.0) -> Levels:
    """Smooth value noise in about [-1, 1]; ``around`` bumps go round, ``stretch`` x as high."""
    layers = [
        (2**k, rng.uniform(-1, 1, (_ROWS, around * 2**k)).astype(np.float32))
        for k in range(octaves)
    ]

    def value(s: Array, t: Array) -> Array:
        total = np.zeros(len(s), np.float32)
        for times, table in layers:
            x, y = s * around * times, t * around * times / stretch
            i, j = np.floor(x), np.floor(y)
            u, v = x - i, y - j
            u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
            low = _of_table(table, j, i) * (1 - u) + _of_table(table, j, i + 1) * u
            high = _of_table(table, j + 1, i) * (1 - u) + _of_table(table, j + 1, i + 1) * u
            total += (low * (1 - v) + high * v) / times
        return total

    return value


def _split(values: Levels, rng: np.random.Generator, count: int, smooth: bool) -> Levels:
    """``values`` cut into ``count`` levels of random but fair shares, or blended between them."""
    s, t = _sheet()
    shares = np.cumsum(rng.dirichlet(np.full(count, 6.0)))[:-1]
    cuts = np.quantile(values(s, t), shares)
    if not smooth:
        return lambda s, t: np.searchsorted(cuts, values(s, t)).astype(np.float32)
    ends = np.quantile(values(s, t), np.linspace(0.05, 0.95, count))
    return lambda s, t: np.interp(values(s, t), ends, np.arange(count)).astype(np.float32)


def _sheet(columns: int = 64, rows: int = 40) -> tuple[Array, Array]:
    """Coordinates all over a surface, (s, t) [columns x rows]."""
    t, s = np.meshgrid(
        (np.arange(rows, dtype=np.float32) + 0.5) / columns,
        (np.arange(columns, dtype=np.float32) + 0.5) / columns,
        indexing="ij",
    )
    return s.ravel(), t.ravel()


def _sequence(rng: np.random.Generator, length: int, count: int) -> NDArray[np.int64]:
    """``length`` >= ``count`` colours in which each occurs and none follows itself, in a ring."""
    while True:
        row = rng.integers(0, count, length)
        if len(set(row)) == count and np.all(row != np.roll(row, 1)):
            return row


def stripes(rng: np.random.Generator, count: int) -> Levels:
    """Stripes of uneven widths, up the body or round it, straight or wavy."""
    up = rng.random() < 0.5
    length = int(rng.integers(max(count, 3), 7))
    length += length % 2 if count == 2 else 0  # two colours by turns need an even ring
    row = _sequence(rng, length, count)
    edges = np.cumsum(rng.dirichlet(np.full(length, 3.0)))
    repeats = _whole(rng, 1, 5)
    wave = rng.uniform(0.1, 0.5) / repeats / length if rng.random() < 0.5 else 0.0
    waves, phase = _whole(rng, 2, 8), rng.uniform(0, 1, 2)

    def level(s: Array, t: Array) -> Array:
        along, across = (t, s) if up else (s, t)
        across = across + wave * 2 * np.sin(2 * np.pi * (waves * along + phase[0]))
        place = _saw(repeats * across + phase[1])
        return row[np.minimum(np.searchsorted(edges, place), length - 1)].astype(np.float32)

    return level


def chevrons(rng: np.random.Generator, count: int) -> Levels:
    """Bands with sharp bends, up the body or round it, in steps of several colours."""
    up = rng.random() < 0.6 or count == 2
    length = count if count > 2 else int(rng.integers(3, 5))
    length += length % 2 if count == 2 else 0
    row = _sequence(rng, length, count)
    edges = np.cumsum(rng.dirichlet(np.full(length, 5.0)))
    repeats, bends, high = _whole(rng, 1, 4), _whole(rng, 3, 9), rng.uniform(0.4, 1.2)
    phase = rng.uniform(0, 1)

    def level(s: Array, t: Array) -> Array:
        along, across = (t, s) if up else (s, t)
        bend = high / bends * _triangle(along * bends)
        place = _saw((across + bend) * repeats + phase)
        return row[np.minimum(np.searchsorted(edges, place), length - 1)].astype(np.float32)

    return level


def diamonds(rng: np.random.Generator, count: int) -> Levels:
    """Lozenges side by side, each of one colour or nested."""
    n, tall = _whole(rng, 4, 12), rng.uniform(0.6, 1.8)
    nested = rng.random() < 0.4
    table = rng.integers(0, count, (_ROWS, n))
    phase = rng.uniform(0, 1)
    inner = rng.uniform(0.35, 0.65)

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n / tall + phase
        a, b = np.floor(x + y), np.floor(x - y)
        if nested:
            depth = np.minimum(_triangle(x + y), _triangle(x - y))
            ring = (depth > 1 - inner).astype(np.int64) + (
                (depth > 1 - inner / 2).astype(np.int64) if count > 2 else 0
            )
            return (np.where((a + b) % 2 == 0, ring, 0 if count < 4 else 3)).astype(np.float32)
        if count == 2:
            return ((a + b) % 2).astype(np.float32)
        return _of_table(table, a - b, (a + b) // 2).astype(np.float32)

    return level


def triangles(rng: np.random.Generator, count: int) -> Levels:
    """Squares halved by a slant, the halves in random colours or all alike."""
    n, phase = _whole(rng, 4, 14), rng.uniform(0, 1)
    table = rng.integers(0, count, (_ROWS, 2 * n))
    turn = rng.integers(0, 2, (_ROWS, n)) * int(rng.random() < 0.5)
    regular = count == 2 and rng.random() < 0.6

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n + phase
        i, j = np.floor(x), np.floor(y)
        u = np.where(_of_table(turn, j, i) == 1, 1 - _saw(x), _saw(x))
        upper = (u + _saw(y) > 1).astype(np.int64)
        if regular:
            return upper.astype(np.float32)
        return _of_table(table, j, 2 * i + upper).astype(np.float32)

    return level


def bricks(rng: np.random.Generator, count: int) -> Levels:
    """Long tiles in running bond, with or without joints."""
    n, high, shift = _whole(rng, 4, 10), rng.uniform(0.25, 0.6), rng.choice([0.5, 1 / 3])
    table = rng.integers(1, count, (_ROWS, n)) if count > 2 else np.ones((_ROWS, n), np.int64)
    joint, phase = rng.uniform(0.10, 0.22), rng.uniform(0, 1)

    def level(s: Array, t: Array) -> Array:
        y = t * n / high + phase
        x = s * n + shift * np.floor(y)
        gap = (_saw(x) < joint * high * 1.2) | (_saw(y) < joint * 1.6)
        return np.where(gap, 0, _of_table(table, np.floor(y), np.floor(x))).astype(np.float32)

    return level


def basket(rng: np.random.Generator, count: int) -> Levels:
    """Blocks of upright and of lying bars by turns."""
    n, bars, phase = 2 * _whole(rng, 2, 6), int(rng.integers(2, 4)), rng.uniform(0, 1)
    table = rng.integers(0, max(count - 1, 1), (_ROWS, n))
    wide = rng.uniform(0.5, 0.75)
    own = count > 2 and rng.random() < 0.5  # each block of a colour of its own

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n + phase
        i, j = np.floor(x), np.floor(y)
        lying = (i + j) % 2 == 0
        place = _saw(np.where(lying, y, x) * bars)
        kind = _of_table(table, j, i) if own or count == 4 else lying * (count - 2)
        return np.where(place < wide, 1 + kind, 0).astype(np.float32)

    return level


def blocks(rng: np.random.Generator, count: int) -> Levels:
    """A grid of squares or oblongs in random colours: mosaic, or large fields."""
    n, tall = _whole(rng, 4, 16), np.exp(rng.uniform(-0.7, 0.7))
    table, phase = rng.integers(0, count, (_ROWS, n)), rng.uniform(0, 1)
    return lambda s, t: _of_table(table, np.floor(t * n / tall + phase), np.floor(s * n)).astype(
        np.float32
    )


def honeycomb(rng: np.random.Generator, count: int) -> Levels:
    """Six-sided cells in random colours, with a joint in the last colour or without."""
    n, joint = _whole(rng, 5, 12), rng.uniform(0.12, 0.3)
    with_joint = (count == 2 and rng.random() < 0.6) or (count > 2 and rng.random() < 0.4)
    cells = count - 1 if with_joint else count
    table = rng.integers(0, cells, (2 * _ROWS, n))
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
                kind = np.where(closer, _of_table(table, row, column + side), kind)
                best = np.where(closer, d, best)
        out = kind.astype(np.float32)
        return np.where(beyond - best < joint, count - 1, out) if with_joint else out

    return level


def mosaic(rng: np.random.Generator, count: int) -> Levels:
    """Crooked cells, filled to their borders, under a city-block or a chessboard distance."""
    n, city = _whole(rng, 5, 14), rng.random() < 0.5
    px, py = rng.uniform(0, 1, (2, _ROWS, n))
    table = rng.integers(0, count, (_ROWS, n))

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n
        i, j = np.floor(x), np.floor(y)
        best = np.full(len(s), np.inf)
        kind = np.zeros(len(s), np.int64)
        for down in (-1, 0, 1):
            for side in (-1, 0, 1):
                dx = np.abs(i + side + _of_table(px, j + down, i + side) - x)
                dy = np.abs(j + down + _of_table(py, j + down, i + side) - y)
                d = dx + dy if city else np.maximum(dx, dy)
                kind = np.where(d < best, _of_table(table, j + down, i + side), kind)
                best = np.minimum(d, best)
        return kind.astype(np.float32)

    return level


def clouds(rng: np.random.Generator, count: int) -> Levels:
    """Blotches as in camouflage or watercolour, round or drawn out."""
    stretch = float(rng.choice([1.0, 1.0, 0.35, 3.0]))
    values = _noise(rng, _whole(rng, 4, 14), int(rng.integers(1, 3)), stretch)
    return _split(values, rng, count, smooth=rng.random() < 0.3)


def veins(rng: np.random.Generator, count: int) -> Levels:
    """Bands bent by noise till they flow like marbled paper."""
    n, up = _whole(rng, 3, 8), rng.random() < 0.5
    bend = _noise(rng, _whole(rng, 3, 8), 2)
    amount = rng.uniform(0.25, 0.6)

    def value(s: Array, t: Array) -> Array:
        return np.cos(2 * np.pi * ((s if up else t) * n + amount * bend(s, t)))

    return _split(value, rng, count, smooth=rng.random() < 0.3)


def _ripple(rng: np.random.Generator, n: int) -> Levels:
    """Two to four plane waves of about ``n`` periods on one another."""
    m = int(rng.integers(2, 5))
    angles = rng.uniform(0, np.pi) + (np.arange(m) + rng.uniform(-0.12, 0.12, m)) * np.pi / m
    across, up = np.round(n * np.cos(angles)), n * np.sin(angles)
    phase = rng.uniform(0, 2 * np.pi, m)

    def value(s: Array, t: Array) -> Array:
        waves = (
            np.cos(2 * np.pi * (a * s + b * t) + p)
            for a, b, p in zip(across, up, phase, strict=True)
        )
        return np.asarray(sum(waves))

    return value


def ripples(rng: np.random.Generator, count: int) -> Levels:
    """Plane waves on one another: lattices of blobs, nets, quasi-crystals.

    More than two colours come from a second such pattern, not from more levels of the first, which
    would draw rings.
    """
    n = _whole(rng, 4, 12)
    first = _split(_ripple(rng, n), rng, 2, smooth=count == 2 and rng.random() < 0.3)
    if count == 2:
        return first
    second = _split(_ripple(rng, _whole(rng, 2, 6)), rng, 2, smooth=False)
    if count == 3:
        return lambda s, t: first(s, t) * (1 + second(s, t))
    return lambda s, t: 2 * first(s, t) + second(s, t)


def trellis(rng: np.random.Generator, count: int) -> Levels:
    """Thin slanting lines that cross, with a mark in each mesh if there are colours for it."""
    n, tall, wide = _whole(rng, 4, 11), rng.uniform(0.7, 1.6), rng.uniform(0.16, 0.32)
    mark, phase = rng.uniform(0.2, 0.36), rng.uniform(0, 1)
    table = rng.integers(0, 2, (_ROWS, 1))  # which rows of meshes are filled

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n / tall + phase
        a, b = _triangle(x + y), _triangle(x - y)
        out = np.where(np.minimum(a, b) < wide, 1, 0)
        if count > 2:
            inside = np.minimum(a, b) > 1 - mark
            out = np.where(inside, 2, out)
        if count > 3:
            other = _of_table(table, (np.floor(x + y) - np.floor(x - y)), x * 0)
            out = np.where((out == 0) & (other == 1), 3, out)
        return out.astype(np.float32)

    return level


def labyrinth(rng: np.random.Generator, count: int) -> Levels:
    """Quarter circles on tiles turned at random (Truchet tiles): winding paths."""
    n, wide = _whole(rng, 4, 12), rng.uniform(0.28, 0.5)
    turn = rng.integers(0, 2, (_ROWS, n))
    tint = rng.integers(0, max(count - 1, 1), (_ROWS, n))
    phase = rng.uniform(0, 1)

    def level(s: Array, t: Array) -> Array:
        x, y = s * n, t * n + phase
        i, j = np.floor(x), np.floor(y)
        u, v = np.where(_of_table(turn, j, i) == 1, 1 - _saw(x), _saw(x)), _saw(y)
        near = np.minimum(np.abs(np.hypot(u, v) - 0.5), np.abs(np.hypot(1 - u, 1 - v) - 0.5))
        return np.where(near < wide / 2, 1 + _of_table(tint, j, i), 0).astype(np.float32)

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
    n, tall = _whole(rng, 5, 13), rng.uniform(0.8, 1.3)
    kinds = rng.choice(_FIGURES, 2 if rng.random() < 0.3 else 1, replace=False)
    size = rng.uniform(0.3, 0.46, (_ROWS, n)) if rng.random() < 0.4 else np.full((_ROWS, n), 0.42)
    angle = np.full((_ROWS, n), rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else 0.0)
    strewn = rng.random() < 0.4
    if strewn:
        angle = rng.uniform(0, 2 * np.pi, (_ROWS, n))
    slip = rng.uniform(-0.16, 0.16, (2, _ROWS, n)) * strewn
    tint = rng.integers(1, count, (_ROWS, n)) if count > 2 else np.ones((_ROWS, n), np.int64)
    shift, phase = 0.5 * (rng.random() < 0.6), rng.uniform(0, 1)

    def level(s: Array, t: Array) -> Array:
        y = t * n / tall + phase
        j = np.floor(y)
        x = s * n + shift * (j % 2)
        i = np.floor(x)
        u = _saw(x) - 0.5 - _of_table(slip[0], j, i)
        v = (_saw(y) - 0.5 - _of_table(slip[1], j, i)) * tall
        c, d = np.cos(_of_table(angle, j, i)), np.sin(_of_table(angle, j, i))
        r = _of_table(size, j, i)
        u, v = (c * u - d * v) / r, (d * u + c * v) / r
        odd = (i + j) % 2 == 1
        inside = np.where(odd, _figure(kinds[-1], u, v), _figure(kinds[0], u, v)) > 0
        return np.where(inside, _of_table(tint, j, i), 0).astype(np.float32)

    return level


def dips(rng: np.random.Generator, count: int) -> Levels:
    """A glaze over another: large fields one above the other, their borders even or running."""
    run = _noise(rng, _whole(rng, 4, 16), 1, 50.0)
    amount = rng.uniform(0, 0.10) * (rng.random() < 0.7)
    cuts = np.cumsum(rng.uniform(0.08, 0.22, count - 1))
    smooth = rng.random() < 0.25

    def level(s: Array, t: Array) -> Array:
        y = t + amount * run(s, np.zeros_like(t))
        if smooth:
            return np.interp(y, np.linspace(0, cuts[-1] * 1.3, count), np.arange(count)).astype(
                np.float32
            )
        return np.searchsorted(cuts, y).astype(np.float32)

    return level


FAMILIES: Final[Mapping[str, Family]] = {
    f.__name__: f
    for f in (
        stripes, chevrons, diamonds, triangles, bricks, basket, blocks, honeycomb, mosaic, clouds,
        veins, ripples, trellis, labyrinth, figures, dips,
    )
}  # fmt: skip
"""The families by name."""

_LIKELY: Final = np.array([{"figures": 4.0, "dips": 0.5}.get(name, 1.0) for name in FAMILIES])


def draw(
    rng: np.random.Generator, count: int, family: str | None = None
) -> tuple[Levels, NDArray[np.intp]]:
    """A random pattern of ``count`` colours, 2 to 4, and the rank [count] of each by its share.

    Drawn again until each colour covers LEAST_SHARE of the surface. One in four is warped, as if
    painted by hand.
    """
    s, t = _sheet()
    for _ in range(TRIES):
        name = family or str(rng.choice(list(FAMILIES), p=_LIKELY / _LIKELY.sum()))
        level = FAMILIES[name](rng, count)
        if rng.random() < 0.25:
            level = _warped(level, rng)
        values = level(s, t)
        shares = np.bincount(np.rint(values).astype(np.int64), minlength=count) / len(values)
        if shares.min() >= LEAST_SHARE:
            return level, np.argsort(np.argsort(-shares, kind="stable"), kind="stable")
    raise ValueError(f"{family or 'no family'} shows {count} colours in none of {TRIES} tries")


def _warped(level: Levels, rng: np.random.Generator) -> Levels:
    """``level`` with its coordinates moved a little by smooth noise."""
    n = _whole(rng, 4, 9)
    amount = rng.uniform(0.01, 0.03)
    dx, dy = _noise(rng, n), _noise(rng, n)
    return lambda s, t: level(_saw(s + amount * dx(s, t)), t + amount * dy(s, t))


def paint(
    s: Array, t: Array, rng: np.random.Generator, palette: Array, family: str | None = None
) -> Array:
    """A random pattern in the colours ``palette`` [2 to 4, 3]; s, t: [n] -> reflectance [n, 3].

    The first colour covers most and the last least. Equal states of ``rng`` give equal patterns.
    """
    level, rank = draw(rng, len(palette), family)
    values, paints = level(s, t), palette[rank]
    low = np.floor(values).astype(np.int64)
    high = np.minimum(low + 1, len(palette) - 1)
    blend = (values - low)[:, None]
    return (paints[low] + (paints[high] - paints[low]) * blend).astype(np.float32)
