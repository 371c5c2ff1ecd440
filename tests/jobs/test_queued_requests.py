"""Requests of queued jobs, between an API and workers of different versions."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import Field

from customedit.jobs.queued_requests import (
    OtherVersionError,
    kept_document,
    left_out,
    read_request,
)
from customedit.jobs.records import JobRecord
from customedit.schemas import ids
from customedit.schemas.concepts import CustomizeRequest, TrainingOptions
from customedit.schemas.fields import RequestModel
from customedit.schemas.methods import SDEditOptions
from customedit.schemas.requests import ConceptUse, EditRequest

IMAGE = "img_" + "0" * 64
CONCEPT = "con_" + "0" * 26
GIVEN: dict[str, Any] = {
    "image": IMAGE, "source_prompt": "a white cup", "target_prompt": "a red cup",
}  # fmt: skip
TRAINED: dict[str, Any] = {"references": [IMAGE], "noun": "cup"}


def queued(request: RequestModel) -> JobRecord:
    """As the API queues it, and as a worker gets it out of Redis."""
    record = JobRecord(
        id=ids.new("job"), tenant="acme", kind="edit", created_at=1.0, queued_at=1.0,
        request=kept_document(request), left_out=left_out(request),
    )  # fmt: skip
    return JobRecord.model_validate_json(record.model_dump_json())


class NewerUse(ConceptUse):
    depth: float = 0.0


class NewerEdit(EditRequest):
    """The edits of a version with more."""

    concepts: list[NewerUse] = Field([])  # type: ignore[assignment]
    sharpen: float = 0.0
    tone: str | None = None


class NewerOptions(TrainingOptions):
    warm_up: int = 10


class NewerCustomize(CustomizeRequest):
    training: NewerOptions = NewerOptions()


class LaterEdit(EditRequest):
    """The edits of a version with another default, and with a method more."""

    steps: int = 30
    method: Literal["p2p", "sdedit", "brush"] = "p2p"  # type: ignore[assignment]


def test_what_was_not_given_is_named_and_kept() -> None:
    request = EditRequest(**GIVEN, steps=20, concepts=[ConceptUse(id=CONCEPT)], p2p={})  # type: ignore[arg-type]
    record = queued(request)
    assert {"method", "seeds", "guidance_start", "concepts[0].weight"} <= set(record.left_out)
    assert not {"image", "steps", "concepts", "p2p", "change"} & set(record.left_out)
    assert record.request["steps"] == 20 and record.request["seeds"] == [0]
    assert read_request(record, EditRequest) == request


def test_an_added_field_at_its_default_fails_no_older_worker() -> None:
    newer = NewerEdit(**GIVEN, steps=20, concepts=[NewerUse(id=CONCEPT, weight=0.5)])
    assert read_request(queued(newer), EditRequest) == EditRequest(
        **GIVEN, steps=20, concepts=[ConceptUse(id=CONCEPT, weight=0.5)]
    )
    for options in (NewerOptions(), NewerOptions(steps=7)):
        read = read_request(queued(NewerCustomize(**TRAINED, training=options)), CustomizeRequest)
        assert read == CustomizeRequest(**TRAINED, training=TrainingOptions(steps=options.steps))


def test_a_default_that_changes_changes_no_queued_job() -> None:
    assert read_request(queued(EditRequest(**GIVEN)), LaterEdit).steps == 50
    assert read_request(queued(LaterEdit(**GIVEN)), EditRequest).steps == 30


@pytest.mark.parametrize(
    ("request_", "kind", "field"),
    [
        (NewerEdit(**GIVEN, sharpen=0.5), EditRequest, "sharpen"),
        (NewerEdit(**GIVEN, concepts=[NewerUse(id=CONCEPT, depth=1)]), EditRequest,
         "concepts[0].depth"),
        (NewerCustomize(**TRAINED, training=NewerOptions(warm_up=3)), CustomizeRequest,
         "training.warm_up"),
        (LaterEdit(**GIVEN, method="brush"), EditRequest, "method"),
    ],
)  # fmt: skip
def test_what_was_given_and_is_not_known_is_named(
    request_: RequestModel, kind: type[RequestModel], field: str
) -> None:
    with pytest.raises(OtherVersionError) as caught:
        read_request(queued(request_), kind)
    assert caught.value.field == field


class EarlierEdit(RequestModel):
    """The edits of a version in which SDEdit had no settings, as far as they are given here."""

    image: str
    source_prompt: str = ""
    target_prompt: str
    method: Literal["p2p", "sdedit"] = "p2p"


@pytest.mark.parametrize(
    ("more", "over"),
    [({}, "none"), ({"mask": IMAGE}, "mask"), ({"source_prompt": ""}, None)],
)
def test_an_sdedit_that_an_earlier_version_queued_is_what_it_was(
    more: dict[str, Any], over: str | None
) -> None:
    """It painted everywhere, or within its mask, whatever words it was given."""
    request = EditRequest(**GIVEN | {"method": "sdedit"} | more)
    record = queued(request)
    earlier = record.model_copy(
        update={"request": {n: v for n, v in record.request.items() if n != "sdedit"}}
    )
    read = read_request(earlier, EditRequest)
    assert (read.sdedit and read.sdedit.blend_over) == over
    assert read_request(record, EditRequest).sdedit == (SDEditOptions() if over else None)
    settings = SDEditOptions(threshold=0.4)
    given = EditRequest(**GIVEN | {"method": "sdedit", "sdedit": settings})
    assert read_request(queued(given), EditRequest) == given


def test_an_sdedit_with_a_region_is_left_to_workers_that_know_it() -> None:
    with pytest.raises(OtherVersionError) as caught:
        read_request(queued(EditRequest(**GIVEN, method="sdedit")), EarlierEdit)
    assert caught.value.field == "sdedit"
    free = GIVEN | {"method": "sdedit", "source_prompt": ""}
    assert read_request(queued(EditRequest(**free)), EarlierEdit) == EarlierEdit(**free)
