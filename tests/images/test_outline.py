"""Outlines of things inside coarse regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab

from customedit.images.outline import BETA, outline_region
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


@pytest.mark.filterwarnings("error")
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


def test_it_is_the_random_walk_of_its_equation() -> None:
    side = 32
    coarse = np.zeros((8, 8), np.float32)
    coarse[1:7, 1:7] = 1
    picture = noise((side, side), 5)
    colours = rgb2lab(np.asarray(picture, np.float32) / np.float32(255)).astype(np.float64) / 100
    inside, outside = np.zeros((side, side), bool), np.ones((side, side), bool)
    inside[8:24, 8:24], outside[4:28, 4:28] = True, False
    laplacian = np.zeros((side * side, side * side))
    number = np.arange(side * side).reshape(side, side)
    for here, there in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        squares = ((colours[here] - colours[there]) ** 2).sum(-1).ravel()
        weights = np.exp(-BETA / (10 * colours.std() * np.sqrt(3)) * squares) + 1e-10
        a, b = number[here].ravel(), number[there].ravel()
        laplacian[a, b] = laplacian[b, a] = -weights
    np.fill_diagonal(laplacian, -laplacian.sum(0))
    free = ~(inside | outside).ravel()
    wanted = inside.astype(np.float64).ravel()
    wanted[free] = np.linalg.solve(
        laplacian[np.ix_(free, free)], -laplacian[np.ix_(free, inside.ravel())].sum(1)
    )
    assert_allclose(outline_region(coarse, picture).ravel(), wanted, atol=1e-4)


def test_a_black_picture_keeps_its_region() -> None:
    coarse = np.zeros((8, 8), np.float32)
    coarse[2:6, 2:6] = 1
    black = Image.new("RGB", (64, 64))
    assert (outline_region(coarse, black) == refine_region(coarse, black)).all()


def test_a_picture_without_edges_keeps_much_of_the_region() -> None:
    coarse = np.zeros((12, 16), np.float32)
    coarse[3:9, 4:12] = 1
    found = outline_region(coarse, Image.new("RGB", (320, 240), (90, 90, 90)))
    assert found[120, 160] > 0.5 and found[10, 10] == 0
