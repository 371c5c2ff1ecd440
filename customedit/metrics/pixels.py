"""Pictures pixel by pixel: PSNR and SSIM, and the masks that say what counts and is cut out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

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


K1, K2, SIGMA = 0.01, 0.03, 1.5
"""Constants of SSIM, and the width in pixels of its window, from Wang et al. 2004."""


def psnr(a: Image.Image, b: Image.Image, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio of two RGB pictures of equal size in dB; infinite if equal.

    mask: [h, w] in [0, 1], how much each pixel counts; all alike without it.

    Raises:
        InputError: for pictures of different size, or a mask of another size or of zeros.
    """
    first, second = _pair(a, b)
    error = _averaged(((first - second) ** 2).mean(2), mask)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(a: Image.Image, b: Image.Image, mask: Mask | None = None) -> float:
    """Structural similarity of two RGB pictures of equal size, in [-1, 1], 1 if equal.

    Wang et al. 2004, eq. 13, per channel with their Gaussian window (11 x 11, sigma 1.5),
    averaged over channels and over pixels. mask: [h, w] in [0, 1], how much each pixel counts;
    without it all pixels whose window lies inside the picture.

    Raises:
        InputError: for pictures of different size or with a side below 11 pixels, or a mask of
            another size or of zeros.
    """
    first, second = _pair(a, b)
    reach = 5  # of the 11 x 11 window
    if min(first.shape[:2]) <= 2 * reach:
        raise InputError("images", f"are {a.width} x {a.height}", "give 11 x 11 pixels or more")
    scores = np.mean([_ssim_map(first[..., c], second[..., c]) for c in range(3)], axis=0)
    if mask is None:
        return float(scores[reach:-reach, reach:-reach].mean())
    return _averaged(scores, mask)


def _ssim_map(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eq. 13 at each pixel of one channel in [0, 255]."""

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(values, SIGMA, truncate=3.5)  # radius 5

    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2
    covariance = mean(x * y) - mu_x * mu_y
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    return ((2 * mu_x * mu_y + c1) * (2 * covariance + c2)) / (
        (mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2)
    )


def _pair(a: Image.Image, b: Image.Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two pictures as [h, w, 3] in [0, 255]."""
    if a.size != b.size:
        raise InputError(
            "images", f"are {a.width} x {a.height} and {b.width} x {b.height}", "resize one"
        )
    return np.asarray(a.convert("RGB"), np.float64), np.asarray(b.convert("RGB"), np.float64)


def _averaged(values: NDArray[np.float64], mask: Mask | None) -> float:
    """The mean of ``values`` [h, w], each weighed by the mask."""
    if mask is None:
        return float(values.mean())
    weight = weights(mask, values.shape)
    if not weight.any():
        raise InputError("mask", "is all zeros", "mark the pixels to count with 1")
    return float((values * weight).sum() / weight.sum())
