"""LookBench's measures: colours against scikit-image, and what the distance of patches can see."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import deltaE_ciede2000, rgb2lab

from customedit import mini
from customedit.diffusion.base import Base
from customedit.errors import InputError
from customedit.metrics.lookbench import dataset, patches
from customedit.metrics.lookbench.colour import Pixels, ciede2000, lab
from customedit.metrics.lookbench.dataset import RenderedBench, levels
from customedit.metrics.lookbench.looks import PaintedLook
from customedit.metrics.lookbench.measures import (
    MOST_DB,
    SIDE,
    Answer,
    colour_difference,
    local_means,
    psnr,
    reduced,
    shapes,
)
from customedit.metrics.lookbench.patches import patch_distance, sliced_wasserstein
from customedit.metrics.lookbench.regions import RING, Regions
from customedit.metrics.lookbench.sources import PaintedSource, wearing
from customedit.mini import judge, patterns
from customedit.mini.patterns import Array
from customedit.mini.scenes import render

pixel = arrays(np.uint8, (4, 3), elements=st.integers(0, 255))
lab_colour = st.tuples(st.floats(0, 100), st.floats(-128, 128), st.floats(-128, 128))


@given(pixel)
def test_lab_is_scikit_images(colours: Pixels) -> None:
    np.testing.assert_allclose(lab(colours), rgb2lab(colours), atol=1e-6)


@given(lab_colour, lab_colour)
def test_ciede2000_is_scikit_images(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    first, second = np.array(a), np.array(b)
    own = float(ciede2000(first, second))
    assert own == pytest.approx(float(deltaE_ciede2000(first, second)), abs=1e-6)
    assert own == pytest.approx(float(ciede2000(second, first)), abs=1e-6)
    assert ciede2000(first, first) == 0


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [  # Sharma, Wu and Dalal 2005, table 1: pairs 1, 7, 9 (hues half a turn apart), 17 and 34
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000_is_its_authors_table(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    assert float(ciede2000(np.array(first), np.array(second))) == pytest.approx(expected, abs=5e-5)


def test_regions_are_apart_and_leave_out_only_the_edge() -> None:
    coverage = render(bench().sources[3].scene).alpha
    found = Regions.of(coverage)
    together = found.inside.astype(int) + found.ring + found.beyond
    edge = (coverage > 0) & (coverage < 0.5)
    np.testing.assert_array_equal(together, (~edge).astype(int))
    assert found.ring.any() and found.beyond.any()
    # a ring pixel has one of the thing within RING, a pixel beyond has none
    ys, xs = np.nonzero(found.inside)
    for mask, near in ((found.ring, True), (found.beyond, False)):
        for y, x in np.argwhere(mask)[::97]:
            assert bool(np.hypot(ys - y, xs - x).min() <= RING) is near


@pytest.mark.parametrize("bad", [np.zeros((8, 8)), np.full((8, 8), 1.5), np.full((8, 8), -0.1)])
def test_masks_of_nothing_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="mask"):
        Regions.of(bad)


@given(arrays(np.float32, (5, 5), elements=st.floats(0, 1, width=32)))
def test_levels_of_a_coverage_keep_its_regions(coverage: np.ndarray) -> None:
    back = levels(coverage) / 255
    np.testing.assert_array_equal(back >= 0.5, coverage >= 0.5)
    np.testing.assert_array_equal(back == 0, coverage == 0)
    assert np.abs(back - coverage).max() <= 1.01 / 255


def test_directions_are_orthonormal_bases() -> None:
    found = patches.directions(75, 3)
    assert found.shape == (75, 150)
    for basis in (found[:, :75], found[:, 75:]):
        np.testing.assert_allclose(basis.T @ basis, np.eye(75), atol=1e-12)
    assert not np.allclose(found[:, :75], found[:, 75:])


@given(st.integers(0, 2**32 - 1))
def test_sliced_wasserstein_of_a_moved_set_is_how_far_it_moved(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, v = rng.normal(size=(20, 75)), rng.normal(size=75)
    assert sliced_wasserstein(a, a + v) == pytest.approx(np.linalg.norm(v), rel=0.15)
    assert sliced_wasserstein(a, rng.permutation(a)) == pytest.approx(0, abs=1e-12)
    assert sliced_wasserstein(a, 3 * a) == pytest.approx(sliced_wasserstein(3 * a, a))


def test_a_thing_of_another_colour_is_as_far_away_as_the_colours() -> None:
    rng = np.random.default_rng(0)
    values, mask = rng.normal(50, 9, (40, 40, 3)), np.ones((40, 40), bool)
    step = np.array([12.0, -9.0, 8.0])  # 17 long
    found = [patch_distance(values, values + step, mask, seed=seed) for seed in range(20)]
    assert np.mean(found) == pytest.approx(17, rel=0.03)
    assert patch_distance(values, values + step, mask, detail=True) == pytest.approx(0, abs=1e-9)


def test_patches_are_whole_and_in_the_mask() -> None:
    values = np.arange(6 * 7 * 3, dtype=np.float64).reshape(6, 7, 3)
    mask = np.zeros((6, 7), bool)
    mask[:5, 1:7] = True
    found = patches.patches(values, mask)
    assert found.shape == (2, 3, 25)
    np.testing.assert_array_equal(found[1, 2].reshape(5, 5), values[:5, 2:7, 2])


def test_a_thing_too_small_for_patches_is_refused() -> None:
    mask = np.zeros((32, 32), bool)
    mask[4:12, 4:12] = True
    with pytest.raises(InputError, match="whole patches of 10 pixels"):
        patch_distance(np.zeros((32, 32, 3)), np.ones((32, 32, 3)), mask)


def test_psnr_of_a_region() -> None:
    a = np.zeros((8, 8, 3), np.uint8)
    b, mask = a.copy(), np.zeros((8, 8), bool)
    b[:4] = 51  # a fifth of the range: 20 log10(5) dB
    mask[:4] = True
    assert psnr(a, b, mask) == pytest.approx(20 * np.log10(5))
    assert psnr(a, b, ~mask) == MOST_DB
    assert psnr(a, b, np.zeros((8, 8), bool)) is None


def test_local_means_see_nothing_outside_the_mask() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((24, 24), bool)
    mask[4:20, 6:18] = True
    values = rng.normal(size=(24, 24, 3))
    other = np.where(mask[..., None], values, 1e6)
    np.testing.assert_array_equal(local_means(values, mask), local_means(other, mask))
    even = np.full((24, 24, 3), 7.0)
    np.testing.assert_allclose(local_means(even, mask), 7.0)
    assert colour_difference(values, other, mask) == 0


def test_larger_pictures_are_measured_at_one_size() -> None:
    picture = render(bench().sources[0].scene).image
    large = picture.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(reduced(large), picture)
    assert reduced(picture) is picture and reduced(large[:100, :100]).shape == (SIDE, SIDE, 3)


# What the measure sees, on renders.


@cache
def bench() -> RenderedBench:
    return dataset.bundled("public")


def pair(look: str, source: str) -> tuple[PaintedLook, PaintedSource, Answer]:
    look_ = next(x for x in bench().looks if x.name == look)
    source_ = next(x for x in bench().sources if x.name == source)
    found = bench().picture(source_)
    answer = Answer(bench().answer(look_, source_), found.image, found.coverage, source_.noun)
    return look_, source_, answer


PAIRS = [
    ("plaid", "00-vase"), ("waves", "09-bottle"), ("leopard", "20-ball"),
    ("painted flowers", "14-jar"), ("scales", "01-vase"), ("gold cracks", "03-cup"),
]  # fmt: skip


def painted_again(look: PaintedLook, source: PaintedSource, turn: float, seed: int) -> Pixels:
    """The right answer with its pattern ``turn`` round the thing; seed: 0, or draws it anew.

    Drawn anew it has its lines elsewhere, and more or fewer of them, as the references have.
    """
    paint = patterns.PAINTS[look.pattern]

    def again(s: Array, t: Array, rng: np.random.Generator, a: Array, b: Array) -> Array:
        chance = np.random.default_rng(seed) if seed else rng
        return paint((s + np.float32(turn)) % 1, t, chance, a, b)

    name = f"{look.pattern} again"
    patterns.PAINTS[name] = again
    try:
        return render(wearing(source.scene, dataclasses.replace(look, pattern=name))).image
    finally:
        del patterns.PAINTS[name]


def blurred(picture: Pixels, mask: np.ndarray, sigma: float) -> Pixels:
    """Inside the mask, of the mask's own pixels."""
    out = picture.copy()
    out[mask] = np.rint(local_means(picture.astype(np.float64), mask, sigma)).astype(np.uint8)
    return out


@pytest.mark.parametrize(("look_name", "source_name"), PAIRS)
def test_what_the_distance_of_patches_sees(look_name: str, source_name: str) -> None:
    """Shares of the gap: the right look in another place > blurred > its mean colours > another."""
    look, source, answer = pair(look_name, source_name)
    right, mask = bench().answer(look, source), answer.regions.inside
    other = bench().looks[(bench().looks.index(look) + 1) % len(bench().looks)]
    pictures = {
        "nothing": bench().picture(source).image,
        "right": right,
        "turned": painted_again(look, source, 0.23, 0),
        "anew": painted_again(look, source, 0.0, 5),
        "blurred": blurred(right, mask, 2.0),
        "flat": blurred(right, mask, 12.0),
        "half": ((right.astype(int) + bench().picture(source).image) // 2).astype(np.uint8),
        "other": bench().answer(other, source),
    }
    distance = {name: answer.measure(p).distance for name, p in pictures.items()}
    assert distance["right"] == 0

    share = {name: 1 - d / distance["nothing"] for name, d in distance.items()}
    assert share["turned"] > 0.94 and share["anew"] > 0.93
    assert 0.35 < share["half"] < 0.65
    least = min(share["turned"], share["anew"])
    assert 1 > share["blurred"] > share["flat"] + 0.05 and least > share["flat"] + 0.08
    assert share["other"] < least - 0.3
    detail = {name: answer.measure(pictures[name]).detail for name in ("nothing", "flat", "anew")}
    assert detail["anew"] < 0.5 * detail["nothing"] and detail["anew"] < 0.5 * detail["flat"]


def test_the_random_directions_matter_little() -> None:
    for look_name, source_name in PAIRS[:3]:
        look, source, answer = pair(look_name, source_name)
        first, second = lab(bench().picture(source).image), lab(bench().answer(look, source))
        found = [
            patch_distance(first, second, answer.regions.inside, seed=seed) for seed in range(6)
        ]
        assert np.std(found) < 0.03 * np.mean(found)
        assert patch_distance(first, second, answer.regions.inside) == found[0]


def test_colours_are_told_apart_and_the_pattern_s_place_is_not() -> None:
    look, source, answer = pair("waves", "09-bottle")
    right, mask = bench().answer(look, source), answer.regions.inside
    moved = answer.measure(painted_again(look, source, 0.23, 5)).colour
    tinted = right.copy()
    tinted[mask] = np.clip(tinted[mask] + np.array([40, 0, -40]), 0, 255).astype(np.uint8)
    assert moved < 4 < answer.measure(tinted).colour
    assert answer.measure(right).colour == 0


def test_outside_counts_what_the_edit_changed_there() -> None:
    _, source, answer = pair("plaid", "03-cup")
    uploaded = bench().picture(source).image
    smeared, far = uploaded.copy(), uploaded.copy()
    smeared[answer.regions.ring] = 255 - smeared[answer.regions.ring]
    far[answer.regions.beyond] //= 2

    def outside(picture: Pixels) -> tuple[float, float]:
        """PSNR in the ring and beyond it."""
        found = answer.measure(picture)
        assert found.ring is not None and found.beyond is not None
        return found.ring, found.beyond

    assert outside(uploaded) == (MOST_DB, MOST_DB)
    ring, beyond = outside(smeared)
    assert ring < 12 and beyond == MOST_DB
    ring, beyond = outside(far)
    assert beyond < 20 and ring == MOST_DB
    ring, _ = outside(gaussian_filter(uploaded.astype(float), (1, 1, 0)).astype(np.uint8))
    assert 15 < ring < 40


def test_the_judge_sees_shapes_and_not_only_known_patterns() -> None:
    eye = judge.load(mini.path() / "judge.safetensors")
    found = [pair(look, source) for look, source in PAIRS]
    right = [bench().answer(look, source) for look, source, _ in found]
    said = shapes(eye, right, [answer for *_, answer in found])
    assert np.mean([shape[0] for shape in said if shape]) > 0.85
    gone = [np.full((SIDE, SIDE, 3), 200, np.uint8)] * len(found)
    assert all(s and s[0] < 0.3 for s in shapes(eye, gone, [answer for *_, answer in found]))
    answer = found[0][2]
    answer.noun = "elephant"
    assert shapes(eye, right[:1], [answer]) == [None]


def test_an_autoencoder_s_copy_is_near_and_not_equal() -> None:
    base = Base.load()
    look, source, answer = pair("plaid", "00-vase")
    right = bench().answer(look, source)
    copy = np.asarray(base.decode(base.encode(Image.fromarray(right)))[0])
    found = answer.measure(copy)
    assert 0 < found.distance < 0.3 * answer.measure(bench().picture(source).image).distance
