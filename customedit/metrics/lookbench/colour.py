"""CIE Lab and the colour difference CIEDE2000, in float64.

Written from the equations of CIE 15:2004 and of Sharma, Wu and Dalal, "The CIEDE2000
color-difference formula" (Color Research and Application 30, 2005). scikit-image computes the same
and is what the tests compare with; as a dependency of the library it would bring five packages for
these two functions.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
Array: TypeAlias = NDArray[np.float64]

SRGB_TO_XYZ: Final = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
"""Linear sRGB to CIE XYZ (ITU-R BT.709 primaries, D65)."""

WHITE: Final = np.array([0.95047, 1.0, 1.08883])
"""XYZ of D65, 2 degree observer."""


def lab(image: NDArray[np.uint8] | NDArray[np.floating[Any]]) -> Array:
    """CIE Lab of sRGB pixels.

    image: [..., 3], uint8 in [0, 255] or floats in [0, 1]. Returns float64 [..., 3]: L in [0, 100],
    a and b about [-128, 128].
    """
    rgb = np.asarray(image, np.float64)
    if image.dtype == np.uint8:
        rgb = rgb / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = linear @ SRGB_TO_XYZ.T / WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(first: Array, second: Array) -> Array:
    """CIEDE2000 of two Lab arrays of one shape [..., 3], with kL = kC = kH = 1: [...], 0 or more.

    About 1 is the least difference that a person sees; opposite colours differ by about 100.
    Equation numbers are those of Sharma et al.
    """
    l1, a1, b1 = np.moveaxis(np.asarray(first, np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(second, np.float64), -1, 0)
    mean_c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7  # (2), (3)
    stretch = 1 + 0.5 * (1 - np.sqrt(mean_c7 / (mean_c7 + 25.0**7)))  # (4)
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)  # (6)
    h1 = np.degrees(np.arctan2(b1, stretch * a1)) % 360  # (7)
    h2 = np.degrees(np.arctan2(b2, stretch * a2)) % 360
    grey = c1 * c2 == 0
    turn = (h2 - h1 + 180) % 360 - 180  # (10), within [-180, 180)
    turn = np.where(grey, 0, np.where((turn == -180) & (h2 > h1), 180, turn))
    dl, dc = l2 - l1, c2 - c1  # (8), (9)
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)  # (11)
    light, c = (l1 + l2) / 2, (c1 + c2) / 2  # (12), (13)
    total = h1 + h2
    across = np.abs(h1 - h2) > 180
    h = np.where(across, np.where(total < 360, total + 360, total - 360) / 2, total / 2)  # (14)
    h = np.where(grey, total, h)
    t = (
        1
        - 0.17 * np.cos(np.radians(h - 30))
        + 0.24 * np.cos(np.radians(2 * h))
        + 0.32 * np.cos(np.radians(3 * h + 6))
        - 0.20 * np.cos(np.radians(4 * h - 63))
    )  # (15)
    rotation = 30 * np.exp(-(((h - 275) / 25) ** 2))  # (16)
    rc = 2 * np.sqrt(c**7 / (c**7 + 25.0**7))  # (17)
    sl = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)  # (18)
    sc, sh = 1 + 0.045 * c, 1 + 0.015 * c * t  # (19), (20)
    rt = -np.sin(np.radians(2 * rotation)) * rc  # (21)
    squared = (dl / sl) ** 2 + (dc / sc) ** 2 + (dh / sh) ** 2 + rt * (dc / sc) * (dh / sh)  # (22)
    return np.sqrt(np.maximum(squared, 0))
