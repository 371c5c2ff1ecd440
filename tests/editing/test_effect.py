"""Options that would change nothing are refused, and those that change something are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from customedit.diffusion.base import Base
from customedit.editing.editor import Editor
from customedit.editing.method_settings import (
    INVERTING,
    P2PSettings,
    first_drawn_step,
    strength_of_change,
)
from customedit.editing.region_words import ConceptWords
from customedit.editing.settings import check_request
from customedit.errors import InputError
from customedit.schemas.methods import EditMethod
from customedit.schemas.requests import EditOptions, PresetSettings

from .conftest import NOISE_METHODS

SOURCE, TARGET = "a photo of a cup on a table", "a photo of a red cup on a table"
BOTH: dict[str, Any] = {"cross_steps": 0.3, "self_steps": 0.4}


def asked(**changes: Any) -> EditOptions:
    return EditOptions(**{"source_prompt": SOURCE, "target_prompt": TARGET} | changes)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"p2p": BOTH, "strengths": [0.2, 0.8]}, "strengths", "cross_steps and p2p.self_steps are"),
        ({"p2p": BOTH, "strengths": [0.5]}, "strengths", "are both given"),
        ({"p2p": BOTH, "change": 0.7}, "change", "is 0.7, and has no effect above 0.5"),
        ({"p2p": BOTH, "change": "auto"}, "change", "auto compares values, and has no effect"),
        ({"method": "masactrl", "masactrl": {"layer": 1}, "strengths": [0.2, 0.8]}, "strengths",
         "layer is 1"),
        ({"method": "masactrl", "masactrl": {"layer": 1, "within_region": True}},
         "masactrl.within_region", "layer is 1"),
        ({"method": "pnp", "pnp": {"layer": 1, "attention_steps": 0.5}}, "pnp.attention_steps",
         "layer is 1"),
        ({"method": "pnp", "pnp": {"layer": 0.5, "attention_steps": 0}}, "pnp.layer",
         "attention_steps is 0"),
        ({"p2p": {"cross_steps": 0, "reweight": {"red": 2.0}}}, "p2p.reweight", "cross_steps is 0"),
        ({"p2p": {"reweight": {"red": 2.0}}, "strengths": [0]}, "p2p.reweight", "strength is 0"),
        ({"steps": 4, "guidance_end": 0.2}, "guidance_end", "leaves none of 4 steps guided"),
        ({"steps": 4, "guidance_start": 0.3, "guidance_end": 0.4}, "guidance_end", "none of 4"),
        ({"method": "sdedit", "strengths": [0.2, 0.3], "steps": 10, "guidance_end": 0.5},
         "guidance_end", "drawn, the last 3 of 10.*give 0.8 or more"),
        ({"change": 0.25, "steps": 10, "guidance_end": 0.5}, "guidance_end", "the last 5 of 10"),
        ({"feather": 4, "preserve": False}, "feather", "preserve is false"),
        ({"feather": 4, "preset": "paper"}, "feather", "preserve is false"),
        ({"feather": 4, "method": "sdedit", "source_prompt": ""}, "feather", "has no region"),
        ({"feather": 0, "p2p": {"blend_over": "none"}}, "feather", "has no region"),
    ],
)  # fmt: skip
def test_what_would_change_nothing_is_refused(
    changes: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        check_request(asked(**changes))
    assert caught.value.field == field and caught.value.remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"p2p": BOTH},
        {"p2p": BOTH, "change": 0.3},
        {"p2p": BOTH, "change": 0.5},  # every method's default
        {"p2p": {"cross_steps": 0.3}, "strengths": [0.2, 0.8]},
        {"p2p": {"self_steps": 0.3}, "change": "auto"},
        {"method": "masactrl", "masactrl": {"layer": 0.9}, "strengths": [0.2, 0.8]},
        {"method": "pnp", "pnp": {"attention_steps": 0.3}, "strengths": [0.2, 0.8]},
        {"p2p": {"cross_steps": 0, "reweight": {"red": 2.0}, "words": {"red": (0, 1)}}},
        {"p2p": {"reweight": {"red": 2.0}}, "strengths": [0, 0.5]},
        {"steps": 4, "guidance_end": 0.25},
        {"steps": 1},
        {"method": "sdedit", "strengths": [0.2, 0.8], "steps": 10, "guidance_end": 0.5},
        {"change": 0, "steps": 4, "guidance_end": 0.2},  # nothing is drawn
        {"feather": 4},
        {"feather": 4, "method": "sdedit"},
        {"feather": 0, "preserve": True},
    ],
)
def test_what_changes_something_is_taken(changes: dict[str, Any]) -> None:
    check_request(asked(**changes))


def test_settings_are_saved_that_meet_the_rest_of_an_edit_later() -> None:
    """Whether they have an effect then follows from the edit."""
    given = {"feather": 4, "preserve": False, "p2p": BOTH, "strengths": [0.2, 0.8]}
    saved = PresetSettings.model_validate(given)
    settings = saved.model_dump(exclude_unset=True)
    with pytest.raises(InputError, match="strengths: have no effect"):
        check_request(asked(**settings))
    check_request(asked(**settings | {"preserve": True, "p2p": None}))


def test_the_strength_is_what_is_left_out_of_the_steps() -> None:
    low, high = (P2PSettings(strength=strength, **BOTH) for strength in (0.2, 0.8))
    assert (low.cross, low.own) == (high.cross, high.own) == (0.3, 0.4)
    one = P2PSettings(strength=0.2, cross_steps=0.3)
    assert (one.cross, one.own) == (0.3, 0.2)


@pytest.mark.parametrize("method", NOISE_METHODS)
def test_edits_are_drawn_from_the_step_on_that_the_checks_count_from(
    method: EditMethod, base: Base, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Editor(base).open(picture, SOURCE)
    options: dict[str, Any] = {"method": method, "change": 0.3, "steps": 5}
    session.edit(TARGET, **options)  # and the inversion is there
    times, output = set[float](), Base.output

    def seen(self: Base, latents: Any, time: Any, *rest: Any) -> Any:
        times.update(torch.as_tensor(time).flatten().tolist())
        return output(self, latents, time, *rest)

    monkeypatch.setattr(Base, "output", seen)
    session.edit(TARGET, **options)
    first = first_drawn_step(method, strength_of_change(method, 0.3), 5)
    wanted = [time for time, _ in base.schedule.sized(16, 16).downwards(5)][first:]
    assert times == {float(time) for time in wanted}


def test_a_source_prompt_that_names_a_concept_is_refused_where_the_picture_is_inverted() -> None:
    look = ConceptWords(("<look>",), "cup", "patterned")
    prompts: dict[str, Any] = {
        "source_prompt": "a photo of a <look> patterned cup",
        "target_prompt": "a photo of a <look> patterned red cup",
    }
    for method in NOISE_METHODS:
        request = EditOptions(**prompts, method=method)
        if method in INVERTING:
            with pytest.raises(InputError, match="names <look>; an inversion is made") as caught:
                check_request(request, [look])
            assert caught.value.field == "source_prompt"
        else:
            check_request(request, [look])
    check_request(EditOptions(**prompts, method="flowedit"), [look])


def test_a_sweep_of_strengths_without_effect_is_refused(base: Base, picture: Image.Image) -> None:
    session = Editor(base).open(picture, SOURCE)
    with pytest.raises(InputError, match=r"strengths: have no effect.*leave out one of these"):
        session.sweep(TARGET, p2p=BOTH, steps=2)
