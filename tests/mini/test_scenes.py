import dataclasses
import hashlib
import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customedit.mini.data import shrink
from customedit.mini.scenes import (
    FRAMINGS,
    SIZE,
    Scene,
    is_held_out,
    patterned_scene,
    render,
    sample_scene,
    training_scene,
)
from customedit.mini.vocabulary import (
    ANY_PATTERN,
    CLASSES,
    COLOURS,
    LOOKS,
    MATERIALS,
    PATTERNS,
    TABLE_MATERIALS,
    WALL_MATERIALS,
)

SEEDS = st.integers(0, 10**7)
few = settings(max_examples=12)  # each of these renders


def digest(scene: Scene) -> str:
    picture = render(scene)
    return hashlib.sha256(picture.image.tobytes() + picture.alpha.tobytes()).hexdigest()


@few
@given(SEEDS)
def test_the_same_seed_gives_the_same_bytes(seed: int) -> None:
    assert sample_scene(seed) == sample_scene(seed)
    assert digest(sample_scene(seed)) == digest(sample_scene(seed))


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib; from customedit.mini.scenes import render, sample_scene\n"
        "for seed in (0, 7):\n"
        "    p = render(sample_scene(seed))\n"
        "    print(hashlib.sha256(p.image.tobytes() + p.alpha.tobytes()).hexdigest())\n"
    )
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert other.stdout.split() == [digest(sample_scene(0)), digest(sample_scene(7))]


@few
@given(SEEDS, st.sampled_from(CLASSES), st.sampled_from([*PATTERNS, *LOOKS]))
def test_pictures_and_masks_are_well_formed(seed: int, noun: str, pattern: str) -> None:
    scene = sample_scene(seed)
    second = None if pattern == "plain" else "white"
    scene = dataclasses.replace(scene, noun=noun, pattern=pattern, second=second)
    picture = render(scene)
    assert picture.image.shape == (SIZE, SIZE, 3)
    assert picture.image.dtype == np.uint8
    assert picture.alpha.shape == picture.mask.shape == (SIZE, SIZE)
    assert picture.alpha.min() >= 0 and picture.alpha.max() <= 1
    np.testing.assert_array_equal(picture.mask, picture.alpha >= 0.5)


@few
@given(SEEDS, st.sampled_from(CLASSES))
def test_a_mask_covers_the_thing_and_nothing_else(seed: int, noun: str) -> None:
    """A matte red thing in a grey and white room: red is where the mask is."""
    scene = dataclasses.replace(
        sample_scene(seed), noun=noun, colour="red", pattern="plain", second=None,
        material="matte", table="gray", wall="white",
    )  # fmt: skip
    picture = render(scene)
    red, green, blue = picture.image.astype(float).transpose(2, 0, 1)
    reddish = red > 1.5 * np.maximum(green, blue)
    assert reddish[picture.alpha > 0.9].all()
    assert not reddish[picture.alpha < 0.05].any()
    assert picture.mask[picture.alpha > 0.9].all()


@few
@given(SEEDS, st.sampled_from(CLASSES))
def test_a_change_of_the_thing_stays_in_the_mask_and_one_of_the_room_outside(
    seed: int, noun: str
) -> None:
    red = dataclasses.replace(
        sample_scene(seed), noun=noun, colour="red", pattern="plain", second=None,
        material="matte", table="gray", wall="white",
    )  # fmt: skip
    blue = dataclasses.replace(red, colour="blue")
    elsewhere = dataclasses.replace(red, table="green", wall="black")
    was, recoloured, moved = (render(scene) for scene in (red, blue, elsewhere))
    changed = (was.image != recoloured.image).any(axis=2)
    np.testing.assert_array_equal(was.alpha, recoloured.alpha)
    assert changed[was.alpha == 1].all()
    assert not changed[was.alpha == 0].any()
    around = (was.image != moved.image).any(axis=2)
    np.testing.assert_array_equal(was.alpha, moved.alpha)
    assert around[was.alpha == 0].all()
    assert not around[was.alpha == 1].any()


@settings(max_examples=30)
@given(SEEDS)
def test_the_thing_is_of_a_fair_size_and_in_the_picture(seed: int) -> None:
    mask = render(sample_scene(seed)).mask
    assert 0.05 < mask.mean() < 0.48
    rows, columns = np.nonzero(mask)
    assert 0.25 * SIZE < columns.mean() < 0.75 * SIZE
    assert 0.25 * SIZE < rows.mean() < 0.90 * SIZE
    # at most a handle's or a rim's end lies beyond the edge
    on_edge = [int(line.sum()) for line in (mask[0], mask[-1], mask[:, 0], mask[:, -1])]
    assert sum(on_edge) < 0.5 * SIZE


@given(SEEDS)
def test_training_shows_no_look_and_no_combination_kept_out(seed: int) -> None:
    scene = sample_scene(seed)
    assert scene.pattern in PATTERNS
    assert not is_held_out(scene.noun, scene.colour, scene.pattern)


@given(SEEDS)
def test_any_pattern_has_two_to_four_colours_of_which_none_is_there_twice(seed: int) -> None:
    scene = patterned_scene(seed)
    assert scene.pattern == ANY_PATTERN and scene.material != "wooden"
    assert 2 <= len(scene.colours) == len(set(scene.colours)) <= 4
    assert Scene(**scene.as_dict()) == scene


def test_a_third_of_the_training_scenes_wear_any_pattern_and_a_few_are_framed() -> None:
    scenes = [training_scene(k) for k in range(3000)]
    assert 0.30 < np.mean([s.pattern == ANY_PATTERN for s in scenes]) < 0.37
    for framing in FRAMINGS:
        assert 0.03 < np.mean([s.framing == framing for s in scenes]) < 0.05
    assert {s.pattern for s in scenes} == {*PATTERNS, ANY_PATTERN}
    assert {len(s.colours) for s in scenes} == {1, 2, 3, 4}


@few
@given(SEEDS)
def test_a_framed_scene_shows_a_part_of_it_or_all_of_it_small_on_grey(seed: int) -> None:
    whole = dataclasses.replace(training_scene(seed), framing="")
    far, close = (render(dataclasses.replace(whole, framing=f)) for f in FRAMINGS)
    picture = render(whole)
    assert far.alpha.sum() < 0.45 * picture.alpha.sum()
    grey = (far.image == 128).all(axis=2)
    assert 0.55 < grey.mean() < 0.92
    assert not far.mask[grey].any()
    assert far.image.shape == close.image.shape == picture.image.shape
    assert (close.image == 128).all(axis=2).mean() < 0.2


@few
@given(SEEDS)
def test_a_larger_picture_shows_the_same(seed: int) -> None:
    scene = training_scene(seed)
    small, large = render(scene), render(scene, 2 * SIZE)
    assert large.image.shape == (2 * SIZE, 2 * SIZE, 3)
    apart = np.abs(shrink(large.image[None])[0].astype(int) - small.image.astype(int))
    assert (apart.max(axis=2) > 60).mean() < 0.10
    assert abs(float(large.alpha.mean() - small.alpha.mean())) < 0.02


@given(SEEDS)
def test_only_combinations_kept_out_come_when_asked_for(seed: int) -> None:
    scene = sample_scene(seed, held_out=True)
    assert is_held_out(scene.noun, scene.colour, scene.pattern)


def test_about_one_combination_in_ten_is_kept_out_and_each_word_is_still_seen() -> None:
    combinations = list(itertools.product(CLASSES, COLOURS, PATTERNS))
    kept_out = [c for c in combinations if is_held_out(*c)]
    assert 0.05 < len(kept_out) / len(combinations) < 0.15
    for place, words in enumerate((CLASSES, COLOURS, PATTERNS)):
        seen = {c[place] for c in combinations if not is_held_out(*c)}
        assert seen == set(words)
        assert {c[place] for c in kept_out} == set(words)


@given(SEEDS)
def test_scenes_are_made_of_known_words_and_fit_together(seed: int) -> None:
    scene = sample_scene(seed)
    assert scene.noun in CLASSES
    assert scene.colour in COLOURS
    assert scene.material in MATERIALS
    assert scene.table in {*COLOURS, *TABLE_MATERIALS}
    assert scene.wall in {*COLOURS, *WALL_MATERIALS}
    assert (scene.second is None) == (scene.pattern == "plain")
    assert scene.second != scene.colour
    assert scene.material != "wooden" or scene.pattern == "plain"
    assert Scene(**scene.as_dict()) == scene


@given(SEEDS, st.sampled_from(CLASSES), st.sampled_from(LOOKS))
def test_fields_given_are_kept(seed: int, noun: str, look: str) -> None:
    scene = sample_scene(seed, noun=noun, pattern=look, wall="brick", yaw=1.25)
    assert (scene.noun, scene.pattern, scene.wall, scene.yaw) == (noun, look, "brick", 1.25)


def test_a_combination_of_the_wrong_kind_is_refused() -> None:
    combinations = itertools.product(CLASSES, COLOURS, PATTERNS)
    noun, colour, pattern = next(c for c in combinations if is_held_out(*c))
    fixed: dict[str, Any] = {"noun": noun, "colour": colour, "pattern": pattern}
    with pytest.raises(ValueError, match=f"{colour} {pattern} {noun} is a held-out combination"):
        sample_scene(0, **fixed)
    assert sample_scene(0, held_out=True, **fixed).noun == noun


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="flavour"):
        sample_scene(0, flavour="salt")
