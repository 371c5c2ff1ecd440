"""Where an edit is measured: on the thing, in the ring round it, and beyond the ring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from customedit.errors import InputError

RING: Final = 14
"""Width of the ring in pixels: where ghosts of handles and smears lie."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Regions:
    """Three masks of a picture, bool [h, w], without a pixel in common.

    inside: the thing's own pixels; ring: pixels off the thing that are at most RING away from it;
    beyond: the rest off the thing. The thing's edge, pixels that it covers in part but by less than
    half, is in none: there the right colour is a mixture of both.
    """

    inside: Mask
    ring: Mask
    beyond: Mask

    @classmethod
    def of(cls, coverage: NDArray[np.floating[Any]]) -> Regions:
        """The regions of a thing that covers each pixel by ``coverage``, [h, w] in [0, 1].

        Raises InputError for a coverage outside [0, 1], and for a thing that covers no pixel by
        half.
        """
        if not ((coverage >= 0) & (coverage <= 1)).all():
            raise InputError("mask", "has numbers outside 0 to 1", "scale it")
        inside = coverage >= 0.5
        if not inside.any():
            raise InputError("mask", "marks no pixel", "make the thing's pixels white")
        outside = coverage == 0
        distance = distance_transform_edt(~inside)
        return cls(inside, outside & (distance <= RING), outside & (distance > RING))
