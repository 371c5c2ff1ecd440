"""Requests against the library's settings: defaults, limits and names agree."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.editing.edit import EditSettings, default_p2p
from customedit.editing.prompt_to_prompt import P2PSettings
from customedit.errors import InputError
from customedit.schemas.requests import (
    CustomizeRequest,
    EditRequest,
    P2POptions,
    TrainingOptions,
)
from worker.customize_job import settings_of as training_of
from worker.edit_settings import p2p_of, pairs, settings_of

IMAGE = f"img_{'0' * 64}"
CUP = {"image": IMAGE, "source_prompt": "a photo of a cup", "target_prompt": "a photo of a red cup"}


@pytest.fixture(scope="session")
def base() -> Base:
    return Base.load()


def asked(**changes: Any) -> EditRequest:
    return EditRequest.model_validate(CUP | changes)


def customize(**training: Any) -> CustomizeRequest:
    return CustomizeRequest.model_validate(
        {"references": [IMAGE], "noun": "cup", "training": training}
    )


def test_a_request_that_says_nothing_is_trained_by_the_librarys_defaults(base: Base) -> None:
    assert training_of(base, customize()) == TrainingSettings.of(base)


def test_every_training_option_reaches_the_library_under_its_own_name(base: Base) -> None:
    changed: dict[str, Any] = {
        "way": "textual-inversion", "steps": 7, "rate": 0.5, "batch": 3, "class_images": 4,
        "class_steps": 5, "prior_weight": 2.0, "crops": 6, "augment_crops": False,
        "checkpoint_every": 8, "preview_every": 9, "seed": 10,
    }  # fmt: skip
    assert set(changed) == set(TrainingOptions.model_fields)
    found = dataclasses.asdict(training_of(base, customize(**changed)))
    assert {name: found[name] for name in changed} == changed


@pytest.mark.parametrize(
    "name", ["steps", "rate", "batch", "class_images", "class_steps", "prior_weight", "crops"]
)
@given(value=st.one_of(st.integers(-5, 30_000), st.floats(-1, 200, allow_subnormal=False)))
def test_what_a_request_lets_through_the_library_takes(name: str, value: float) -> None:
    try:
        request = customize(**{name: value})
    except ValidationError:
        return
    given_value = getattr(request.training, name)
    try:
        TrainingSettings(**{name: given_value})
    except InputError:
        assert name == "rate" and value < 1e-9  # positive, and too small for anything


def test_a_request_that_says_nothing_is_edited_by_the_librarys_defaults(base: Base) -> None:
    settings = settings_of(asked())
    assert settings == EditSettings(CUP["source_prompt"], CUP["target_prompt"])
    source, target = base.tokens(CUP["source_prompt"]), base.tokens(CUP["target_prompt"])
    assert p2p_of(base, asked(), [], 0.5) == default_p2p(source, target, None)


def test_every_edit_option_reaches_the_library() -> None:
    changed: dict[str, Any] = {
        "method": "sdedit", "steps": 3, "guidance": 4.0, "inversion": "ddim", "preserve": True,
        "feather": 2.0, "everywhere": True,
    }  # fmt: skip
    found = settings_of(asked(**changed))
    assert {name: getattr(found, name) for name in changed} == changed
    elsewhere = {"image", "concepts", "mask", "maps", "references", "webhook"}  # inputs, outputs
    apart = {"strengths", "seeds", "p2p"}
    told = set(EditRequest.model_fields) - elsewhere - apart
    assert told == set(changed) | {"source_prompt", "target_prompt"}
    library = {f.name for f in dataclasses.fields(EditSettings)}
    assert library == told | {"strength", "seed", "p2p"}


def test_every_expert_option_reaches_the_library(base: Base) -> None:
    changed: dict[str, Any] = {
        "way": "replace", "cross_steps": 0.1, "self_steps": 0.2, "words": {"red": (0.0, 0.5)},
        "reweight": {"red": 2.0}, "blend_over": "union", "blend_words": ("cup",),
        "blend_target_words": ("red",), "subtract": ("photo",), "threshold": 0.4,
        "blend_start": 0.3,
    }  # fmt: skip
    assert set(changed) == set(P2POptions.model_fields)
    found = p2p_of(base, asked(p2p=changed), [], 0.7)
    assert found == P2PSettings(strength=0.7, **changed)


@pytest.mark.parametrize(
    ("changes", "over", "words"),
    [
        ({"p2p": {"blend_words": ["cup"]}}, "source", ("cup",)),
        ({"p2p": {"blend_over": "none"}}, "none", ()),
        ({"mask": IMAGE}, "mask", ()),
        ({"p2p": {"threshold": 0.5}}, "none", ()),
    ],
)
def test_the_blend_follows_from_what_is_given(
    base: Base, changes: dict[str, Any], over: str, words: Any
) -> None:
    found = p2p_of(base, asked(**changes), [], 0.5)
    assert found is not None
    assert (found.blend_over, found.blend_words) == (over, words)


def test_a_blend_without_words_names_its_field(base: Base) -> None:
    with pytest.raises(InputError) as caught:
        p2p_of(base, asked(p2p={"blend_over": "source"}), [], 0.5)
    assert caught.value.field == "blend_words"


def test_strengths_and_seeds_make_the_pictures() -> None:
    assert pairs(asked()) == [(0.5, 0)]
    assert pairs(asked(method="sdedit")) == [(0.6, 0)]
    assert pairs(asked(strengths=[0.2, 0.8], seeds=[1, 2])) == [(0.2, 1), (0.8, 1)]
    drawn = pairs(asked(method="sdedit", strengths=[0.2, 0.8], seeds=[1, 2]))
    assert drawn == [(0.2, 1), (0.2, 2), (0.8, 1), (0.8, 2)]


def test_the_literals_are_the_librarys() -> None:
    def choices(model: Any, name: str) -> set[str]:
        kind = model.model_fields[name].annotation
        return {c for a in (kind, *get_args(kind)) for c in get_args(a)} | set(get_args(kind))

    from customedit.editing.edit import METHODS
    from customedit.editing.inversion import KINDS
    from customedit.editing.prompt_to_prompt import BlendOver, Way

    assert choices(EditRequest, "method") == set(METHODS)
    assert choices(EditRequest, "inversion") == set(KINDS)
    assert choices(P2POptions, "way") == set(get_args(Way))
    assert set(get_args(BlendOver)) <= choices(P2POptions, "blend_over")
