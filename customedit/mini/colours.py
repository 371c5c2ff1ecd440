"""Naming colours from pixels: of the thing through its shading, and of wall and table behind it.

A palette colour of reflectance ``a`` is seen as ``L a + s`` where light L and highlight s vary
over the body. So each colour is a family of shades, and a pixel gets the colour that explains it
with the least error and the least improbable light. What a thing's colour is, its pixels then vote
on. No weights are involved, nor the model's own CLIP; how often the readings are right on true
renders is measured beside every figure that uses them (:mod:`customedit.mini.evaluate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from customedit.mini.vocabulary import COLOURS

Array = NDArray[np.float32]
Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

WALL_BELOW: Final = 0.35
"""The wall is read above this height, as a share from the top: no table reaches there."""

TABLE_ABOVE: Final = 0.90
"""The table is read below this height, as a share from the top."""

SMALLEST: Final = 0.01
"""A mask with a smaller share of the picture than this is no thing at all."""

EDGE: Final = 2
"""Pixels taken off all round the thing before its colours are read."""

_NAMES: Final = tuple(COLOURS)


@dataclass(frozen=True)
class Shades:
    """How colours may look: seen [k, 3] in [0, 1], what each costs [k], whose it is [k]."""

    seen: Array
    cost: Array
    owner: NDArray[np.intp]

    def name(self, pixels: NDArray[np.floating]) -> NDArray[np.intp]:
        """The palette number of each pixel; pixels: [n, 3] in [0, 1]."""
        p = pixels.astype(np.float32)
        cross = p @ (2 * self.seen.T)
        # |p - seen|^2 + cost, less |p|^2, which is the same for all
        return self.owner[np.argmin((self.seen**2).sum(1) + self.cost - cross, axis=1)]


def _shades(lights: Array, usual: float, highlights: Array, dear: tuple[float, float]) -> Shades:
    """All of ``lights`` x ``highlights`` on every colour.

    ``dear``: what a light's squared distance from ``usual``, and a squared highlight, cost in units
    of squared error.
    """
    palette = np.array(list(COLOURS.values()), np.float32)
    light, highlight = (a.ravel() for a in np.meshgrid(lights, highlights, indexing="ij"))
    seen = palette[:, None] * light[:, None] + highlight[:, None]
    cost = dear[0] * (light - usual) ** 2 + dear[1] * highlight**2
    return Shades(
        np.minimum(seen, 1).reshape(-1, 3).astype(np.float32),
        np.tile(cost, len(palette)).astype(np.float32),
        np.repeat(np.arange(len(palette)), len(light)),
    )


BODY_SHADES: Final = _shades(
    np.linspace(0.3, 1.15, 18, dtype=np.float32),
    0.75,
    np.array([0, 0.03, 0.06, 0.1, 0.15, 0.22, 0.3, 0.45], np.float32),
    (0.05, 0.15),
)
"""Shades on a curved body. The usual light decides between white and gray in metal's dark bands:
from 0.70 to 0.75 the readings on renders did not change, at 0.85 one in a hundred more went wrong.
"""

FLAT_SHADES: Final = _shades(
    np.linspace(0.75, 1.1, 8, dtype=np.float32),
    0.92,
    np.array([0.02, 0.05], np.float32),
    (0.05, 0.0),
)
"""Shades of a wall or a table: little light and shade, a trace of haze."""


def enlarge(mask: Mask, side: int) -> Mask:
    """A square mask [m, m] brought to [side, side]; ``side`` is a multiple of m."""
    times = side // mask.shape[0]
    return mask.repeat(times, 0).repeat(times, 1)


def thing_colours(image: Image, mask: Mask) -> dict[str, float]:
    """Which share of the thing's pixels has which colour, the largest first.

    image: [h, h, 3]; mask: the thing, bool [m, m], h a multiple of m. Pixels at the mask's edge
    don't vote. Empty if the mask is (see SMALLEST).
    """
    if mask.mean() < SMALLEST:
        return {}
    whole = enlarge(mask, len(image))
    inner = binary_erosion(whole, iterations=EDGE)
    pixels = image[inner if inner.any() else whole] / np.float32(255)
    votes = np.bincount(BODY_SHADES.name(pixels), minlength=len(_NAMES)) / len(pixels)
    order = np.argsort(-votes, kind="stable")
    return {_NAMES[k]: float(votes[k]) for k in order if votes[k] > 0}


def place_colours(image: Image, mask: Mask) -> tuple[str, str]:
    """(wall, table): the palette colours nearest to the median pixels high up and low down.

    image: [h, h, 3]; mask: the thing, bool [m, m], h a multiple of m. Pixels on the thing or
    near it don't count, unless there are no others.
    """
    away = ~binary_dilation(enlarge(mask, len(image)), iterations=4)
    rows = (np.arange(len(image)) + 0.5)[:, None] / len(image)

    def read(here: Mask) -> str:
        where = away & here
        seen = image[where if where.any() else here | np.zeros_like(away)]
        median = np.median(seen, axis=0) / 255
        return _NAMES[int(FLAT_SHADES.name(median[None])[0])]

    return read(rows < WALL_BELOW), read(rows > TABLE_ABOVE)
