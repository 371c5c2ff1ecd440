"""Jobs as they are submitted: records, messages, limits of the queue, idempotency keys."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs import notifications
from customedit.jobs.records import ConceptRecord, JobRecord
from customedit.jobs.store import (
    Idempotency,
    IdempotencyConflict,
    IdempotencyInFlight,
    Jobs,
    Missing,
    QueueFull,
)
from customedit.schemas import ids
from customedit.tenants.catalogue import Catalogue

Make = Callable[..., JobRecord]
Training = Callable[..., tuple[JobRecord, ConceptRecord]]


def test_a_submitted_job_is_queued_with_all_that_was_asked(jobs: Jobs, job: Make) -> None:
    asked = job(
        request={"seeds": [], "guidance": 7.25, "seed": 2**53 - 1, "p2p": {"words": {}}, "ü": "ß"},
        webhook="https://example.com/h",
        traceparent="00-1-2-01",
    )
    made = jobs.submit(asked)
    assert not made.replayed
    assert made.record == asked.model_copy(update={"queued_at": made.record.queued_at})
    assert jobs.get("acme", asked.id) == made.record == jobs.peek(asked.id)
    assert jobs.get("other", asked.id) is None
    assert jobs.get("acme", ids.new("job")) is None


def test_the_message_that_wakes_a_worker_comes_with_the_job_and_once(
    jobs: Jobs, job: Make, client: Redis
) -> None:
    queue = notifications.queue(jobs.settings, "edit")
    jobs.submit(job())
    assert client.llen(queue) == 0
    asked = job()
    for _ in range(2):
        assert jobs.submit(asked, message="a").notified
    batch = [job(batch="bat_1", batch_place=place) for place in range(2)]
    for _ in range(2):
        assert jobs.submit_batch(batch, messages=["b", "c"]).notified
    assert sorted(map(str, client.lrange(queue, 0, -1))) == ["a", "b", "c"]


def test_a_queue_that_cannot_be_written_keeps_no_job_from_being_made(
    jobs: Jobs, job: Make, client: Redis
) -> None:
    client.set(notifications.queue(jobs.settings, "edit"), "no list")
    asked = job()
    assert not jobs.submit(asked, message="a").notified
    batch = [job(batch="bat_1", batch_place=place) for place in range(2)]
    assert not jobs.submit_batch(batch, messages=["b", "c"]).notified
    assert len(jobs.list("acme").items) == 3


def test_submitting_the_same_job_again_changes_nothing(jobs: Jobs, job: Make) -> None:
    asked = job()
    jobs.submit(asked)
    claim = jobs.claim(asked.id, "w")
    assert claim is not None
    again = jobs.submit(asked)
    assert (again.record.state, again.replayed) == ("running", False)
    assert len(jobs.list("acme").items) == jobs.open_jobs("acme") == 1
    assert [e.data["state"] for e in jobs.events("acme", asked.id)] == ["queued", "running"]


def test_the_queue_of_a_tenant_is_limited(client: Redis, settings: Settings, job: Make) -> None:
    jobs = Jobs(client, settings.model_copy(update={"queue_limit_per_tenant": 2}))
    first = jobs.submit(job()).record
    jobs.submit(job())
    refused = job()
    with pytest.raises(QueueFull) as error:
        jobs.submit(refused)
    assert error.value.limit == 2
    assert jobs.peek(refused.id) is None
    jobs.submit(job(tenant="other"))
    jobs.cancel("acme", first.id)
    jobs.submit(refused)


def test_a_batch_may_fill_the_queue_and_not_more(
    client: Redis, settings: Settings, job: Make
) -> None:
    jobs = Jobs(client, settings.model_copy(update={"queue_limit_per_tenant": 4}))
    jobs.submit(job())

    def batch(count: int) -> list[JobRecord]:
        name = ids.new("bat")
        return [job(batch=name, batch_place=place) for place in range(count)]

    refused = batch(4)
    with pytest.raises(QueueFull) as error:
        jobs.submit_batch(refused)
    assert error.value.limit == 4
    assert [jobs.peek(record.id) for record in refused] == [None] * 4  # none of them is made
    jobs.submit_batch(batch(3))
    assert jobs.open_jobs("acme") == 4
    with pytest.raises(QueueFull):
        jobs.submit_batch(batch(1))


@pytest.mark.parametrize("batched", [False, True], ids=["job", "batch"])
def test_an_idempotency_key_lives_for_hours(
    client: Redis, settings: Settings, job: Make, batched: bool
) -> None:
    jobs = Jobs(client, settings.model_copy(update={"idempotency_hours": 2}))
    key = Idempotency.of("k", [1])
    assert jobs.reserve("acme", key) is None  # which holds it for seconds alone
    if batched:
        jobs.submit_batch([job(batch=ids.new("bat"), batch_place=0)], key)
    else:
        jobs.submit(job(), idempotency=key)
    (name,) = client.scan_iter(f"{settings.namespace}:idem:acme:*")
    left = client.ttl(name)
    assert 3600 < left <= 2 * 3600


def test_what_a_job_uses_must_be_the_tenants(
    jobs: Jobs, job: Make, training: Training, catalogue: Catalogue, picture: Callable[..., object]
) -> None:
    image = catalogue.put_image(picture(b"1"))  # type: ignore[arg-type]
    assert image is not None
    made, concept = training(tenant="other")
    jobs.submit(made, concept=concept)
    fine = job(request={"image": image.id, "references": [image.id]})
    jobs.submit(fine)
    for request in (
        {"image": ids.of_image(b"2")},
        {"mask": ids.of_image(b"2"), "image": image.id},
        {"concepts": [{"id": concept.id}]},
        {"references": [image.id, ids.of_image(b"3")]},
    ):
        with pytest.raises(Missing):
            jobs.submit(job(request=request))
    with pytest.raises(Missing) as error:
        jobs.submit(job(tenant="other", request={"image": image.id}))
    assert error.value.id == image.id
    jobs.submit(job(tenant="other", request={"concepts": [{"id": concept.id}]}))


def test_an_idempotency_key_makes_one_job(jobs: Jobs, job: Make) -> None:
    key = Idempotency.of("k" * 300, {"a": 1})
    first = jobs.submit(job(), idempotency=key)
    second = jobs.submit(job(), idempotency=Idempotency.of("k" * 300, {"a": 1}))
    assert second.replayed and second.record == first.record
    with pytest.raises(IdempotencyConflict):
        jobs.submit(job(), idempotency=Idempotency.of("k" * 300, {"a": 2}))
    assert not jobs.submit(job(tenant="other"), idempotency=key).replayed
    assert len(jobs.list("acme").items) == 1


def test_a_reserved_key_keeps_others_out_until_it_is_used_or_released(
    jobs: Jobs, job: Make
) -> None:
    mine, theirs = Idempotency.of("k", [1]), Idempotency.of("k", [1])
    assert jobs.reserve("acme", mine) is None
    assert jobs.reserve("acme", mine) is None  # a lost answer, asked for again
    for call in (jobs.reserve, lambda t, k: jobs.submit(job(), idempotency=k)):
        with pytest.raises(IdempotencyInFlight):
            call("acme", theirs)
    with pytest.raises(IdempotencyConflict):
        jobs.reserve("acme", Idempotency.of("k", [2]))
    jobs.release("acme", theirs)  # not theirs to release
    with pytest.raises(IdempotencyInFlight):
        jobs.reserve("acme", theirs)
    jobs.release("acme", mine)
    assert jobs.reserve("acme", theirs) is None
    made = jobs.submit(job(), idempotency=theirs).record
    jobs.release("acme", theirs)  # used: stays
    assert jobs.reserve("acme", mine) == made


def test_many_at_once_with_one_key_make_one_job(jobs: Jobs, job: Make) -> None:
    start = threading.Barrier(8)

    def submit(_: int) -> str:
        start.wait()
        return jobs.submit(job(), idempotency=Idempotency.of("k", {})).record.id

    def attempt(n: int) -> str | None:
        try:
            return submit(n)
        except IdempotencyInFlight:
            return None

    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(attempt, range(8))) - {None}
    assert len(names) == len(jobs.list("acme").items) == 1
