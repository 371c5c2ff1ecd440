"""Patterns drawn at random, so that the base learns "patterned" as any pattern at all.

A family is a rule with random settings: it draws them and returns a function of surface
coordinates (see :mod:`customedit.mini.patterns`) that says which of ``count`` colours is where. All
families wrap: s = 0 and s = 1 meet. None is a look kept out of training nor close to one: no
slanted stripes (spiral), no crossed bands (plaid), no chips in a pale ground (terrazzo), no thin
irregular seams (gold cracks), no rings (leopard), no overlapping discs or half circles (scales,
waves), no petals (painted flowers). The tests measure how far they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from customedit.mini.random_patterns.bands import chevrons, clouds, dips, ripples, stripes, veins
from customedit.mini.random_patterns.tilings import (
    basket,
    blocks,
    bricks,
    diamonds,
    figures,
    honeycomb,
    labyrinth,
    mosaic,
    trellis,
    triangles,
)
from customedit.mini.random_patterns.tools import Array, Family, Levels, noise, saw, sheet, whole

LEAST_SHARE: Final = 0.06
"""Each colour of a pattern covers at least this share of the surface: captions name them all."""

TRIES: Final = 40

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
    s, t = sheet()
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
    n = whole(rng, 4, 9)
    amount = rng.uniform(0.01, 0.03)
    dx, dy = noise(rng, n), noise(rng, n)
    return lambda s, t: level(saw(s + amount * dx(s, t)), t + amount * dy(s, t))


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
