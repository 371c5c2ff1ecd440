"""How near two kinds of patterns come to each other in structure, whatever their colours and phase.

A pattern is painted flat, brought to one channel (its colours' principal axis, variance 1) and
filtered by Gabor wavelets of 4 lengths and 8 directions. Of each wavelet's amplitude over the sheet
the quantiles are kept: where things stand does not count, what there is of edges, dots and lines
does. A kind A comes as near to B as the median over draws of B of the Euclidean distance to A's
nearest draw; B is also drawn at 0.55 to 1.8 times its size, which makes the unit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from customedit.mini.patterns import PAINTS, Array, _cells, _edge, _mix, _saw, _triangle
from customedit.mini.random_patterns import paint
from customedit.mini.vocabulary import COLOURS, LOOKS

Draw = Callable[[int], Array]

SIDE, SPAN = 64, 0.42
DRAWS = 28
_T, _S = (a.ravel() for a in (np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + 0.5) / SIDE * SPAN)
_PALETTE = np.array(list(COLOURS.values()), np.float32)


def _wavelets() -> Array:
    f = np.fft.fftfreq(SIDE).astype(np.float32)
    fy, fx = np.meshgrid(f, f, indexing="ij")
    bank = []
    for length in (4.2, 6.7, 10.8, 17.5):
        for angle in np.pi * np.arange(8) / 8:
            along = fx * np.cos(angle) + fy * np.sin(angle)
            across = fy * np.cos(angle) - fx * np.sin(angle)
            squared = (along * length - 1) ** 2 / 0.245 + (across * length) ** 2 / 0.18
            bank.append(np.exp(-squared))
    return np.stack(bank)


_BANK = _wavelets()


def _structure(painted: Array) -> Array:
    """The wavelets' amplitudes, as quantiles: [32 x 25]."""
    centred = painted - painted.mean(0)
    axis = np.linalg.svd(centred.T @ centred)[0][:, 0]
    sheet = (centred @ axis).reshape(SIDE, SIDE)
    spectrum = np.fft.fft2(sheet / (sheet.std() + 1e-6))
    amplitude = np.abs(np.fft.ifft2(spectrum * _BANK))[:, 6:-6, 6:-6].reshape(len(_BANK), -1)
    places = np.linspace(0.02, 0.98, 25) * (amplitude.shape[1] - 1)
    return np.sort(amplitude, axis=1)[:, places.astype(int)].ravel()


def _colours(rng: np.random.Generator, count: int) -> Array:
    return _PALETTE[rng.permutation(len(_PALETTE))[:count]]


def _drawn(draw: Draw, first: int = 0, count: int = DRAWS) -> Array:
    return np.stack([_structure(draw(first + k)) for k in range(count)])


def look(name: str, seed: int, size: tuple[float, float] = (1.0, 1.0)) -> Array:
    """A look painted flat at a size drawn from ``size``."""
    rng = np.random.default_rng(seed)
    scale = np.float32(1 / rng.uniform(*size))
    return PAINTS[name](_S * scale, _T * scale, rng, *_colours(rng, 2))


def family(name: str, seed: int) -> Array:
    """A random pattern of a family painted flat, of two, three and four colours in turn."""
    rng = np.random.default_rng([seed, 11])
    return paint(_S, _T, rng, _colours(rng, 2 + seed % 3), name)


def nearness(kind: Array, looks: Array) -> float:
    """Median over ``looks`` of the distance to the nearest of ``kind``; both are structures."""
    return float(np.median(np.linalg.norm(looks[:, None] - kind[None], axis=2).min(1)))


def measured(draws: dict[str, Draw]) -> dict[str, dict[str, float]]:
    """For each kind, how near it comes to each look, in units of the look at other sizes."""
    looks = {name: _drawn(partial(look, name), 1000, 12) for name in LOOKS}
    other_sizes = {name: _drawn(partial(look, name, size=(0.55, 1.8))) for name in LOOKS}
    units = {name: nearness(other_sizes[name], looks[name]) for name in LOOKS}
    found = {}
    for kind, draw in draws.items():
        structures = _drawn(draw)
        found[kind] = {n: nearness(structures, looks[n]) / units[n] for n in LOOKS}
    return found


# --- near twins of the looks, which must not be trained on: what the measure must find near -------


def _tartan(s: Array, t: Array, rng: np.random.Generator, one: Array, two: Array) -> Array:
    n, wide = int(rng.integers(5, 10)), rng.uniform(0.4, 0.7)
    x, y = _triangle(s * n), _triangle(t * n)
    lines = np.maximum(_edge(0.15 - x, 0.04), _edge(0.15 - y, 0.04))
    ground = _mix(one, two, 0.5 * (_edge(x - wide) + _edge(y - wide)))
    return _mix(ground, _colours(rng, 1)[0], 0.9 * lines)


def _pebbles(s: Array, t: Array, rng: np.random.Generator, one: Array, two: Array) -> Array:
    nearest, beyond, which = _cells(s, t, rng, int(rng.integers(80, 220)))
    chips = _PALETTE[rng.integers(0, len(_PALETTE), int(which.max()) + 1)][which]
    inside = _edge((beyond - nearest) * 40 - rng.uniform(0.6, 1.3), 0.2)[:, None]
    return one * (1 - inside) + chips * inside


def _slanted(s: Array, t: Array, rng: np.random.Generator, one: Array, two: Array) -> Array:
    n, slope, wide = int(rng.integers(3, 7)), rng.uniform(3, 9), rng.uniform(0.35, 0.65)
    return _mix(one, two, _edge(_triangle(s * n + slope * t) - wide))


def _tiles(s: Array, t: Array, rng: np.random.Generator, one: Array, two: Array) -> Array:
    n, power, reach = 2 * int(rng.integers(4, 8)), rng.uniform(2, 4.5), rng.uniform(0.58, 0.66)
    shade = np.zeros(len(s), np.float32)
    for back in (1, 0):
        row = np.floor(t * n) + back
        d = np.hypot(_saw(s * n + 0.5 * (row % 2)) - 0.5, (t * n - row) * 0.9)
        shade = np.where(d < reach, (d / reach) ** power, shade)
    return _mix(one, two, shade)


def _cracks(s: Array, t: Array, rng: np.random.Generator, one: Array, two: Array) -> Array:
    nearest, beyond, _ = _cells(s, t, rng, int(rng.integers(20, 60)))
    return _mix(one, two, _edge(rng.uniform(0.008, 0.02) - (beyond - nearest), 0.004))


def _daisies(s: Array, t: Array, rng: np.random.Generator, one: Array, two: Array) -> Array:
    n, petals = int(rng.integers(4, 8)), int(rng.choice([4, 5, 6, 7]))
    row = t * n
    x, y = _saw(s * n + 0.5 * (np.floor(row) % 2)) - 0.5, _saw(row) - 0.5
    r, a = np.hypot(x, y), np.arctan2(y, x)
    petal = _edge(0.30 + 0.12 * np.cos(petals * a) - r, 0.04)
    return _mix(_mix(one, two, petal), _colours(rng, 1)[0], _edge(0.12 - r, 0.03))


def _rosettes(s: Array, t: Array, rng: np.random.Generator, one: Array, two: Array) -> Array:
    nearest, _, _ = _cells(s, t, rng, int(rng.integers(50, 100)))
    radius, wide = rng.uniform(0.02, 0.04), rng.uniform(0.007, 0.012)
    heart = one + rng.uniform(0.2, 0.5) * (two - one)
    inside = _mix(one, heart, _edge(radius - nearest, 0.004))
    return _mix(inside, two, _edge(wide - np.abs(nearest - radius), 0.004))


def _fans(s: Array, t: Array, rng: np.random.Generator, one: Array, two: Array) -> Array:
    n, rings = 2 * int(rng.integers(3, 7)), float(rng.choice([2, 3, 4]))
    value = np.zeros(len(s), np.float32)
    for back in (1, 0):
        row = np.floor(t * n) + back
        d = np.hypot(2 * _saw(s * n / 2 + 0.5 * (row % 2)) - 1, (t * n - row) * 0.9)
        value = np.where(d < 1, _edge(_triangle(d * rings) - 0.5, 0.12), value)
    return _mix(one, two, value)


TWINS = {
    "plaid": _tartan, "terrazzo": _pebbles, "spiral": _slanted, "scales": _tiles,
    "gold cracks": _cracks, "painted flowers": _daisies, "leopard": _rosettes, "waves": _fans,
}  # fmt: skip


def twin(name: str, seed: int) -> Array:
    """A near twin of the look ``name`` painted flat."""
    rng = np.random.default_rng([seed, 3])
    scale = np.float32(rng.uniform(0.55, 1.8))
    return TWINS[name](_S * scale, _T * scale, rng, *_colours(rng, 2))
