"""What an edit changes of its source: refined edges, and not one byte beyond the feather."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from customedit import images
from customedit.errors import InputError
from customedit.images.regions import (
    EPSILON,
    _coefficients,
    paste_region,
    refine_region,
)

from .conftest import noise

SIZES = [
    (64, 64), (128, 128), (200, 200), (333, 333), (512, 512), (16, 16),
    (640, 480), (480, 640), (641, 479), (479, 641), (300, 200), (200, 300),
    (1920, 108), (108, 1920), (1001, 17), (17, 1001), (97, 89), (512, 320),
    (320, 512), (255, 257), (257, 255), (800, 600), (1024, 32), (33, 1023),
]  # fmt: skip
"""24 sizes and aspects: square, wide, tall, narrow, odd and prime."""


def disk(size: tuple[int, int], at: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    inside = (x - at[0] * size[0]) ** 2 + (y - at[1] * size[1]) ** 2 <= radius**2
    return inside.astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_beyond_the_feather_no_pixel_changes(
    size: tuple[int, int], suffix: str, tmp_path: Path
) -> None:
    assert len(set(SIZES)) == 24
    source, feather = noise(size), 8.0
    region = disk(size, (0.4, 0.6), min(size) / 3)
    edited = Image.new("RGB", (512, 320), (1, 2, 3))
    images.write(paste_region(source, edited, region, feather=feather), tmp_path / f"out{suffix}")
    out = np.asarray(images.read(tmp_path / f"out{suffix}").image)
    before = np.asarray(source)
    distance = ndimage.distance_transform_edt(region == 0)
    assert (out[distance > feather] == before[distance > feather]).all()
    assert (out[region == 1] == (1, 2, 3)).all()
    ring = (distance > 0) & (distance < feather)
    assert (out[ring] != before[ring]).any()


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.4, 1.0, 4.0, 7.5]))
def test_soft_masks_keep_what_is_far_from_them(seed: int, feather: float) -> None:
    rng = np.random.default_rng(seed)
    source = noise((60, 44), seed)
    region = ndimage.gaussian_filter((rng.random((44, 60)) > 0.97).astype(np.float32), 1.5)
    region = np.where(region > 0.02, region / max(region.max(), 1e-9), 0).astype(np.float32)
    out = np.asarray(paste_region(source, noise((30, 22), 1), region, feather=feather))
    far = ndimage.distance_transform_edt(region == 0) > feather if (region > 0).any() else True
    assert (out == np.asarray(source))[far].all()


def test_the_feather_falls_linearly() -> None:
    region = np.zeros((9, 40), np.float32)
    region[:, :10] = 1
    black, white = Image.new("RGB", (40, 9)), Image.new("RGB", (40, 9), "white")
    row = np.asarray(paste_region(black, white, region, feather=10))[4, :, 0]
    assert (row[:10] == 255).all() and (row[19:] == 0).all()
    assert np.abs(row[10:20] - (255 * (1 - np.arange(1, 11) / 10))).max() <= 1


def test_pasting_nothing_and_everything() -> None:
    source, edited = noise((40, 30)), noise((40, 30), 1)
    nothing = paste_region(source, edited, np.zeros((30, 40), np.float32), feather=8)
    assert nothing.tobytes() == source.tobytes()
    everything = paste_region(source, edited, np.ones((30, 40), np.float32), feather=8)
    assert everything.tobytes() == edited.tobytes()


@pytest.mark.parametrize(
    ("region", "says"),
    [
        (np.ones((1, 2, 2)), "has shape"),
        (np.ones((2, 2)) * 2, "has numbers outside 0 to 1"),
        (np.full((2, 2), np.nan), "has numbers outside 0 to 1"),
        (np.ones((0, 3)), "has shape"),
        (np.ones((30, 41)), r"is 41 x 30, the source 40 x 30"),
    ],
)
def test_a_region_that_does_not_fit_is_refused(region: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=f"mask: {says}"):
        paste_region(noise((40, 30)), noise((40, 30)), region.astype(np.float32), feather=8)


@pytest.mark.parametrize("feather", [-1, float("nan"), float("inf")])
def test_a_feather_that_is_none_is_refused(feather: float) -> None:
    with pytest.raises(InputError, match="feather"):
        paste_region(noise((4, 4)), noise((4, 4)), np.ones((4, 4), np.float32), feather=feather)


def scene(size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """A noisy disk before another colour, and where it is."""
    where = disk(size, (0.45, 0.55), 0.27 * min(size))
    colours = np.where(where[..., None] > 0, (200, 80, 60), (90, 120, 160))
    levels = colours + np.random.default_rng(0).normal(0, 10, colours.shape)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8)), where


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    return float(((a > 0.5) & (b > 0.5)).sum() / ((a > 0.5) | (b > 0.5)).sum())


@pytest.mark.parametrize(
    ("size", "cells"), [((256, 256), (16, 16)), ((384, 256), (32, 48)), ((1300, 900), (45, 65))]
)
def test_coarse_edges_move_to_those_of_the_colours(
    size: tuple[int, int], cells: tuple[int, int]
) -> None:
    source, where = scene(size)
    shares = Image.fromarray(where).resize(cells[::-1], Image.Resampling.BOX)
    coarse = (np.asarray(shares) > 0.5).astype(np.float32)
    blocks = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST))
    found = refine_region(coarse, source)
    assert found.shape == where.shape and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1
    assert overlap(blocks, where) < 0.98
    assert overlap(found, where) > 0.99


def test_a_picture_without_edges_keeps_the_region_in_place() -> None:
    coarse = np.zeros((12, 16), np.float32)
    coarse[3:9, 4:12] = 1
    found = refine_region(coarse, Image.new("RGB", (320, 240), (90, 90, 90)))
    assert found[120, 160] == 1 and found[10, 10] == 0
    assert abs(found.mean() - coarse.mean()) < 0.02


@given(st.integers(0, 10**6))
def test_refinement_reaches_one_cell_at_most(seed: int) -> None:
    rng = np.random.default_rng(seed)
    coarse = (ndimage.gaussian_filter(rng.random((8, 8)), 1.5) > 0.5).astype(np.float32)
    found = refine_region(coarse, noise((80, 80), seed))
    if coarse.min() == coarse.max():
        assert (found == coarse[0, 0]).all()
        return
    outside = np.kron(ndimage.maximum_filter(coarse, 3) == 0, np.ones((10, 10))) > 0
    inside = np.kron(ndimage.minimum_filter(coarse, 3) == 1, np.ones((10, 10))) > 0
    assert not found[outside].any() and (found[inside] == 1).all()


def test_coefficients_are_the_papers() -> None:
    """Equations 13 to 16 written out for each window."""
    rng = np.random.default_rng(0)
    guide = rng.random((12, 11, 3)).astype(np.float32)
    region = rng.random((12, 11)).astype(np.float32)
    radius = 2

    def windows(plane: np.ndarray) -> np.ndarray:
        padded = np.pad(plane, ((radius,) * 2, (radius,) * 2, *[(0, 0)] * (plane.ndim - 2)), "edge")
        side = 2 * radius + 1
        return np.stack(
            [padded[y : y + 12, x : x + 11] for y in range(side) for x in range(side)]
        ).astype(np.float64)

    colours, values = windows(guide), windows(region)  # [25, 12, 11, ...]
    slope, offset = np.empty((12, 11, 3)), np.empty((12, 11))
    for y in range(12):
        for x in range(11):
            i, p = colours[:, y, x], values[:, y, x]
            sigma = np.cov(i.T, bias=True) + EPSILON * np.eye(3)
            slope[y, x] = np.linalg.solve(sigma, (i * p[:, None]).mean(0) - i.mean(0) * p.mean())
            offset[y, x] = p.mean() - slope[y, x] @ i.mean(0)
    got = _coefficients(guide, region, radius, EPSILON)
    assert np.allclose(got[0], windows(slope).mean(0), atol=1e-3)
    assert np.allclose(got[1], windows(offset).mean(0), atol=1e-3)
