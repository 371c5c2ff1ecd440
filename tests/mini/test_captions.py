import dataclasses
import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customedit.mini import captions
from customedit.mini.scenes import Scene, patterned_scene, sample_scene, training_scene
from customedit.mini.vocabulary import COLOURS, LOOKS, PATTERNS, unknown_words, words
from customedit.prompt_syntax import article

SEEDS = st.integers(0, 10**7)
SCENES = SEEDS.map(sample_scene)
TRAINING = SEEDS.map(training_scene)
PATTERNED = SEEDS.map(patterned_scene)
SAYS = {
    "striped": {"striped", "stripes"}, "banded": {"banded", "bands"},
    "dotted": {"dotted", "dots"}, "checkered": {"checkered", "checks"},
    "zigzag": {"zigzag", "zigzags"}, "plain": {"plain"},
}  # fmt: skip


def assert_true(caption: str, scene: Scene) -> None:
    said = re.findall(r"\w+", caption)
    assert set(said) <= words()
    assert scene.noun in said
    assert set(said) & set(COLOURS) <= {*scene.colours, scene.wall, scene.table}
    of_patterns = {pattern for pattern, forms in SAYS.items() if forms & set(said)}
    assert of_patterns <= {scene.pattern}
    for place in ("table", "wall"):
        if place in said:
            assert said[said.index(place) - 1] == getattr(scene, place)


@given(PATTERNED, st.integers(0, 4), st.booleans())
def test_any_pattern_is_called_patterned_with_its_colours_or_none(
    scene: Scene, form: int, colour: bool
) -> None:
    caption = captions.thing(scene, form, colour=colour)
    assert {"patterned", "pattern"} & set(caption.split())
    said = [w for w in re.findall(r"\w+", caption) if w in COLOURS]
    wanted = list(scene.colours) if form < 3 else [scene.colour]
    assert said == (wanted if colour else [])
    assert 2 <= len(scene.colours) == len(set(scene.colours)) <= 4


def test_colours_are_listed_as_people_list_them() -> None:
    scene = dataclasses.replace(
        patterned_scene(0), noun="cup", material="matte", colour="red", second="white",
        third="blue", fourth=None,
    )  # fmt: skip
    worded = [captions.thing(scene, form, material=False) for form in range(5)]
    assert worded == [
        "a cup patterned in red, white and blue",
        "a red cup with a white and blue pattern",
        "a red, white and blue patterned cup",
        "a patterned red cup",
        "a red patterned cup",
    ]
    two = dataclasses.replace(scene, third=None)
    assert captions.thing(two, 2) == "a matte red and white patterned cup"


@given(TRAINING, SEEDS)
def test_how_far_a_framed_scene_is_is_always_said(scene: Scene, seed: int) -> None:
    caption = captions.describe(scene, np.random.default_rng(seed))
    assert_true(caption, scene)
    if scene.framing == "far":
        assert "far away" in caption or "very small" in caption
    elif scene.framing == "close":
        assert "close up" in caption or "zoomed in" in caption


@given(SCENES, SEEDS)
def test_random_captions_are_true(scene: Scene, seed: int) -> None:
    assert_true(captions.describe(scene, np.random.default_rng(seed)), scene)


@given(SCENES, st.integers(0, 4))
def test_full_captions_are_true_and_name_both_places(scene: Scene, form: int) -> None:
    caption = captions.full(scene, form)
    assert_true(caption, scene)
    assert caption.endswith(f"on {article(scene.table)} table by {article(scene.wall)} wall")
    assert captions.describe(scene, np.random.default_rng(form)) == captions.describe(
        scene, np.random.default_rng(form)
    )


@given(SCENES)
def test_the_first_three_forms_name_pattern_and_both_colours(scene: Scene) -> None:
    if scene.pattern == "plain":
        return
    for form in range(3):
        said = set(captions.thing(scene, form).split())
        assert said & SAYS[scene.pattern]
        assert {scene.colour, scene.second} <= said


@given(SCENES, st.sampled_from(LOOKS), st.integers(0, 4), st.booleans())
def test_a_kept_out_look_is_only_ever_called_patterned(
    scene: Scene, look: str, form: int, colour: bool
) -> None:
    worn = dataclasses.replace(scene, pattern=look, second="white")
    caption = captions.thing(worn, form, colour=colour)
    assert unknown_words(caption) == []
    if colour:
        assert "patterned" in caption.split()


@given(SCENES, SEEDS)
def test_article_fits(scene: Scene, seed: int) -> None:
    said = captions.describe(scene, np.random.default_rng(seed)).split()
    for first, word in itertools.pairwise(said):
        if first in ("a", "an"):
            assert (first == "an") == (word[0] in "aeiou")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_has_a_wording(pattern: str) -> None:
    assert pattern in SAYS
