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
from skimage.segmentation import random_walker

from customedit.images.outline import BETA, PULL, outline_region
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
    assert np.mean(overlaps) > 0.97 and min(overlaps) > 0.88


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


CELLS = np.s_[1:7, 1:7]
"""The region of the tests below, of 8 x 8 cells on 32 x 32 pixels; depth 2 of it is ``DEEP``."""
DEEP, AROUND = np.s_[8:24, 8:24], np.s_[4:28, 4:28]


def laplacian(colours: np.ndarray) -> np.ndarray:
    """The dense Laplacian of the pixels of ``colours`` [h, w, 3], CIELAB / 100."""
    height, width = colours.shape[:2]
    dense = np.zeros((height * width, height * width))
    number = np.arange(height * width).reshape(height, width)
    for here, there in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        squares = ((colours[here] - colours[there]) ** 2).sum(-1).ravel()
        weights = np.exp(-BETA / (10 * colours.std() * np.sqrt(3)) * squares) + 1e-10
        a, b = number[here].ravel(), number[there].ravel()
        dense[a, b] = dense[b, a] = -weights
    np.fill_diagonal(dense, -dense.sum(0))
    return dense


def prior(colours: np.ndarray, thing: np.ndarray) -> np.ndarray:
    """h_f / (h_f + h_b) of each pixel, of smoothed histograms of ``thing`` and the rest."""
    edges = [np.linspace(low, 1, n + 1) for low, n in ((0, 16), (-1, 32), (-1, 32))]
    shares = []
    for where in (thing == 1, thing == 0):
        counts = ndimage.gaussian_filter(np.histogramdd(colours[where], edges)[0], 1)
        at = [np.digitize(colours[..., k], edges[k]) - 1 for k in range(3)]
        shares.append((counts / counts.sum())[tuple(at)] + 1e-6)
    return shares[0] / (shares[0] + shares[1])


def solved(colours: np.ndarray, seeds: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """p of (L + gamma I) p = gamma pi, 1 at ``seeds`` and 0 outside of the region."""
    outside = np.ones(seeds.shape, bool)
    outside[AROUND] = False
    system = laplacian(colours) + PULL * np.eye(seeds.size)
    free = ~(seeds | outside).ravel()
    right = PULL * pi.ravel()[free] - system[np.ix_(free, seeds.ravel())].sum(1)
    p = seeds.ravel().astype(np.float64)
    p[free] = np.linalg.solve(system[np.ix_(free, free)], right)
    return p.reshape(seeds.shape)


def sharp(p: np.ndarray) -> np.ndarray:
    return (4 * (p - 0.5) + 0.5).clip(0, 1)


def lab(picture: Image.Image) -> np.ndarray:
    return rgb2lab(np.asarray(picture, np.float32) / np.float32(255)).astype(np.float64) / 100


def two_colours(thing: np.ndarray, spread: int = 8) -> Image.Image:
    """A red ``thing`` [h, w] bool before a grey wall, with grain that blurs their colours."""
    plain = np.where(thing[..., None], (170, 60, 50), (150, 140, 130))
    grain = np.random.default_rng(3).normal(0, spread, plain.shape)
    return Image.fromarray((plain + grain).clip(0, 255).astype(np.uint8))


def test_it_is_the_random_walk_of_its_equation() -> None:
    coarse = np.zeros((8, 8), np.float32)
    coarse[CELLS] = 1
    y, x = np.mgrid[0:32, 0:32]
    picture = two_colours(np.hypot(x - 13, y - 15) < 9, spread=35)
    colours = lab(picture)
    deep, known = np.zeros((32, 32), bool), np.full((32, 32), -1)
    deep[DEEP] = True
    known[AROUND] = 2
    # with the colours of what is deep and what is outside, then with those of what came out
    first = prior(colours, np.where(deep, 1, np.where(known == -1, 0, 2)))
    found = solved(colours, deep & (first >= 0.5), first) > 0.5
    second = prior(colours, found.astype(int))
    wanted = sharp(solved(colours, deep & found & (second >= 0.5), second))
    assert_allclose(outline_region(coarse, picture), wanted, atol=1e-4)
    assert ((wanted > 0.1) & (wanted < 0.9)).sum() > 3


def test_colours_that_tell_nothing_leave_the_plain_walk() -> None:
    """Thing and wall of the same colours, with a thin line between them."""
    side, cells = 96, 12
    y, x = np.mgrid[0:side, 0:side]
    distance = np.hypot(x - 48, y - 48)
    picture = np.full((side, side, 3), 150) + np.random.default_rng(1).normal(0, 2, (side, side, 1))
    picture[np.abs(distance - 24) < 2] = 40
    source, thing = Image.fromarray(picture.astype(np.uint8)), distance < 24
    coarse = widened(thing.astype(np.float32), (cells, cells))
    depth = ndimage.distance_transform_cdt(np.pad(coarse > 0, 1), "chessboard")[1:-1, 1:-1]
    labels = np.kron(np.where(depth >= 2, 1, np.where(coarse > 0, 0, 2)), np.ones((8, 8), int))
    plain = random_walker(
        lab(source), labels, BETA, mode="bf", channel_axis=-1, return_full_prob=True
    )[0]
    assert_allclose(outline_region(coarse, source), sharp(plain), atol=1e-4)


def test_what_is_seen_through_a_hole_is_not_the_thing() -> None:
    y, x = np.mgrid[0:256, 0:256]
    distance = np.hypot(x - 130, y - 120)
    ring = (distance < 84) & (distance > 30)
    coarse = widened(ring.astype(np.float32), (16, 16))
    assert coarse[7, 7]  # the hole lies in the region, and deep in it
    found = outline_region(coarse, two_colours(ring))
    assert overlap(found, ring.astype(np.float32)) > 0.97
    assert not found[distance < 26].any()


def test_a_region_that_reaches_the_border_over_a_wall() -> None:
    y, x = np.mgrid[0:256, 0:256]
    disk = np.hypot(x - 150, y - 128) < 60
    coarse = widened(disk.astype(np.float32), (16, 16))
    coarse[5:11, :8] = 1
    found = outline_region(coarse, two_colours(disk))
    assert not found[:, :80].any()
    assert overlap(found, disk.astype(np.float32)) > 0.97


@pytest.mark.parametrize("at", [(0, 128), (128, 255), (10, 240)])
def test_a_thing_that_runs_out_of_the_picture_is_kept(at: tuple[int, int]) -> None:
    y, x = np.mgrid[0:256, 0:256]
    disk = np.hypot(x - at[0], y - at[1]) < 90
    found = outline_region(widened(disk.astype(np.float32), (16, 16)), two_colours(disk))
    assert overlap(found, disk.astype(np.float32)) > 0.97
    assert found[min(at[1], 250), min(at[0], 250)] == 1


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


RED, BLUE, WHITE, SKIN, DARK = (
    (170, 60, 50), (50, 70, 170), (235, 230, 220), (225, 180, 150), (40, 40, 60),
)  # fmt: skip
WALL = (150, 140, 130)
Part = tuple[np.ndarray, tuple[int, int, int]]
"""Where a part of a thing is, [h, w] bool, and its colour."""


def box(x: int, y: int, width: int, height: int, side: int = 128) -> np.ndarray:
    where = np.zeros((side, side), bool)
    where[y : y + height, x : x + width] = True
    return where


def oval(x: int, y: int, across: int, down: int, side: int = 128) -> np.ndarray:
    rows, columns = np.mgrid[0:side, 0:side]
    return np.asarray(((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 < 1)


def found_of(
    parts: list[Part], wall: tuple[int, int, int] = WALL, strip: Part | None = None, more: int = 1
) -> tuple[list[float], float]:
    """How much of each of ``parts`` the outline covers, where later ones hide none of it, and its
    overlap with all; strip: something else in the picture; more: cells of the region for each of
    the 16 x 16 of maps, a side."""
    thing = np.any([where for where, _ in parts], axis=0)
    plain = np.full((*thing.shape, 3), wall, float)
    for where, colour in ([strip] if strip else []) + parts:
        plain[where] = colour
    plain += np.random.default_rng(3).normal(0, 8, plain.shape)
    picture = Image.fromarray(plain.clip(0, 255).astype(np.uint8))
    coarse = np.kron(widened(thing.astype(np.float32), (16, 16)), np.ones((more, more), np.float32))
    found = outline_region(coarse, picture)
    shares = []
    for k, (where, _) in enumerate(parts):
        hidden = np.any([later for later, _ in parts[k + 1 :]] or [~where], axis=0)
        shares.append(float(found[where & ~hidden].mean()))
    return shares, overlap(found, thing.astype(np.float32))


@pytest.mark.parametrize("colour", [RED, BLUE])
@pytest.mark.parametrize("width", [8, 16, 32])
def test_a_smaller_thing_beside_a_larger_one_is_as_much_of_it(
    width: int, colour: tuple[int, int, int]
) -> None:
    shares, whole = found_of([(box(10, 40, 48, 48), RED), (box(90, 60, width, width), colour)])
    assert min(shares) > 0.9 and whole > 0.95


@pytest.mark.parametrize("more", [1, 4])
@pytest.mark.parametrize("width", [12, 16, 32])
def test_a_thing_that_touches_a_larger_one_of_another_colour(width: int, more: int) -> None:
    jug = box(58, 88 - width, width, width)
    shares, whole = found_of([(box(10, 40, 48, 48), RED), (jug, BLUE)], more=more)
    assert min(shares) > 0.9 and whole > 0.95


@pytest.mark.parametrize("width", [8, 14, 24])
def test_a_thin_part_of_another_colour(width: int) -> None:
    """A mushroom: a stem below its cap."""
    stem = box(64 - width // 2, 60, width, 50)
    shares, whole = found_of([(stem, WHITE), (oval(64, 50, 40, 24), RED)])
    assert min(shares) > 0.9 and whole > 0.95


@pytest.mark.parametrize("thin", [False, True])
def test_a_thing_of_three_colours(thin: bool) -> None:
    """A person: head, shirt and trousers."""
    shirt, legs = (24, 20) if thin else (36, 28)
    shares, whole = found_of([
        (oval(64, 22, 8 if thin else 10, 12), SKIN),
        (box(64 - shirt // 2, 34, shirt, 36), BLUE),
        (box(64 - legs // 2, 70, legs, 46), DARK),
    ])  # fmt: skip
    assert min(shares) > 0.9 and whole > 0.95


@pytest.mark.parametrize("width", [8, 20, 30])
def test_a_part_is_found_though_its_colour_is_elsewhere_too(width: int) -> None:
    """A door or a cupboard in the colour of the stem, far from it."""
    stem, cap = (box(57, 60, 14, 50), WHITE), (oval(64, 50, 40, 24), RED)
    shares, whole = found_of([stem, cap], strip=(box(128 - width, 0, width, 128), WHITE))
    assert min(shares) > 0.9 and whole > 0.95


def test_a_thing_in_the_wall_s_own_colour_is_not_left_out() -> None:
    """It has no outline: its piece of the region stays as it is."""
    shares, _ = found_of([(box(10, 50, 40, 40), RED), (box(80, 60, 30, 30), WALL)])
    assert min(shares) > 0.9


@pytest.mark.parametrize("k", [0, 6, 7, 19, 20])
def test_both_of_two_rendered_things_are_found(k: int) -> None:
    """A source of the samples, and another at half its size beside it."""
    sources = samples.sources()
    picture, where = Image.new("RGB", (192, 128)), np.zeros((128, 192), np.float32)
    for source, side, left in ((sources[k], 128, 0), (sources[(k * 7 + 5) % 24], 64, 128)):
        shown = Image.open(source.image).convert("RGB").resize((side, side), Image.Resampling.BOX)
        mask = Image.open(source.mask).resize((side, side), Image.Resampling.BOX)
        picture.paste(shown.crop((0, 0, side, 1)).resize((side, 128)), (left, 0))  # wall goes on
        picture.paste(shown, (left, 128 - side))
        where[128 - side :, left : left + side] = np.asarray(mask, np.float32) / 255
    found = outline_region(widened(where, (16, 24)), picture)
    assert overlap(found, where) > 0.85
    for half in (np.s_[:, :128], np.s_[:, 128:]):
        assert found[half][where[half] > 0.9].mean() > 0.85
