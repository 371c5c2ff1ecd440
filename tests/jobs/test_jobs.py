"""A job's way from submit to its end, in a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs import notifications
from customedit.jobs.records import ConceptRecord, JobError, JobProgress, JobRecord, uses_of
from customedit.jobs.store import (
    Idempotency,
    IdempotencyConflict,
    IdempotencyInFlight,
    Jobs,
    Missing,
    NotFinished,
    QueueFull,
)
from customedit.schemas import ids
from customedit.tenants.catalogue import Catalogue

Make = Callable[..., JobRecord]
Training = Callable[..., tuple[JobRecord, ConceptRecord]]
ERROR = JobError(type="out-of-memory", title="Too large", detail="ask for less")


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
    assert isinstance(left, int) and 3600 < left <= 2 * 3600


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


def test_one_of_many_workers_gets_the_job(jobs: Jobs, job: Make) -> None:
    asked = jobs.submit(job()).record
    start = threading.Barrier(8)

    def claim(n: int) -> object:
        start.wait()
        return jobs.claim(asked.id, f"w{n}")

    with ThreadPoolExecutor(8) as pool:
        assert sum(c is not None for c in pool.map(claim, range(8))) == 1


def test_a_job_that_succeeds(jobs: Jobs, job: Make) -> None:
    asked = jobs.submit(job()).record
    claim = jobs.claim(asked.id, "w1")
    assert claim is not None
    assert (claim.record.state, claim.attempt, claim.record.worker) == ("running", 1, "w1")
    assert claim.record.lease_until == pytest.approx(jobs.now() + 30, abs=5)
    assert (jobs.queue_depths()["edit"], jobs.running()) == (0, 1)
    assert jobs.progress(claim, JobProgress(phase="edit", step=1, steps=4)) == "held"
    assert jobs.renew(claim) == "held"
    result = {"outputs": [], "x": 1.5, "deep": {"none": None}}
    assert jobs.commit(claim, result)
    assert jobs.commit(claim, result)  # its answer was lost, it is told again
    assert not jobs.fail(claim, ERROR)
    done = jobs.get("acme", asked.id)
    assert done is not None and done.finished
    assert (done.state, done.result, done.lease_until) == ("succeeded", result, None)
    assert done.progress == JobProgress(phase="edit", step=1, steps=4)
    assert asked.queued_at <= (done.started_at or 0) <= (done.finished_at or 0)
    assert (jobs.running(), jobs.open_jobs("acme"), jobs.overdue()) == (0, 0, [])
    assert jobs.claim(asked.id, "w2") is None
    assert jobs.unjournaled() == [asked.id]


def test_a_late_twin_loses(jobs: Jobs, job: Make, lapse: Callable[[str], None]) -> None:
    asked = jobs.submit(job()).record
    late = jobs.claim(asked.id, "w1")
    assert late is not None and jobs.claim(asked.id, "w2") is None
    lapse(asked.id)
    assert jobs.overdue() == [(asked.id, "edit")]
    twin = jobs.claim(asked.id, "w2")
    assert twin is not None and twin.attempt == 2 and twin.key() != late.key()
    assert jobs.leases_lost() == 1
    assert jobs.renew(late) == jobs.progress(late, JobProgress(phase="x")) == "lost"
    assert not jobs.commit(late, {"by": "late"})
    assert not jobs.fail(late, ERROR) and not jobs.cancelled(late) and not jobs.hand_back(late)
    assert jobs.commit(twin, {"by": "twin"})
    assert not jobs.commit(late, {"by": "late"})
    done = jobs.peek(asked.id)
    assert done is not None and done.result == {"by": "twin"}


def test_a_worker_that_was_slow_goes_on_if_nobody_came(
    jobs: Jobs, job: Make, lapse: Callable[[str], None]
) -> None:
    asked = jobs.submit(job()).record
    claim = jobs.claim(asked.id, "w1")
    assert claim is not None
    lapse(asked.id)
    assert jobs.renew(claim) == "held"
    assert jobs.claim(asked.id, "w2") is None
    lapse(asked.id)
    assert jobs.commit(claim, {})


def test_fencing_holds_even_if_an_attempt_is_counted_again(
    jobs: Jobs, job: Make, client: Redis, settings: Settings
) -> None:
    asked = jobs.submit(job()).record
    first = jobs.claim(asked.id, "w1")
    # Redis comes back without the claim: as after a power cut, or on a replica
    client.hset(f"{settings.namespace}:job:{asked.id}", mapping={"state": "queued", "attempt": 0})
    second = jobs.claim(asked.id, "w2")
    assert first is not None and second is not None and first.attempt == second.attempt
    assert first.key("a.png") != second.key("a.png")
    assert jobs.renew(first) == "lost" and not jobs.commit(first, {})
    assert jobs.renew(second) == "held" and jobs.commit(second, {})


def test_a_job_begun_too_often_fails(jobs: Jobs, job: Make, lapse: Callable[[str], None]) -> None:
    asked = jobs.submit(job()).record
    for attempt in range(1, 6):
        claim = jobs.claim(asked.id, "w")
        assert claim is not None and claim.attempt == attempt
        lapse(asked.id)
    assert jobs.claim(asked.id, "w") is None
    done = jobs.peek(asked.id)
    assert done is not None and done.state == "failed" and done.error is not None
    assert done.error.type == "attempts-exhausted"
    assert jobs.events("acme", asked.id)[-1].data["error"]["type"] == "attempts-exhausted"


def test_handing_back_does_not_count(jobs: Jobs, job: Make) -> None:
    asked = jobs.submit(job()).record
    for attempt in range(1, 12):
        claim = jobs.claim(asked.id, "w")
        assert claim is not None and claim.attempt == attempt
        assert jobs.hand_back(claim) and jobs.hand_back(claim)
        assert jobs.renew(claim) == "lost"
    record = jobs.peek(asked.id)
    assert record is not None
    assert (record.state, record.handed_back, record.worker) == ("queued", 11, None)
    assert jobs.overdue() == [(asked.id, "edit")]  # at once


def test_cancelling(jobs: Jobs, job: Make, lapse: Callable[[str], None]) -> None:
    queued, running, left, back = (jobs.submit(job()).record for _ in range(4))
    assert jobs.cancel("other", queued.id) is None
    done = jobs.cancel("acme", queued.id)
    assert done is not None and done.state == "cancelled"
    assert jobs.claim(queued.id, "w") is None

    claim = jobs.claim(running.id, "w")
    assert claim is not None
    asked = jobs.cancel("acme", running.id)
    assert asked is not None and (asked.state, asked.cancel_requested) == ("running", True)
    assert jobs.renew(claim) == jobs.progress(claim, JobProgress(phase="x")) == "cancel"
    assert jobs.cancelled(claim) and jobs.cancelled(claim)
    assert not jobs.commit(claim, {})
    again = jobs.cancel("acme", running.id)
    assert again is not None and again.state == "cancelled" and again.result is None

    assert jobs.claim(left.id, "w") is not None  # and its worker dies
    jobs.cancel("acme", left.id)
    lapse(left.id)
    assert jobs.claim(left.id, "w2") is None
    record = jobs.peek(left.id)
    assert record is not None and record.state == "cancelled"

    claim = jobs.claim(back.id, "w")
    assert claim is not None
    jobs.cancel("acme", back.id)
    assert jobs.hand_back(claim)
    record = jobs.peek(back.id)
    assert record is not None and record.state == "cancelled"


def test_a_concept_shares_its_jobs_end(
    jobs: Jobs, catalogue: Catalogue, training: Training
) -> None:
    for way, state in (("commit", "ready"), ("fail", "failed"), ("cancel", "failed")):
        record, concept = training()
        jobs.submit(record, concept=concept)
        kept = catalogue.concepts.get("acme", concept.id)
        assert kept == concept and kept.state == "training"
        assert catalogue.concepts.get("other", concept.id) is None
        if way == "cancel":
            jobs.cancel("acme", record.id)
        else:
            claim = jobs.claim(record.id, "w")
            assert claim is not None
            told = concept.model_copy(update={"bytes": 5, "recipe": {"empty": [], "r": 1e-4}})
            ended = (
                jobs.commit(claim, {}, concept=told) if way == "commit" else jobs.fail(claim, ERROR)
            )
            assert ended
        kept = catalogue.concepts.get("acme", concept.id)
        assert kept is not None and kept.state == state
        assert way != "commit" or kept == told.model_copy(update={"state": "ready"})


def test_a_lost_commit_leaves_the_concept_alone(
    jobs: Jobs, catalogue: Catalogue, training: Training, lapse: Callable[[str], None]
) -> None:
    record, concept = training()
    jobs.submit(record, concept=concept)
    late = jobs.claim(record.id, "w1")
    lapse(record.id)
    assert late is not None and jobs.claim(record.id, "w2") is not None
    assert not jobs.commit(late, {}, concept=concept.model_copy(update={"bytes": 9}))
    assert catalogue.concepts.get("acme", concept.id) == concept
    with pytest.raises(ValueError, match="is not the concept"):
        jobs.commit(late, {}, concept=concept.model_copy(update={"tenant": "other"}))


def test_lists_are_newest_first_and_stable_under_inserts(
    jobs: Jobs, job: Make, training: Training
) -> None:
    record, concept = training()
    jobs.submit(record, concept=concept)
    made = [record.id]
    for n in range(9):
        request = {"concepts": [{"id": concept.id}]} if n % 3 == 0 else {}
        made.append(jobs.submit(job(request=request)).record.id)
    jobs.submit(job(tenant="other"))
    newest = sorted(made, reverse=True)
    seen: list[str] = []
    cursor = None
    while True:
        page = jobs.list("acme", cursor=cursor, limit=4)
        seen += [r.id for r in page.items]
        if (cursor := page.next_cursor) is None:
            break
        jobs.submit(job())
    assert seen == newest
    assert len(jobs.list("acme", kind="customize").items) == 1
    assert len(jobs.list("acme", concept=concept.id).items) == 4
    jobs.cancel("acme", made[0])
    assert [r.id for r in jobs.list("acme", state="cancelled").items] == [made[0]]
    assert made[0] not in [r.id for r in jobs.list("acme", state="queued").items]
    assert jobs.list("acme", state="running").items == []
    page = jobs.list("acme", concept=concept.id, kind="edit", limit=3)
    assert len(page.items) == 3 and page.next_cursor is None


def test_a_list_goes_on_behind_what_does_not_fit(
    jobs: Jobs, job: Make, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("customedit.jobs.store._SCAN", 3)
    record, concept = training()
    jobs.submit(record, concept=concept)
    for _ in range(10):
        jobs.submit(job())
    assert [r.id for r in jobs.list("acme", kind="customize").items] == [record.id]
    assert len(jobs.list("acme", limit=50).items) == 11


def test_lists_by_kind_state_and_concept_are_the_plain_filter(
    jobs: Jobs, job: Make, training: Training, client: Redis, settings: Settings
) -> None:
    """Whichever index is looked through, and for jobs of a version that had none by kind."""
    for n in range(12):
        if n % 4 == 0:
            record, concept = training()
            jobs.submit(record, concept=concept)
        else:
            jobs.submit(job(kind="import" if n == 7 else "edit", request={}))
    for _ in range(3):  # of jobs that name a concept
        jobs.submit(job(request={"concepts": [{"id": concept.id}]}))
    every = [r.id for r in jobs.list("acme").items]
    for name in every[::3]:
        jobs.cancel("acme", name)
    assert jobs.delete("acme", every[0])
    records = jobs.list("acme").items
    space = settings.namespace

    def by_pages(limit: int, **which: Any) -> list[str]:
        pages = [jobs.list("acme", limit=limit, **which)]
        while pages[-1].next_cursor is not None:
            pages.append(jobs.list("acme", limit=limit, cursor=pages[-1].next_cursor, **which))
        assert all(len(page.items) == limit for page in pages[:-1]), which
        return [record.id for page in pages for record in page.items]

    def check() -> None:
        for kind in ("edit", "customize", "import"):
            for state in (None, "queued", "cancelled", "failed"):
                expected = [r.id for r in records if r.kind == kind and state in (None, r.state)]
                found = jobs.list("acme", kind=kind, state=state, limit=50).items
                assert [r.id for r in found] == expected, (kind, state)
                for limit in (1, 3):
                    assert by_pages(limit, kind=kind, state=state) == expected, (kind, state)
                using = [r.id for r in found if concept.id in uses_of(r)]
                found = jobs.list("acme", kind=kind, state=state, concept=concept.id).items
                assert [r.id for r in found] == using, (kind, state)
        assert jobs.list("acme", concept=ids.new("con")).items == []

    check()
    client.delete(*(f"{space}:jobs:acme:{kind}" for kind in ("edit", "customize", "import")))
    client.delete(f"{space}:jobs:acme:{concept.id}")
    client.delete(f"{space}:indexed:acme")
    check()


def test_only_finished_jobs_are_deleted(jobs: Jobs, job: Make, client: Redis) -> None:
    asked = jobs.submit(job(webhook="https://example.com")).record
    with pytest.raises(NotFinished):
        jobs.delete("acme", asked.id)
    jobs.cancel("acme", asked.id)
    assert not jobs.delete("other", asked.id)
    assert jobs.delete("acme", asked.id) and not jobs.delete("acme", asked.id)
    assert jobs.peek(asked.id) is None and jobs.list("acme").items == []
    folder = f"tenants/acme/jobs/{asked.id}/"
    assert jobs.folders_to_delete() == [folder]
    jobs.folder_deleted(folder)
    left = [k for k in client.scan_iter(f"{jobs.settings.namespace}:*") if asked.id in k]
    assert (jobs.folders_to_delete(), jobs.unjournaled(), left) == ([], [], [])


def test_workers_are_notified_of_a_queued_job_again_and_then_less_often(
    jobs: Jobs, job: Make, client: Redis, settings: Settings
) -> None:
    asked = jobs.submit(job()).record
    wakeups = f"{settings.namespace}:wakeups"
    assert jobs.overdue() == []
    waits = []
    for _ in range(7):
        client.zadd(wakeups, {asked.id: 1.0})
        assert jobs.overdue() == [(asked.id, "edit")] and jobs.overdue() == []
        waits.append(round((client.zscore(wakeups, asked.id) or 0) - jobs.now()))
    assert waits == [15, 30, 60, 120, 240, 240, 240]
    claim = jobs.claim(asked.id, "w")
    assert claim is not None
    assert round((client.zscore(wakeups, asked.id) or 0) - jobs.now()) == 30  # the lease


def test_depths_and_ages(jobs: Jobs, job: Make, training: Training) -> None:
    assert jobs.oldest_queued_age("edit") == 0
    first = jobs.submit(job()).record
    jobs.submit(job())
    record, concept = training()
    jobs.submit(record, concept=concept)
    assert jobs.queue_depths() == {"edit": 2, "customize": 1, "import": 0}
    age = jobs.oldest_queued_age("edit")
    assert 0 < age <= jobs.now() - first.queued_at
