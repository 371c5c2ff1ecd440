"""How near two pictures are pixel by pixel: PSNR and SSIM."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from customedit.errors import InputError
from customedit.metrics.masks import Mask, weights

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
