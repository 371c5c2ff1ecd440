"""The executor by itself: its slots, its heartbeats, and what ends a job."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from redis.exceptions import ConnectionError as RedisConnectionError

import customedit
from customedit.config.settings import Settings
from customedit.errors import InputError
from customedit.jobs.journal import FINAL, Journal
from customedit.storage import object_keys
from customedit.storage.store import StorageError
from worker import executor as module
from worker.attempt import Attempt
from worker.executor import Executor
from worker.metrics import Metrics
from worker.problems import TransientError
from worker.speedometer import Speedometer

from .bench import Bench, until

Made = Callable[..., Executor]


class AtWork:
    """Stands for the work of jobs: each waits until it is let go."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.go: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def __call__(self, attempt: Attempt) -> Any:
        with self._lock:
            self.attempts.append(attempt)
            go = self.go.setdefault(attempt.stamp, threading.Event())
        assert go.wait(60)
        attempt.check()
        raise InputError("prompt", "is only a test")

    @property
    def ids(self) -> list[str]:
        return [a.id for a in self.attempts]

    def end(self, attempt: Attempt) -> None:
        self.go[attempt.stamp].set()

    def end_all(self) -> None:
        for go in self.go.values():
            go.set()


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[AtWork]:
    work = AtWork()
    for kind in ("edit", "customize", "import"):
        monkeypatch.setitem(module.PERFORM, kind, work)
    yield work
    work.end_all()


@pytest.fixture
def make(bench: Bench, tmp_path: Path) -> Iterator[Made]:
    """Executors on the bench's Redis and S3."""
    made: list[Executor] = []

    def one(notify: Callable[[str, str], None] = lambda *_: None, **changes: Any) -> Executor:
        runtime: Any = SimpleNamespace(
            settings=bench.settings.model_copy(update=changes), jobs=bench.jobs,
            storage=bench.storage, redis=bench.redis, journal=Journal(bench.storage),
            concept_records=bench.catalogue.concepts, metrics=Metrics(), scratch=tmp_path,
            engine=SimpleNamespace(), make_room=lambda: None, speedometer=Speedometer(),
        )  # fmt: skip
        executor = Executor(runtime, f"w{len(made)}", notify)
        executor.start()
        made.append(executor)
        return executor

    yield one
    for executor in made:
        executor.drain(0)
        executor.close()


def woken(executor: Executor) -> threading.Thread:
    thread = threading.Thread(target=executor.wake, daemon=True)
    thread.start()
    return thread


def test_a_worker_looks_for_jobs_by_itself(bench: Bench, at_work: AtWork, make: Made) -> None:
    make()
    job_id = bench.edit()  # the bench's notification is received by nobody
    until(lambda: at_work.ids == [job_id], "found")


def test_one_tenants_jobs_leave_a_slot_to_the_others(
    bench: Bench, at_work: AtWork, make: Made
) -> None:
    make(worker_concurrency=4)
    image = bench.image()
    for _ in range(9):
        bench.edit(image=image)
    until(lambda: len(at_work.attempts) == 3, "three slots taken")
    other = replace(bench, tenant="other")
    waiting = other.edit()
    until(lambda: waiting in at_work.ids, "the other one runs")
    assert at_work.ids.index(waiting) == 3 and len(at_work.attempts) == 4
    at_work.end(at_work.attempts[3])
    until(lambda: other.get(waiting).finished, "it ended")
    assert len(at_work.attempts) == 4  # its slot waits for another tenant again
    at_work.end(at_work.attempts[0])
    until(lambda: len(at_work.attempts) == 5, "the next of the many")


def test_trainings_that_a_busy_worker_cannot_take_go_to_an_idle_one_at_once(
    bench: Bench, at_work: AtWork, make: Made
) -> None:
    busy = make(worker_concurrency=2)
    first = bench.customize()
    until(lambda: at_work.ids == [first], "a training at work")
    second = bench.customize()
    assert busy.wake()  # its notification reaches the worker that has no slot for trainings
    assert bench.get(second).state == "queued"
    idle = make(worker_concurrency=2)
    until(lambda: at_work.ids == [first, second], "taken by the idle one", 10)
    assert bench.get(second).worker == idle.name
    edit = bench.edit()
    until(lambda: edit in at_work.ids, "edits still find a slot")


def test_a_full_worker_receives_no_more_until_a_slot_is_free(
    bench: Bench, at_work: AtWork, make: Made
) -> None:
    executor = make(worker_concurrency=2, worker_queues="edit")
    image = bench.image()
    made = [bench.edit(image=image) for _ in range(3)]
    until(lambda: len(at_work.attempts) == 2, "both slots taken")
    waiting = woken(executor)
    waiting.join(0.3)
    assert waiting.is_alive()
    at_work.end(at_work.attempts[0])
    until(lambda: len(at_work.attempts) == 3, "the third begins")
    assert at_work.ids == made
    waiting = woken(executor)
    executor.drain(0)
    waiting.join(10)
    assert not waiting.is_alive() and not executor.wake()


def test_what_a_worker_cannot_end_goes_back_and_others_are_notified(
    bench: Bench, at_work: AtWork, make: Made
) -> None:
    notified: list[tuple[str, str]] = []
    executor = make(lambda *job: notified.append(job))
    job_id = bench.edit()
    until(lambda: at_work.attempts, "at work")
    executor.drain(0)
    at_work.end_all()
    until(lambda: notified == [(job_id, "edit")], "notified")
    record = bench.get(job_id)
    assert (record.state, record.handed_back) == ("queued", 1)
    assert executor.finish(10)


def test_a_job_that_cannot_be_read_keeps_no_slot(
    bench: Bench, at_work: AtWork, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_next, broken = type(bench.jobs).claim_next, [True, True]

    def claims(*given: Any, **named: Any) -> Any:
        claim = claim_next(*given, **named)
        if claim is not None and broken:
            broken.pop()
            raise ValueError("a record that cannot be read")
        return claim

    monkeypatch.setattr(type(bench.jobs), "claim_next", claims)
    image = bench.image()
    for _ in range(4):
        bench.edit(image=image)
    make(worker_concurrency=2)
    until(lambda: len(at_work.attempts) == 2, "both slots are good for others")


def test_a_job_that_comes_again_before_it_has_gone_keeps_its_heartbeats(
    bench: Bench, at_work: AtWork, make: Made
) -> None:
    """A lease was lost, and the same worker claims the job while its former attempt winds down."""
    executor = make()
    job_id = bench.edit()
    until(lambda: len(at_work.attempts) == 1, "an attempt at work")
    space = bench.settings.namespace
    with bench.redis.pipeline() as both:
        both.hset(f"{space}:job:{job_id}", mapping={"state": "queued"})
        both.zrem(f"{space}:leases:edit", job_id)
        both.zadd(f"{space}:claimable:edit:{bench.tenant}", {job_id: 1})
        both.zadd(f"{space}:turns:edit", {bench.tenant: 0})
        both.execute()
    until(lambda: len(at_work.attempts) == 2, "a second attempt")
    first, second = at_work.attempts
    until(lambda: first.reason == "lost", "the first one lost its lease")
    at_work.end(first)
    until(lambda: list(executor.under_way.values()) == [second], "the first one gone")
    bench.jobs.cancel(bench.tenant, job_id)
    until(lambda: second.reason == "cancel", "the second one hears of it by its heartbeat")
    at_work.end(second)
    until(lambda: bench.get(job_id).state == "cancelled", "cancelled")
    until(lambda: not executor.under_way, "nothing left")


def test_a_device_that_failed_ends_the_worker_and_fails_no_job(
    bench: Bench, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[Exception] = []
    lost = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    full = torch.AcceleratorError("CUDA error: out of memory")
    image = bench.image()
    first = bench.edit(image=image)

    def perform(attempt: Attempt) -> Any:
        raise lost if attempt.id == first else full

    monkeypatch.setitem(module.PERFORM, "edit", perform)
    executor = make(lease_seconds=60.0)
    engine: Any = executor.runtime.engine
    engine.give_up = given_up.append
    until(lambda: given_up == [lost], "given up")
    assert bench.get(first).state == "running"  # until its lease is over: another worker's then
    failed = bench.finished(bench.edit(image=image))
    assert given_up == [lost]
    assert failed.error is not None and failed.error.type == "out-of-memory"


def test_a_full_disk_fails_no_job(
    bench: Bench, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def perform(attempt: Attempt) -> Any:
        tries.append(attempt.number)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(module.PERFORM, "edit", perform)
    job_id = bench.edit()
    executor = make(lease_seconds=60.0)
    until(lambda: tries == [1], "tried")
    until(lambda: not executor.under_way, "given up")
    assert bench.get(job_id).state == "running"  # its lease runs out, and another worker takes it
    with monkeypatch.context() as patch:
        patch.setattr(module, "free_scratch", lambda _: 0)
        second = bench.edit()
        assert executor.wake() and bench.get(second).state == "queued"


def test_of_ends_at_the_same_time_each_is_journaled_once(
    bench: Bench, at_work: AtWork, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, written, put = 8, list[str](), bench.storage.put
    together = threading.Barrier(count)

    def counted(key: str, *given: Any) -> None:
        if key.endswith(FINAL):
            written.append(key)
            together.wait(60)  # none is written before all of them have begun
        put(key, *given)

    monkeypatch.setattr(bench.storage, "put", counted)
    executor = make(worker_concurrency=count, worker_queues="edit", lease_seconds=60.0)
    image = bench.image()
    made = [bench.edit(image=image) for _ in range(count - 1)]
    until(lambda: len(at_work.attempts) == count - 1, "all slots taken but that for another tenant")
    made.append(replace(bench, tenant="other").edit())
    until(lambda: len(at_work.attempts) == count, "all at work")
    at_work.end_all()
    until(lambda: not executor.under_way, "all ended")
    assert bench.jobs.unjournaled() == []
    tenants = ["acme"] * (count - 1) + ["other"]
    expected = [object_keys.job(t, name, FINAL) for t, name in zip(tenants, made, strict=True)]
    assert sorted(written) == sorted(expected)


def test_the_last_slot_for_trainings_is_for_another_tenant(
    bench: Bench, at_work: AtWork, make: Made
) -> None:
    """Though half of all slots, those for edits, are free."""
    executor = make(worker_concurrency=8, lease_seconds=60.0)
    for _ in range(5):
        bench.customize()
    until(lambda: len(at_work.attempts) == 3, "three slots taken")
    assert executor.wake() and len(at_work.attempts) == 3
    other = replace(bench, tenant="other")
    waiting = other.customize()
    until(lambda: waiting in at_work.ids, "the other one's runs")
    assert at_work.ids.index(waiting) == 3
    edit = bench.edit()
    until(lambda: edit in at_work.ids, "and edits have their slots")
    assert len(at_work.attempts) == 5


@pytest.mark.parametrize(
    "error",
    [StorageError("S3 is away", transient=True), RedisConnectionError("Redis is away")],
    ids=["s3", "redis"],
)
def test_an_attempt_is_given_up_when_a_store_stays_away(
    bench: Bench, make: Made, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("worker.attempt.PATIENCE", 0.2)
    tries, ends = list[int](), list[Exception]()

    def away() -> None:
        tries.append(1)
        raise error

    def perform(attempt: Attempt) -> Any:
        try:
            attempt.with_retries(away)
        except TransientError as end:
            ends.append(end)
            raise

    monkeypatch.setitem(module.PERFORM, "edit", perform)
    job_id = bench.edit()
    executor = make(lease_seconds=60.0)
    until(lambda: ends and not executor.under_way, "given up")
    assert len(tries) > 1 and str(ends[0]) == str(error)
    assert bench.get(job_id).state == "running"  # its lease runs out, and another takes it


def test_a_request_of_a_newer_version_waits_for_a_newer_worker_and_fails_in_the_end(
    bench: Bench, make: Made
) -> None:
    settings = bench.settings.model_copy(update={"max_attempts": 2})
    poor = replace(bench, settings=settings, jobs=type(bench.jobs)(bench.jobs.client, settings))
    make()
    job_id = poor.edit(sharpen=0.5)
    record = poor.finished(job_id)
    assert (record.state, record.attempt, record.handed_back) == ("failed", 2, 0)
    assert record.error is not None
    assert (record.error.type, record.error.field) == ("older-worker", "sharpen")
    assert "older" in record.error.title and customedit.__version__ in record.error.detail
    events = ["queued", "running", "running", "failed"]  # it was left to other workers once
    assert poor.states(job_id) == events


def test_settings_alone_make_an_executor() -> None:
    runtime: Any = SimpleNamespace(settings=Settings(worker_concurrency=2))
    assert Executor(runtime, "w", lambda *_: None).under_way == {}
