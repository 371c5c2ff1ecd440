"""Requests of trainings against the library's settings: defaults, limits and names agree."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.errors import InputError
from customedit.jobs.records import JobRecord, uses_of
from customedit.schemas.concepts import CustomizeRequest, TrainingOptions
from worker.customize_job import settings_of as training_of

IMAGE = f"img_{'0' * 64}"


@pytest.fixture(scope="session")
def base() -> Base:
    return Base.load()


def customize(**training: Any) -> CustomizeRequest:
    return CustomizeRequest.model_validate(
        {"references": [IMAGE], "noun": "cup", "training": training}
    )


def test_a_request_that_says_nothing_is_trained_by_the_librarys_defaults(base: Base) -> None:
    assert training_of(base, customize()) == TrainingSettings.of(base)


def test_every_training_option_reaches_the_library_under_its_own_name(base: Base) -> None:
    changed: dict[str, Any] = {
        "way": "lora", "recipe": "contained", "steps": 7, "rate": 0.5, "batch": 3,
        "class_images": 4, "class_steps": 5, "prior_weight": 2.0, "crops": 6,
        "augment_crops": True, "checkpoint_every": 8, "preview_every": 9, "seed": 10,
        "columns": "prompt", "rate_schedule": "linear", "rank": 3, "ema": 0.25, "snr_gamma": 2.0,
        "crop_cells": 7, "weigh_cells": False, "focus": "picture", "prior_classes": 3,
        "lora_layers": "all", "alpha": 1.5, "train_text_encoder": True,
    }  # fmt: skip
    assert set(changed) == set(TrainingOptions.model_fields)
    found = dataclasses.asdict(training_of(base, customize(**changed)))
    assert {name: found[name] for name in changed} == changed
    still = training_of(base, customize(augment_crops=False, columns="token"))
    assert (still.augment_crops, still.columns) == (False, "token")


@pytest.mark.parametrize(
    "name",
    [
        "steps",
        "rate",
        "batch",
        "class_images",
        "class_steps",
        "prior_weight",
        "crops",
        "rank",
        "ema",
        "snr_gamma",
        "crop_cells",
        "prior_classes",
    ],
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


@pytest.mark.parametrize("name", ["nouns", "masks"])
def test_nouns_and_masks_are_one_for_each_reference(name: str) -> None:
    values = ["cup", "bowl"] if name == "nouns" else [IMAGE, IMAGE]
    body = {"references": [IMAGE, IMAGE], "noun": "cup"}
    assert getattr(CustomizeRequest.model_validate(body | {name: values}), name) == values
    with pytest.raises(ValidationError, match=f"{name}: are 1 for 2 references; give one for each"):
        CustomizeRequest.model_validate(body | {name: values[:1]})


def test_masks_stay_until_the_training_is_done() -> None:
    request = {"references": [IMAGE], "masks": [IMAGE.replace("0", "1")]}
    record = JobRecord(
        id="job_1", tenant="acme", kind="customize", request=request, created_at=1.0, queued_at=1.0
    )
    assert set(uses_of(record)) == {IMAGE, IMAGE.replace("0", "1")}
