"""A job's way from its claim to its end, in a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs.records import ConceptRecord, JobError, JobProgress, JobRecord
from customedit.jobs.store import (
    Jobs,
)
from customedit.tenants.catalogue import Catalogue

Make = Callable[..., JobRecord]
Training = Callable[..., tuple[JobRecord, ConceptRecord]]
ERROR = JobError(type="out-of-memory", title="Too large", detail="ask for less")


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
