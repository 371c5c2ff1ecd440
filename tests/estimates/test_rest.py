"""What is left of a job's work at each of its phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from customedit.estimates.work import (
    PHASES,
    PORTRAIT_STEPS,
    Stage,
    Work,
    customize_work,
    edit_work,
    import_work,
    training_label,
)
from customedit.jobs.records import JobProgress
from customedit.schemas.concepts import CustomizeRequest

from .test_simulation import request

TRAINING: dict[str, Any] = {
    "way": "custom-diffusion", "batch": 2, "steps": 100, "crops": 4, "preview_every": 25,
    "class_images": 16, "class_steps": 30,
}  # fmt: skip
LABEL = training_label(TRAINING)
ENCODE = Stage("encode", 3, label=LABEL)  # three references
CLASSES = Stage("class images", 60, 16, 256)
STEPS, SHOWN = Stage("train", 100, label=LABEL), Stage("train", 4 * PORTRAIT_STEPS, 2, 256)
PORTRAIT = Stage("preview", PORTRAIT_STEPS, 2, 256)


def training(*, class_images: bool = False, **changed: Any) -> Work:
    """The work of a training on three references. class_images: whether they are there."""
    references = ["img_" + str(number) * 64 for number in range(3)]
    asked = CustomizeRequest.model_validate({"references": references, "noun": "cup"})
    return customize_work(asked, TRAINING | changed, 256, class_images=class_images)


def at(phase: str, step: int = 0, steps: int = 0) -> JobProgress:
    return JobProgress(phase=phase, step=step, steps=steps)


def rounds(work: Work) -> list[tuple[str, float]]:
    return [(stage.phase, stage.rounds) for stage in work.stages]


def test_the_work_of_a_training() -> None:
    assert training().stages == (ENCODE, CLASSES, STEPS, SHOWN, PORTRAIT)
    assert training(class_images=True).stages == (ENCODE, STEPS, SHOWN, PORTRAIT)
    plain = training(class_images=True, preview_every=0)
    assert plain.stages == (ENCODE, STEPS, PORTRAIT)


@pytest.mark.parametrize("kept", [False, True])
def test_what_is_left_of_a_training(kept: bool) -> None:
    """kept: whether its worker has the class images, which it may have drawn for this training."""
    work = training(class_images=kept)
    drawn = () if kept else (CLASSES,)
    for begins in (None, at("fetch"), at("train")):
        assert work.rest(begins) == work
    after = (*drawn, STEPS, SHOWN, PORTRAIT)
    assert [s for s in work.rest(at("encode", 1, 1)).stages if s.rounds] == list(after)
    half = work.rest(at("class images", 8, 16))
    assert half.stages[-3:] == (STEPS, SHOWN, PORTRAIT)
    assert rounds(half)[:-3] == [("class images", 30)] * len(drawn)
    most = work.rest(at("train", 75, 100))
    assert rounds(most) == [("train", 25), ("train", PORTRAIT_STEPS), ("preview", PORTRAIT_STEPS)]
    assert work.rest(at("preview")).stages == (PORTRAIT,)
    assert rounds(work.rest(at("preview", 5, PORTRAIT_STEPS))) == [("preview", PORTRAIT_STEPS - 5)]
    assert work.rest(at("upload")).stages == ()


def test_what_is_left_of_an_edit() -> None:
    work = edit_work(request(), 256, inverted=False)
    assert rounds(work.rest(at("edit", 25, 50))) == [("edit", 25)]
    assert work.rest(at("measure")).stages == work.rest(at("upload")).stages == ()
    assert work.rest(None) == work.rest(at("fetch")) == work.rest(at("invert")) == work
    found = edit_work(request(), 256, inverted=True)
    assert [s.phase for s in found.stages] == ["edit"]
    assert found.rest(at("invert")) == found  # it reads what is there
    null_text = edit_work(request(inversion="null-text", steps=10), 256, inverted=False)
    half = null_text.rest(at("null-text", 5, 10))
    assert rounds(half) == [("null-text", 10), ("null-text", 50), ("edit", 10)]


@pytest.mark.parametrize("work", [
    training(), training(class_images=True),
    edit_work(request(), 256, inverted=True),
    edit_work(request(inversion="null-text"), 256, inverted=False),
    import_work(256),
])  # fmt: skip
def test_the_rest_only_becomes_less(work: Work) -> None:
    """From phase to phase and from step to step; a phase that is not known takes nothing off."""
    course: Sequence[JobProgress] = [
        at(phase, step, 4) for phase in PHASES[work.kind] for step in range(1, 5)
    ]
    left = [sum(stage.rounds for stage in work.rest(progress).stages) for progress in course]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
    assert {stage.phase for stage in work.stages} <= set(PHASES[work.kind])
    assert work.rest(at("of a later version", 1, 2)) == work
