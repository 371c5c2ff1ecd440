"""Two requests with one idempotency key, the first of which is so slow that its hold on it ends."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from redis import Redis

from api.submission import Submission, submit, submit_batch
from customedit.jobs.records import ConceptRecord
from customedit.jobs.recovery import recover
from customedit.jobs.store import Submitted
from customedit.schemas import ids
from customedit.schemas.concepts import CustomizeRequest, ImportRequest
from customedit.schemas.requests import BatchRequest, EditRequest
from customedit.storage import object_keys
from customedit.storage.store import Storage

from .conftest import Running, upload

Made = Callable[[str], Submission]


def of_concept(job: str) -> ConceptRecord:
    return ConceptRecord(id=ids.new("con"), tenant="anna", job=job, token="<a>", created_at=1.0)


def an_edit(image: str) -> Submission:
    words = {"source_prompt": "a cup", "target_prompt": "a red cup"}
    request = EditRequest.model_validate({"image": image, **words})
    return Submission("anna", "edit", request, "k")


def a_training(image: str) -> Submission:
    job = ids.new("job")
    request = CustomizeRequest.model_validate({"references": [image], "noun": "cup"})
    return Submission("anna", "customize", request, "k", concept=of_concept(job), id=job)


def an_import(_: str) -> Submission:
    job, file = ids.new("job"), io.BytesIO(b"weights")
    request = ImportRequest(token="<a>", noun="cup", file=object_keys.given("anna", job), bytes=7)
    return Submission(
        "anna",
        "import",
        request,
        "k",
        contents="digest",
        concept=of_concept(job),
        file=file,
        id=job,
    )


@pytest.fixture
def end_hold(redis_client: Redis, api: Running) -> Callable[[], None]:
    """Ends the hold of each key for which no job is made yet."""

    def end() -> None:
        for key in redis_client.scan_iter(f"{api.settings.namespace}:idem:anna:*"):
            if not redis_client.hexists(key, "job"):
                redis_client.delete(key)

    return end


def files(storage: Storage) -> list[str]:
    folders = (object_keys.jobs("anna"), object_keys.concepts("anna"))
    return sorted(stored.key for folder in folders for stored in storage.list(folder))


@pytest.mark.parametrize("make", [an_edit, a_training, an_import])
def test_a_request_that_was_overtaken_leaves_no_files(
    make: Made, api: Running, anna: httpx.Client, storage: Storage, redis_client: Redis,
    end_hold: Callable[[], None],
) -> None:  # fmt: skip
    """It is answered with the other's job, whose files stay, and stays the one job of the key."""
    image = upload(anna)
    winners, wrote = list[Submitted](), list[list[str]]()

    def overtaken(by: Submission) -> None:
        end_hold()
        winners.append(submit(api.container, by))
        wrote.append(files(storage))

    last = make(image)
    between = replace(make(image), check=lambda: overtaken(last))
    first = replace(make(image), check=lambda: overtaken(between))
    answer = submit(api.container, first)
    made, replayed = winners
    assert not made.replayed and made.record.id == last.id
    assert replayed.replayed and answer.replayed
    assert answer.record == replayed.record == made.record
    assert files(storage) == wrote[0] and wrote[0]  # neither of the two others left any
    assert all(last.id in key or (last.concept and last.concept.id in key) for key in wrote[0])
    for loser in (between, first):
        assert not api.container.jobs.exists(loser.id)
        concept = loser.concept
        assert concept is None or api.container.concepts.get("anna", concept.id) is None

    for key in redis_client.scan_iter(f"{api.settings.namespace}:*"):
        redis_client.delete(key)
    assert recover(redis_client, storage, api.settings).queued == 1
    assert api.container.jobs.exists(last.id)


def test_a_batch_that_was_overtaken_leaves_no_files(
    api: Running, anna: httpx.Client, storage: Storage, end_hold: Callable[[], None]
) -> None:
    images = [upload(anna, colour) for colour in ("red", "blue")]
    words = {"source_prompt": "a cup", "target_prompt": "a pink cup"}
    request = BatchRequest.model_validate({"images": images, **words})
    winners, wrote = list[Submitted](), list[list[str]]()

    def overtaken(_: EditRequest) -> None:
        if not winners:
            end_hold()
            winners.append(submit_batch(api.container, "anna", request, "k", lambda _: None))
            wrote.append(files(storage))

    answer = submit_batch(api.container, "anna", request, "k", overtaken)
    (made,) = winners
    assert answer.replayed and not made.replayed and answer.record == made.record
    assert files(storage) == wrote[0] and len(wrote[0]) == len(images)
    assert len(anna.get("/v1/jobs").json()["items"]) == len(images)
