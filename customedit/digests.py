"""Digests by which pictures and masks are told apart, wherever they are named again.

Imports neither PIL nor NumPy: plans are read where there are none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


def picture_digest(picture: Image.Image) -> str:
    """The sha256 of a picture's size and RGB pixels, in hex: the same for equal pixels."""
    rgb = picture.convert("RGB")
    digest = hashlib.sha256(f"{rgb.width} x {rgb.height} RGB ".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def values_digest(values: NDArray[np.float32]) -> str:
    """The sha256 of a mask's shape and numbers, in hex. values: [height, width] float32."""
    digest = hashlib.sha256(str(values.shape).encode())
    digest.update(values.tobytes())
    return digest.hexdigest()
