"""Crop augmentation against the numbers of Custom Diffusion (arXiv 2212.04488)."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from customedit.concepts import crops

SIDE, FACTOR = 64, 8


def gradient() -> Image.Image:
    """Dark at the left, light at the right: a flip shows."""
    ramp = np.linspace(0, 255, SIDE, dtype=np.uint8)
    return Image.fromarray(np.repeat(np.tile(ramp, (SIDE, 1))[..., None], 3, axis=2))


class Draws(np.random.Generator):
    """A generator whose draws of ``random`` and of the share are given; the rest are real."""

    def __init__(self, randoms: list[float], share: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.randoms, self.share = randoms, share
        self.ranges: list[tuple[float, float]] = []

    def random(self, *_: object, **__: object) -> float:  # type: ignore[override]
        return self.randoms.pop(0)

    def uniform(self, low: float = 0.0, high: float = 1.0, *_: object) -> float:  # type: ignore[override]
        self.ranges.append((low, high))
        return self.share


KEEP, FLIP = 0.5, 0.499


def test_two_in_three_framings_are_small() -> None:
    rng = np.random.default_rng(0)
    n = 3000
    prefixes = [crops.random_crop(gradient(), SIDE, FACTOR, rng).prefix for _ in range(n)]
    large = sum(p in ("zoomed in", "close up") for p in prefixes) / n
    # of the two thirds in [S/3, S], those below 0.6 S are called far away or very small
    small = sum(p in ("far away", "very small") for p in prefixes) / n
    assert large == pytest.approx(1 / 3, abs=0.03)
    assert small == pytest.approx(2 / 3 * (0.6 - 1 / 3) / (1 - 1 / 3), abs=0.03)
    assert {"", "zoomed in", "close up", "far away", "very small"} == set(prefixes)


@pytest.mark.parametrize(
    ("chance", "drawn_from"), [(0.666, (1 / 3, 1)), (0.667, (1.2, 1.4)), (0.0, (1 / 3, 1))]
)
def test_the_odds_choose_between_the_two_ranges(
    chance: float, drawn_from: tuple[float, float]
) -> None:
    rng = Draws([chance, KEEP], 1.0)
    crops.random_crop(gradient(), SIDE, FACTOR, rng)
    assert rng.ranges == [drawn_from]


@pytest.mark.parametrize(
    ("share", "said"), [(0.59, True), (0.6, False), (0.61, False), (1.0, False)]
)
def test_a_framing_is_called_small_below_six_tenths(share: float, said: bool) -> None:
    crop = crops.random_crop(gradient(), SIDE, FACTOR, Draws([0.0, KEEP], share))
    assert (crop.prefix in ("far away", "very small")) is said


def test_half_of_the_framings_are_mirrored() -> None:
    def leftmost_is_dark(chance: float) -> bool:
        crop = crops.random_crop(gradient(), SIDE, FACTOR, Draws([0.0, chance], 1.0))
        return bool(crop.pixels[0, 0, 0] < crop.pixels[0, 0, -1])

    assert leftmost_is_dark(KEEP)
    assert not leftmost_is_dark(FLIP)


def test_the_loss_counts_inside_the_pasted_box_less_one_cell() -> None:
    white = Image.new("RGB", (SIDE, SIDE), "white")
    crop = crops.random_crop(white, SIDE, FACTOR, Draws([0.0, KEEP], 0.7))
    cells = (crop.pixels[0] == 1).reshape(8, FACTOR, 8, FACTOR)
    inside = cells.all((1, 3))  # cells that show nothing but the picture
    assert crop.mask.any()
    assert (crop.mask <= inside).all()
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert crop.mask.sum() == (len(rows) - 2) * (len(columns) - 2)


def test_all_counts_of_a_framing_without_a_canvas() -> None:
    for share in (1.0, 1.3):
        chance = 0.0 if share == 1.0 else 0.9
        crop = crops.random_crop(gradient(), SIDE, FACTOR, Draws([chance, KEEP], share))
        assert (crop.mask == 1).all()
        assert crop.pixels.shape == (3, SIDE, SIDE)
