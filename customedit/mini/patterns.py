"""What is painted on the things: patterns the base is trained on, and looks it never sees.

A pattern is a function of surface coordinates. ``s`` runs once round the thing in [0, 1);
``t`` is the arc length up its side in units of the body's circumference, so that a step in ``s``
and an equal step in ``t`` cover equal lengths at the widest place. Patterns wrap: s = 0 and s = 1
meet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from customedit.mini.vocabulary import COLOURS

Array = NDArray[np.floating[Any]]
"""float32 in, float32 out; the operators between promise no more than floating."""

Paint = Callable[[Array, Array, np.random.Generator, Array, Array], Array]
"""(s [n], t [n], rng, first colour [3], second colour [3]) -> reflectance [n, 3]."""


def _rgb(red: float, green: float, blue: float) -> Array:
    return np.array([red, green, blue], np.float32)


def _edge(signed: Array, softness: float = 0.03) -> Array:
    """0 below zero, 1 above, with a soft step so that edges do not shimmer."""
    return np.clip(signed / (2 * softness) + 0.5, 0, 1)


def _mix(first: Array, second: Array, amount: Array) -> Array:
    return first + (second - first) * amount[:, None]


def _saw(x: Array) -> Array:
    return x - np.floor(x)


def _triangle(x: Array) -> Array:
    """Period 1, value in [0, 1], 0 at whole numbers."""
    return 1 - np.abs(2 * _saw(x) - 1)


def plain(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """The first colour everywhere."""
    return np.broadcast_to(first, (len(s), 3))


def striped(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Stripes up the side; the first colour takes the wider share."""
    n = rng.integers(7, 11)
    return _mix(first, second, _edge(_triangle(s * n) - 0.62, 0.06))


def banded(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Bands round the body; the first colour takes the wider share."""
    n, phase = rng.uniform(7, 10), rng.uniform(0, 1)
    return _mix(first, second, _edge(_triangle(t * n + phase) - 0.62, 0.06))


def dotted(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Dots of the second colour on the first, every other row shifted by half a step."""
    n, phase = int(rng.integers(8, 11)), rng.uniform(0, 1)
    row = t * n + phase
    shift = 0.5 * (np.floor(row) % 2)
    x, y = _saw(s * n + shift) - 0.5, _saw(row) - 0.5
    return _mix(first, second, _edge(0.32 - np.hypot(x, y), 0.05))


def checkered(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Squares of the two colours by turns; an even number of them goes round."""
    n, phase = 2 * int(rng.integers(5, 7)), rng.uniform(0, 1)
    odd = (np.floor(s * n) + np.floor(t * n + phase)) % 2
    return _mix(first, second, odd.astype(np.float32))


def zigzag(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Zigzag lines round the body; the first colour takes the wider share."""
    n, rows, phase = int(rng.integers(7, 10)), rng.uniform(5.5, 7.5), rng.uniform(0, 1)
    wave = _triangle(t * rows + phase + 0.55 * _triangle(s * n))
    return _mix(first, second, _edge(wave - 0.58, 0.07))


# --- Looks kept out of training -----------------------------------------------------------------


def plaid(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Crossing translucent bands, wide and narrow, as woven cloth."""
    n, phase = int(rng.integers(7, 9)), rng.uniform(0, 1)
    thin = _rgb(*COLOURS["yellow"])
    wide = 0.5 * (_edge(_triangle(s * n) - 0.55) + _edge(_triangle(t * n + phase) - 0.55))
    line = np.maximum(
        _edge(0.11 - _triangle(s * n), 0.04), _edge(0.11 - _triangle(t * n + phase), 0.04)
    )
    return _mix(_mix(first, second, wide), thin, 0.8 * line)


def _cells(
    s: Array, t: Array, rng: np.random.Generator, count: int, jitter: float = 1.0
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Worley cells, wrapped in ``s``: distances to the two nearest points, the nearest's number."""
    low, high = float(t.min()), float(t.max())
    area = max(high - low, 1e-3)
    rows = max(round(float(np.sqrt(count * area))), 1)
    cols = max(round(count / max(rows, 1)), 3)
    gx, gy = np.meshgrid(np.arange(cols), np.arange(rows))
    px = (gx + 0.5 + 0.5 * (gy % 2) + jitter * rng.uniform(-0.45, 0.45, gx.shape)) / cols
    py = low + (gy + 0.5 + jitter * rng.uniform(-0.45, 0.45, gx.shape)) / rows * area
    px, py = (px.ravel() % 1).astype(np.float32), py.ravel().astype(np.float32)
    nearest = np.full(len(s), np.inf, np.float32)
    second = np.full(len(s), np.inf, np.float32)
    which = np.zeros(len(s), np.int64)
    for number, (x, y) in enumerate(zip(px, py, strict=True)):
        dx = np.abs(s - x)
        distance = np.hypot(np.minimum(dx, 1 - dx), t - y).astype(np.float32)
        closer = distance < nearest
        second = np.where(closer, nearest, np.minimum(second, distance))
        nearest = np.where(closer, distance, nearest)
        which[closer] = number
    return nearest, second, which


def terrazzo(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Chips of several colours set in a pale ground."""
    chips = np.stack([_rgb(*COLOURS[c]) for c in ("red", "green", "blue", "black", "orange")])
    nearest, beyond, which = _cells(s, t, rng, 150)
    shown = chips[rng.integers(0, len(chips), int(which.max()) + 1)][which]
    inside = _edge((beyond - nearest) * 40 - 0.9, 0.2)[:, None]
    return _rgb(0.93, 0.91, 0.86) * (1 - inside) + shown * inside


def spiral(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Bands that climb as they go round."""
    n, phase = int(rng.integers(3, 5)), rng.uniform(0, 1)
    return _mix(first, second, _edge(_triangle(s * n + 5.5 * t + phase) - 0.55, 0.06))


def scales(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Overlapping round scales, each shaded from its edge."""
    n = 2 * int(rng.integers(5, 7))
    shade = np.zeros(len(s), np.float32)
    for back in (1, 0):  # upper rows are covered by lower ones
        row = np.floor(t * n) + back
        x = _saw(s * n + 0.5 * (row % 2)) - 0.5
        y = t * n - row
        d = np.hypot(x, y * 0.9)
        shade = np.where(d < 0.62, np.clip(d / 0.62, 0, 1) ** 3, shade)
    return _mix(first, second, shade)


def gold_cracks(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Kintsugi: a dark glaze broken and mended with gold."""
    nearest, beyond, _ = _cells(s, t, rng, 34)
    seam = _edge(0.012 - (beyond - nearest), 0.005)
    return _mix(_rgb(0.10, 0.14, 0.24), _rgb(0.95, 0.74, 0.24), seam)


def painted_flowers(
    s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array
) -> Array:
    """Five-petalled flowers with yellow hearts on a white ground."""
    n, phase = int(rng.integers(5, 7)), rng.uniform(0, 1)
    row = t * n + phase
    x, y = _saw(s * n + 0.5 * (np.floor(row) % 2)) - 0.5, _saw(row) - 0.5
    r, a = np.hypot(x, y), np.arctan2(y, x)
    petal = _edge(0.30 + 0.12 * np.cos(5 * a + phase * 6) - r, 0.04)
    ground = _rgb(*COLOURS["white"])
    return _mix(_mix(ground, first, petal), _rgb(*COLOURS["yellow"]), _edge(0.12 - r, 0.03))


def leopard(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Dark broken rosettes on tan."""
    nearest, _, which = _cells(s, t, rng, 70)
    radius = rng.uniform(0.024, 0.038, int(which.max()) + 1).astype(np.float32)[which]
    ring = _edge(0.009 - np.abs(nearest - radius), 0.004)
    tan, heart, spot = _rgb(0.86, 0.66, 0.36), _rgb(0.62, 0.40, 0.16), _rgb(0.12, 0.08, 0.05)
    return _mix(_mix(tan, heart, _edge(radius - nearest, 0.004)), spot, ring)


def waves(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
    """Rows of concentric half circles, as on Japanese cloth."""
    n = 2 * int(rng.integers(4, 6))
    value = np.zeros(len(s), np.float32)
    for back in (1, 0):
        row = np.floor(t * n) + back
        x = 2 * (_saw(s * n / 2 + 0.5 * (row % 2)) - 0.5)
        d = np.hypot(x, (t * n - row) * 0.9)
        value = np.where(d < 1, _edge(_triangle(d * 3) - 0.5, 0.12), value)
    return _mix(_rgb(*COLOURS["white"]), _rgb(0.10, 0.24, 0.55), value)


PAINTS: Final[dict[str, Paint]] = {
    "plain": plain, "striped": striped, "banded": banded, "dotted": dotted,
    "checkered": checkered, "zigzag": zigzag,
    "plaid": plaid, "terrazzo": terrazzo, "spiral": spiral, "scales": scales,
    "gold cracks": gold_cracks, "painted flowers": painted_flowers, "leopard": leopard,
    "waves": waves,
}  # fmt: skip


def textured(tile: NDArray[np.uint8], repeat: int) -> Paint:
    """The paint that lays a picture round the thing, ``repeat`` times side by side.

    tile: [h, w, 3], its colours taken as reflectance, linear in displayed RGB; it should join to
    itself at its edges. Where the first tile begins is drawn for each scene.
    """
    colours = tile.astype(np.float32) / 255
    height, width = tile.shape[:2]

    def paint(s: Array, t: Array, rng: np.random.Generator, first: Array, second: Array) -> Array:
        column = _saw(s * repeat + rng.uniform()) * width - 0.5
        row = _saw(t * repeat * width / height + rng.uniform()) * height - 0.5
        x, y = np.floor(column).astype(np.intp), np.floor(row).astype(np.intp)
        across, down = (column - x)[:, None], (row - y)[:, None]

        def at(i: NDArray[np.intp], j: NDArray[np.intp]) -> Array:
            return colours[j % height, i % width]

        above = at(x, y) + (at(x + 1, y) - at(x, y)) * across
        below = at(x, y + 1) + (at(x + 1, y + 1) - at(x, y + 1)) * across
        return (above + (below - above) * down).astype(np.float32)

    return paint


def add_texture(tile: NDArray[np.uint8], repeat: int) -> str:
    """Make a texture known to the renderer; returns its pattern name, which its content decides."""
    content = f"{tile.shape} {repeat} ".encode() + np.ascontiguousarray(tile).tobytes()
    name = f"texture {hashlib.sha256(content).hexdigest()[:16]}"
    PAINTS.setdefault(name, textured(tile, repeat))
    return name


def wood(x: Array, y: Array, rng: np.random.Generator, base: Array) -> Array:
    """Wood grain running along ``x``: gently bent darker lines in ``base`` [3]. x, y: [n], [n]."""
    f, p, q = rng.uniform(9, 14), rng.uniform(0, 6), rng.uniform(0, 6)
    bend = y + 0.05 * np.sin(3.1 * x + p) + 0.02 * np.sin(7.3 * x + q)
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * bend * f / 2.2)
    return base * (1.0 - 0.26 * grain[:, None]).astype(np.float32)


def marble(x: Array, y: Array, rng: np.random.Generator, base: Array) -> Array:
    """Pale stone with grey veins."""
    p, q = rng.uniform(0, 6), rng.uniform(0, 6)
    v = np.sin(4 * x + 6 * y + 1.8 * np.sin(3 * x - 2 * y + p) + 0.9 * np.sin(9 * y + 5 * x + q))
    vein = np.clip(1 - 4.5 * np.abs(v), 0, 1)
    return base * (1.0 - 0.32 * vein[:, None]).astype(np.float32)


def brick(x: Array, y: Array, rng: np.random.Generator, base: Array) -> Array:
    """Bricks in running bond with pale mortar."""
    row = y * 7
    u = _saw(x * 3.2 + 0.5 * (np.floor(row) % 2))
    joint = _edge(0.05 - (0.5 - np.abs(u - 0.5)), 0.02)
    bed = _edge(0.07 - (0.5 - np.abs(_saw(row) - 0.5)), 0.03)
    mortar = np.maximum(joint, bed).astype(np.float32)
    return _mix(base, _rgb(0.80, 0.76, 0.70), mortar)
