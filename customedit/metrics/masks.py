"""Masks of pictures: what counts of one, and what it cuts out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customedit.errors import InputError

GREY = (128, 128, 128)
"""What stands around an object that is cut out."""

MARGIN = 0.1
"""Around a cut-out object, as a share of its box's longer side."""

Mask = NDArray[np.floating[Any]] | NDArray[np.bool_]


def cut_out(image: Image.Image, mask: Mask, *, margin: float = MARGIN) -> Image.Image:
    """The object of ``image`` alone: on neutral grey, cropped to the mask's box and a margin.

    mask: [h, w] in [0, 1] at the picture's size; pixels above 0.5 make the box; margin: a share of
    the box's longer side, cut at the picture's edge.

    Raises:
        InputError: for a mask of another size or one that is nowhere above 0.5.
    """
    weight = weights(mask, (image.height, image.width))
    ys, xs = np.nonzero(weight > 0.5)
    if not len(ys):
        raise InputError("mask", "is nowhere above 0.5", "mark the object's pixels with 1")
    alpha = Image.fromarray((weight * 255 + 0.5).astype(np.uint8))
    alone = Image.composite(image.convert("RGB"), Image.new("RGB", image.size, GREY), alpha)
    left, top, right, bottom = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    edge = round(margin * max(right - left, bottom - top))
    return alone.crop(
        (
            int(max(0, left - edge)),
            int(max(0, top - edge)),
            int(min(image.width, right + edge)),
            int(min(image.height, bottom + edge)),
        )
    )


def weights(mask: Mask, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The mask as numbers.

    Raises:
        InputError: unless it is of ``shape`` and within [0, 1].
    """
    weight = np.asarray(mask, np.float64)
    if weight.shape != shape:
        raise InputError(
            "mask", f"has shape {weight.shape}, the picture {shape}", "give it at that size"
        )
    if not ((weight >= 0) & (weight <= 1)).all():
        raise InputError("mask", "has numbers outside 0 to 1", "scale it")
    return weight
