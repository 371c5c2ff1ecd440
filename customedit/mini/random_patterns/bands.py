"""Families of random patterns made of bands and of noise."""

from __future__ import annotations

import numpy as np

from customedit.mini.random_patterns.tools import (
    Array,
    Levels,
    noise,
    saw,
    sequence,
    split,
    triangle,
    whole,
)


def stripes(rng: np.random.Generator, count: int) -> Levels:
    """Stripes of uneven widths, up the body or round it, straight or wavy."""
    up = rng.random() < 0.5
    length = int(rng.integers(max(count, 3), 7))
    length += length % 2 if count == 2 else 0  # two colours by turns need an even ring
    row = sequence(rng, length, count)
    edges = np.cumsum(rng.dirichlet(np.full(length, 3.0)))
    repeats = whole(rng, 1, 5)
    wave = rng.uniform(0.1, 0.5) / repeats / length if rng.random() < 0.5 else 0.0
    waves, phase = whole(rng, 2, 8), rng.uniform(0, 1, 2)

    def level(s: Array, t: Array) -> Array:
        along, across = (t, s) if up else (s, t)
        across = across + wave * 2 * np.sin(2 * np.pi * (waves * along + phase[0]))
        place = saw(repeats * across + phase[1])
        return row[np.minimum(np.searchsorted(edges, place), length - 1)].astype(np.float32)

    return level


def chevrons(rng: np.random.Generator, count: int) -> Levels:
    """Bands with sharp bends, up the body or round it, in steps of several colours."""
    up = rng.random() < 0.6 or count == 2
    length = count if count > 2 else int(rng.integers(3, 5))
    length += length % 2 if count == 2 else 0
    row = sequence(rng, length, count)
    edges = np.cumsum(rng.dirichlet(np.full(length, 5.0)))
    repeats, bends, high = whole(rng, 1, 4), whole(rng, 3, 9), rng.uniform(0.4, 1.2)
    phase = rng.uniform(0, 1)

    def level(s: Array, t: Array) -> Array:
        along, across = (t, s) if up else (s, t)
        bend = high / bends * triangle(along * bends)
        place = saw((across + bend) * repeats + phase)
        return row[np.minimum(np.searchsorted(edges, place), length - 1)].astype(np.float32)

    return level


def clouds(rng: np.random.Generator, count: int) -> Levels:
    """Blotches as in camouflage or watercolour, round or drawn out."""
    stretch = float(rng.choice([1.0, 1.0, 0.35, 3.0]))
    values = noise(rng, whole(rng, 4, 14), int(rng.integers(1, 3)), stretch)
    return split(values, rng, count, smooth=rng.random() < 0.3)


def veins(rng: np.random.Generator, count: int) -> Levels:
    """Bands bent by noise till they flow like marbled paper."""
    n, up = whole(rng, 3, 8), rng.random() < 0.5
    bend = noise(rng, whole(rng, 3, 8), 2)
    amount = rng.uniform(0.25, 0.6)

    def value(s: Array, t: Array) -> Array:
        return np.cos(2 * np.pi * ((s if up else t) * n + amount * bend(s, t)))

    return split(value, rng, count, smooth=rng.random() < 0.3)


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
    n = whole(rng, 4, 12)
    first = split(_ripple(rng, n), rng, 2, smooth=count == 2 and rng.random() < 0.3)
    if count == 2:
        return first
    second = split(_ripple(rng, whole(rng, 2, 6)), rng, 2, smooth=False)
    if count == 3:
        return lambda s, t: first(s, t) * (1 + second(s, t))
    return lambda s, t: 2 * first(s, t) + second(s, t)


def dips(rng: np.random.Generator, count: int) -> Levels:
    """A glaze over another: large fields one above the other, their borders even or running."""
    run = noise(rng, whole(rng, 4, 16), 1, 50.0)
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
