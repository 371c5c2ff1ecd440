"""Where an edit shows in the source: coarse regions refined, and pictures pasted, at full size.

The refinement is the guided filter of He, Sun and Tang (TPAMI 2013, equations 5 to 8 and 13 to 16
for a guide of three colours), computed at a reduced size as in their "Fast Guided Filter"
(arXiv 1505.00996): the coefficients are found on a small picture and applied to the full one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customedit.errors import InputError

Values = NDArray[np.float32]

GUIDE_SIDE: Final = 1024
"""Pixels of the longer side of the picture that the coefficients are found on, at most."""
EPSILON: Final = 1e-3
"""Of the guided filter, for colours in [0, 1]: edges fainter than its root are smoothed."""
_CONTRAST: Final = 2.0
_BAND_ROWS: Final = 256


def refine_region(coarse: Values, source: Image.Image, *, epsilon: float = EPSILON) -> Values:
    """A coarse region at the source's size, its edges moved to those of the source's colours.

    coarse: [h, w] in [0, 1], such as the cells of a latent; source: the picture, of any size. Gives
    [height, width] float32 in [0, 1]. Edges move by about one cell; where the cells within one of a
    place are all 0 or all 1, so is the result.

    Raises:
        InputError: unless the region has two axes and lies in [0, 1].
    """
    from scipy import ndimage  # here and below late: a third of a second before the first step

    check_region(coarse)
    if coarse.min() == coarse.max():
        return np.full((source.height, source.width), coarse.flat[0], np.float32)
    source = source.convert("RGB")
    small = shrunk(source, GUIDE_SIDE)
    guide = np.asarray(small, np.float32) / np.float32(255)  # [h, w, 3]
    cell = max(small.height / coarse.shape[0], small.width / coarse.shape[1])
    slope, offset = _coefficients(guide, resized(coarse, small.size), math.ceil(cell), epsilon)
    lower = resized(ndimage.minimum_filter(coarse, 3), small.size, Image.Resampling.NEAREST)
    upper = resized(ndimage.maximum_filter(coarse, 3), small.size, Image.Resampling.NEAREST)
    out = np.empty((source.height, source.width), np.float32)
    planes = [slope[..., 0], slope[..., 1], slope[..., 2], offset]
    for rows in _bands(source.height):
        a0, a1, a2, b = (_band(plane, source.size, rows) for plane in planes)
        colours = np.asarray(source.crop((0, rows.start, source.width, rows.stop)), np.float32)
        colours /= 255
        q = a0 * colours[..., 0] + a1 * colours[..., 1] + a2 * colours[..., 2] + b
        q = (q - 0.5) * _CONTRAST + 0.5  # the filter averages windows, which flattens its edges
        low = _band(lower, source.size, rows, Image.Resampling.NEAREST)
        high = _band(upper, source.size, rows, Image.Resampling.NEAREST)
        out[rows] = q.clip(low, high)
    return out


def check_region(region: Values) -> None:
    """Raises InputError unless ``region`` has two axes and lies in [0, 1]."""
    if region.ndim != 2 or not region.size:
        raise InputError("mask", f"has shape {region.shape}", "give height x width numbers")
    if not bool(((region >= 0) & (region <= 1)).all()):
        raise InputError("mask", "has numbers outside 0 to 1", "scale it")


def _coefficients(
    guide: Values, region: Values, radius: int, epsilon: float
) -> tuple[Values, Values]:
    """(a [h, w, 3], b [h, w]) of q = a I + b, averaged over windows (equations 13 to 16)."""
    from scipy import ndimage

    def mean(plane: Values) -> Values:
        return ndimage.uniform_filter(plane, 2 * radius + 1, mode="nearest")

    means = [mean(guide[..., k]) for k in range(3)]
    region_mean = mean(region)
    height, width = region.shape
    sigma = np.empty((height, width, 3, 3), np.float32)
    covariance = np.empty((height, width, 3), np.float32)
    for i in range(3):
        covariance[..., i] = mean(guide[..., i] * region) - means[i] * region_mean
        for j in range(i, 3):
            sigma[..., i, j] = mean(guide[..., i] * guide[..., j]) - means[i] * means[j]
            sigma[..., j, i] = sigma[..., i, j]
        sigma[..., i, i] += epsilon
    slope = np.linalg.solve(sigma, covariance[..., None])[..., 0]
    offset = region_mean - sum(slope[..., k] * means[k] for k in range(3))
    return np.stack([mean(slope[..., k]) for k in range(3)], -1), mean(offset)


def shrunk(picture: Image.Image, side: int) -> Image.Image:
    """``picture`` with a longer side of at most ``side``, each pixel the mean of what it covers."""
    share = min(1.0, side / max(picture.size))
    size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    return picture.resize(size, Image.Resampling.BOX)


def resized(
    plane: np.ndarray, size: tuple[int, int], how: Image.Resampling = Image.Resampling.BILINEAR
) -> Values:
    """``plane`` [h, w], numbers or bool, as float32 at ``size`` (width, height)."""
    picture = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(picture.resize(size, how), np.float32)


def _bands(height: int) -> Iterator[slice]:
    for top in range(0, height, _BAND_ROWS):
        yield slice(top, min(height, top + _BAND_ROWS))


def _band(
    plane: Values,
    size: tuple[int, int],
    rows: slice,
    how: Image.Resampling = Image.Resampling.BILINEAR,
) -> Values:
    """The ``rows`` of ``plane`` resized to ``size``, without the rest."""
    picture = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    scale = plane.shape[0] / size[1]
    box = (0.0, rows.start * scale, float(plane.shape[1]), rows.stop * scale)
    return np.asarray(picture.resize((size[0], rows.stop - rows.start), how, box), np.float32)


def paste_region(
    source: Image.Image, edited: Image.Image, region: Values, *, feather: float
) -> Image.Image:
    """The edit inside the region, the source's own pixels outside: RGB, at the source's size.

    region: [height, width] in [0, 1] at the source's size, 1 for the edit. feather: how many source
    pixels beyond the region (where it is above a half) the edit fades out linearly. Every pixel
    that is farther than ``feather`` from all places where the region is above 0 is the source's,
    byte by byte. edited: at any size; it is resized to the source's (Lanczos).

    Raises:
        InputError: for a region of another size or outside [0, 1], or a feather below 0.
    """
    check_region(region)
    if region.shape != (source.height, source.width):
        raise InputError(
            "mask",
            f"is {region.shape[1]} x {region.shape[0]}, the source {source.width} x "
            f"{source.height}",
            "give it at the source's size",
        )
    if not 0 <= feather < math.inf:
        raise InputError("feather", f"is {feather}", "give 0 pixels or more")
    out = source.convert("RGB")
    # 8-bit weights: at 0 and 255 Pillow copies, so that bytes are kept and not just nearly so.
    weight = Image.fromarray(np.rint(_feathered(region, feather) * 255).astype(np.uint8))
    if edited.size != out.size:
        edited = edited.resize(out.size, Image.Resampling.LANCZOS)
    return Image.composite(edited.convert("RGB"), out, weight)


def _feathered(region: Values, feather: float) -> Values:
    """``region`` with a linear fall from 1 to 0 over ``feather`` pixels beyond its upper half."""
    from scipy import ndimage

    inside = region > 0.5
    if not feather or not inside.any() or inside.all():
        return region
    columns, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
    reach = math.ceil(feather)
    window = (
        slice(max(0, rows[0] - reach), rows[-1] + reach + 1),
        slice(max(0, columns[0] - reach), columns[-1] + reach + 1),
    )
    distance = ndimage.distance_transform_edt(~inside[window])
    out = region.astype(np.float32, copy=True)
    np.maximum(out[window], (1 - distance / feather).clip(0).astype(np.float32), out=out[window])
    return out
