"""Outlines of things inside coarse regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from customedit.images.outline import outline_region
from customedit.images.regions import refine_region
from customedit.mini import samples

from .conftest import noise
from .test_regions import overlap, scene


def widened(where: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """A region as attention maps give it: the cells of the thing, and one more around."""
    shares = np.asarray(Image.fromarray(where).resize(cells[::-1], Image.Resampling.BOX))
    return ndimage.maximum_filter((shares > 0.3).astype(np.float32), 3)


@pytest.mark.parametrize(
    ("size", "cells"), [((256, 256), (16, 16)), ((384, 256), (16, 24)), ((1300, 900), (45, 65))]
)
def test_it_ends_where_the_thing_does(size: tuple[int, int], cells: tuple[int, int]) -> None:
    source, where = scene(size)
    coarse = widened(where, cells)
    found = outline_region(coarse, source)
    assert found.shape == where.shape and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1
    assert overlap(found, where) > 0.97 > overlap(refine_region(coarse, source), where)


def test_things_of_the_bundled_pictures() -> None:
    overlaps = []
    for source in samples.sources():
        picture = Image.open(source.image).convert("RGB")
        where = np.asarray(Image.open(source.mask), np.float32) / 255
        overlaps.append(overlap(outline_region(widened(where, (16, 16)), picture), where))
    assert np.mean(overlaps) > 0.85 and min(overlaps) > 0.6


@given(st.integers(0, 10**6))
def test_it_stays_inside_its_region(seed: int) -> None:
    rng = np.random.default_rng(seed)
    coarse = (ndimage.gaussian_filter(rng.random((8, 8)), 1.5) > 0.5).astype(np.float32)
    picture = noise((80, 80), seed)
    found = outline_region(coarse, picture)
    if coarse.min() == coarse.max():
        assert (found == coarse[0, 0]).all()
        return
    outside = np.kron(ndimage.maximum_filter(coarse, 3) == 0, np.ones((10, 10))) > 0
    assert not found[outside].any()
    assert (outline_region(coarse, picture) == found).all()  # the same each time


def test_a_picture_without_edges_keeps_much_of_the_region() -> None:
    coarse = np.zeros((12, 16), np.float32)
    coarse[3:9, 4:12] = 1
    found = outline_region(coarse, Image.new("RGB", (320, 240), (90, 90, 90)))
    assert found[120, 160] > 0.5 and found[10, 10] == 0
