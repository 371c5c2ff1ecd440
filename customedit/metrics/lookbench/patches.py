"""How far the patches of one picture are from those of another: sliced Wasserstein distance.

A look is a distribution of patches: a pattern that is moved along the thing has nearly the same
patches, another pattern has others. The distributions are compared by the sliced Wasserstein-1
distance (Bonneel et al., J. Math. Imaging Vis. 51, 2015): the mean over random directions of the
one-dimensional distance, which for equally many patches is the mean difference of sorted values.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from customedit.errors import InputError
from customedit.metrics.lookbench.colour import Array

SIDE: Final = 5
"""Side of a patch in pixels of its scale."""

SCALES: Final = (1, 2)
"""Pixels a side that are averaged into one before patches are taken."""

BASES: Final = 2
"""Random orthonormal bases whose vectors are the directions. With other bases a distance differs by
1 to 2 in a hundred and a share of the gap by 0.4; as many independent directions differ by 5."""

FEWEST: Final = 16
"""Patches that each scale must have inside the mask."""

Mask = NDArray[np.bool_]


def patches(values: Array, mask: Mask, side: int = SIDE) -> Array:
    """All patches of ``values`` [h, w, 3] that lie in ``mask`` [h, w] as a whole: [n, 3, side^2].

    The channel comes before the pixels; n may be 0.
    """
    whole = sliding_window_view(mask, (side, side)).all(axis=(2, 3))
    windows = sliding_window_view(values, (side, side), axis=(0, 1))  # [h', w', 3, side, side]
    return windows[whole].reshape(-1, 3, side * side)


def halved(values: Array, mask: Mask, times: int) -> tuple[Array, Mask]:
    """Means over ``times`` x ``times`` pixels, and where all of these are in the mask.

    values: [h, w, 3]; mask: [h, w]. Rows and columns that do not fill a cell are left out.
    """
    h, w = (n // times for n in mask.shape)
    values, mask = values[: h * times, : w * times], mask[: h * times, : w * times]
    whole: Mask = mask.reshape(h, times, w, times).all(axis=(1, 3)).reshape(h, w)
    return values.reshape(h, times, w, times, 3).mean(axis=(1, 3)), whole


@lru_cache(maxsize=8)
def directions(dimensions: int, seed: int) -> Array:
    """Random unit vectors, evenly over the sphere: float64 [dimensions, BASES x dimensions].

    They come in orthonormal bases, each one evenly distributed (the Q of a Gaussian matrix, signs
    by R's diagonal: Mezzadri, Notices of the AMS 54, 2007).
    """
    rng = np.random.default_rng(seed)
    bases = []
    for _ in range(BASES):
        q, r = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))
        bases.append(q * np.sign(np.diag(r)))
    return np.concatenate(bases, axis=1)


def sliced_wasserstein(first: Array, second: Array, *, seed: int = 0) -> float:
    """Sliced Wasserstein-1 distance of two sets of equally many vectors, both [n, d]; 0 or more.

    The mean over directions times sqrt(pi d / 2), so that sets of which one is the other moved by v
    are |v| apart (up to the chance of the directions; within 1 in 300 in the mean for d = 75).
    """
    dimensions = first.shape[1]
    across = directions(dimensions, seed)
    a, b = np.sort(first @ across, axis=0), np.sort(second @ across, axis=0)
    return float(np.abs(a - b).mean() * np.sqrt(np.pi * dimensions / 2))


def patch_distance(
    first: Array, second: Array, mask: Mask, *, detail: bool = False, seed: int = 0
) -> float:
    """Distance of the patches inside ``mask``, the mean over SCALES; in Lab units, 0 or more.

    Per pixel (root mean square): a thing that is wrong by one colour difference (CIE76) all over is
    as far away as that.

    first, second: Lab [h, w, 3]; mask: bool [h, w]. With ``detail``, of patches less their own mean
    colour: what is left is edges and texture. seed: of the random directions.

    Raises InputError for a mask with fewer than FEWEST whole patches at a scale.
    """
    distances = []
    for times in SCALES:
        (a, there), (b, _) = halved(first, mask, times), halved(second, mask, times)
        x, y = patches(a, there), patches(b, there)
        if len(x) < FEWEST:
            raise InputError(
                "mask",
                f"holds {len(x)} whole patches of {SIDE * times} pixels, {FEWEST} are needed",
                "take a picture in which the thing is larger",
            )
        if detail:
            x, y = x - x.mean(axis=2, keepdims=True), y - y.mean(axis=2, keepdims=True)
        distance = sliced_wasserstein(x.reshape(len(x), -1), y.reshape(len(y), -1), seed=seed)
        distances.append(distance / SIDE)
    return float(np.mean(distances))
