"""The desk by itself: no bell is lost there, and every attempt keeps its pulse."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from customedit.config.settings import Settings
from customedit.jobs.journal import Journal
from worker import executor as executors
from worker.attempt import Attempt
from worker.executor import Executor
from worker.metrics import Metrics

from .bench import Bench, until


class Taking(Executor):
    """A desk whose jobs do nothing, or wait for ``go``."""

    def __init__(self, concurrency: int) -> None:
        self.taken: list[str] = []
        self.notified: list[tuple[str, str]] = []
        self.go = threading.Event()
        self.go.set()
        runtime: Any = SimpleNamespace(settings=Settings(worker_concurrency=concurrency))
        super().__init__(runtime, "w", lambda *notification: self.notified.append(notification))

    def _take(self, job_id: str) -> None:
        self.taken.append(job_id)
        assert self.go.wait(30)


@pytest.fixture
def executor() -> Iterator[Taking]:
    made = Taking(2)
    yield made
    made.go.set()
    made.close()


def test_who_comes_while_the_last_one_leaves_is_served(executor: Taking) -> None:
    leave, come = executor._next_waiting, []

    def leaving() -> str | None:
        found = leave()
        if found is None and not come:
            come.append(threading.Thread(target=executor.notify, args=["late", "customize"]))
            come[0].start()
            come[0].join()
        return found

    executor._next_waiting = leaving  # type: ignore[method-assign]
    executor.notify("first", "customize")
    assert executor.taken == ["first", "late"]


def test_what_cannot_be_taken_up_keeps_no_slot(
    executor: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(job_id: str) -> None:
        raise ValueError("a record that cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(executor, "_take", broken)
        executor.notify("odd", "customize")
    executor.notify("fine", "customize")
    assert executor.taken == ["fine"]


def test_who_waits_when_the_worker_goes_is_rung_for_elsewhere(executor: Taking) -> None:
    executor.go.clear()
    training = threading.Thread(target=executor.notify, args=["first", "customize"])
    training.start()
    until(lambda: executor.taken, "a training at work")
    executor.notify("second", "import")
    executor.notify("second", "import")
    executor.drain(0)
    assert executor.notified == [("second", "import")]
    executor.go.set()
    training.join(30)
    assert executor.taken == ["first"] and not executor.notify("third", "customize")


def test_a_job_that_comes_again_before_it_has_gone_keeps_its_pulse(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease was lost, and the same worker claims the job while its former attempt winds down."""
    runtime: Any = SimpleNamespace(
        settings=bench.settings, jobs=bench.jobs, storage=bench.storage, redis=bench.redis,
        journal=Journal(bench.storage), concept_records=bench.catalogue.concepts,
        metrics=Metrics(), scratch=tmp_path,
    )  # fmt: skip
    at_work: list[Attempt] = []
    go = [threading.Event(), threading.Event()]

    def perform(work: Attempt) -> Any:
        at_work.append(work)
        assert go[work.number - 1].wait(30)
        work.check()
        raise AssertionError("nobody stopped it")

    monkeypatch.setitem(executors.PERFORM, "edit", perform)
    executor = Executor(runtime, "w", lambda *notification: None)
    job_id = bench.edit()
    attempts = [threading.Thread(target=executor.notify, args=[job_id, "edit"]) for _ in range(2)]
    for number, attempt in enumerate(attempts):
        bench.redis.hset(f"{bench.settings.namespace}:job:{job_id}", "lease_until", "1.0")
        attempt.start()
        until(lambda number=number: len(at_work) > number, "an attempt at work")
    go[0].set()
    attempts[0].join(30)
    assert list(executor.under_way.values()) == at_work[1:]
    bench.jobs.cancel(bench.tenant, job_id)
    until(lambda: at_work[1].reason == "cancel", "the second one hears of it by its pulse")
    go[1].set()
    attempts[1].join(30)
    assert bench.get(job_id).state == "cancelled" and not executor.under_way
    executor.close()


def test_a_device_that_failed_ends_the_worker_and_fails_no_job(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[Exception] = []
    runtime: Any = SimpleNamespace(
        settings=bench.settings, jobs=bench.jobs, storage=bench.storage, redis=bench.redis,
        journal=Journal(bench.storage), concept_records=bench.catalogue.concepts,
        metrics=Metrics(), scratch=tmp_path, engine=SimpleNamespace(give_up=given_up.append),
        make_room=lambda: None,
    )  # fmt: skip
    lost = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    full = torch.AcceleratorError("CUDA error: out of memory")

    def perform(work: Attempt) -> Any:
        raise lost if work.id == first else full

    monkeypatch.setitem(executors.PERFORM, "edit", perform)
    executor = Executor(runtime, "w", lambda *notification: None)
    first, second = bench.edit(), bench.edit()
    executor.notify(first, "edit")
    assert given_up == [lost]
    assert bench.get(first).state == "running"  # until its lease is over: another worker's then
    executor.notify(second, "edit")
    assert given_up == [lost]
    failed = bench.get(second)
    assert failed.error is not None and failed.error.type == "out-of-memory"
    executor.close()
