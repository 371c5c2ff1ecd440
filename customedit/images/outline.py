"""The outline of the thing that a coarse region lies around, from the picture's colours.

A region that is read from attention maps is a cell or two wider than its thing. What is well inside
it is the thing, what is beyond it is not; between them decides which of the two a random walk that
rarely crosses edges of colour reaches first (Grady, "Random Walks for Image Segmentation", TPAMI
2006, with weights exp(-beta |difference|^2) of neighbouring pixels).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image
from scipy import ndimage

from customedit.images.regions import Values, check_region, refine_region, resized, shrunk

SIDE: Final = 256
"""Pixels of the longer side of the picture on which the walk goes, at most."""

INSIDE: Final = 3 / 16
"""Share of the longer side from the region's edge at which the thing surely is; less in a region
that is nowhere so deep. Maps have about 16 cells a side, and a region is one wider than they."""

BETA: Final = 1000.0
"""How much an edge holds the walk up; colours are CIELAB, divided by 100."""

LEAST: Final = 0.2
"""An outline of less than this share of its region is not believed."""


def outline_region(coarse: Values, source: Image.Image) -> Values:
    """A coarse region at the source's size, drawn in to the outline of the thing inside it.

    coarse: [h, w] in [0, 1], such as the cells of a latent; source: the picture, of any size. Gives
    [height, width] float32 in [0, 1], the probability of the thing, which is 0 beyond the region. A
    region that has no inside or no outside, and one in which no outline is found, is refined as
    ``refine_region`` does.

    Depth and beta were chosen on the 24 sources of ``mini.samples``; tests/images/test_outline.py
    measures the overlap with their true masks.

    Raises:
        InputError: unless the region has two axes and lies in [0, 1].
    """
    from skimage.color import rgb2lab  # a second of imports
    from skimage.segmentation import random_walker

    check_region(coarse)
    region = coarse > 0.5
    if not region.any() or region.all():
        return refine_region(coarse, source)
    source = source.convert("RGB")
    small = shrunk(source, SIDE)
    size = small.size

    def at_size(cells: np.ndarray) -> np.ndarray:
        return resized(cells, size, Image.Resampling.NEAREST) > 0

    around = np.pad(region, 1, mode="edge")  # a thing may go on beyond the picture
    depth = ndimage.distance_transform_cdt(around, "chessboard")[1:-1, 1:-1]
    labels = np.zeros(size[::-1], np.int32)
    inside = max(1, round(INSIDE * max(region.shape)))
    labels[at_size(depth >= min(inside, depth.max()))] = 1
    labels[at_size(~region)] = 2
    thing = (labels == 1).astype(np.float32)
    if (labels == 0).any():
        colours = rgb2lab(np.asarray(small, np.float32) / np.float32(255)) / 100
        if not colours.std():  # black all over; the weights are in units of the deviation
            return refine_region(coarse, source)
        # solved directly: conjugate gradients do not converge where neighbours differ much
        thing = random_walker(
            colours, labels, BETA, mode="bf", channel_axis=-1, return_full_prob=True
        )[0]
        thing = thing.astype(np.float32).clip(0, 1)
    if (thing > 0.5).sum() < LEAST * at_size(region).sum():
        return refine_region(coarse, source)
    return thing if size == source.size else refine_region(thing, source)
