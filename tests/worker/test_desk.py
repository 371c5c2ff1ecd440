"""Training slots at the desk: no bell is lost between the one who leaves and the one who comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from customedit.platform.settings import Settings
from worker.desk import Desk

from .bench import until


class Taking(Desk):
    """A desk whose jobs do nothing, or wait for ``go``."""

    def __init__(self, concurrency: int) -> None:
        self.taken: list[str] = []
        self.rung: list[tuple[str, str]] = []
        self.go = threading.Event()
        self.go.set()
        runtime: Any = SimpleNamespace(settings=Settings(worker_concurrency=concurrency))
        super().__init__(runtime, "w", lambda *bell: self.rung.append(bell))

    def _take(self, job_id: str) -> None:
        self.taken.append(job_id)
        assert self.go.wait(30)


@pytest.fixture
def desk() -> Iterator[Taking]:
    made = Taking(2)
    yield made
    made.go.set()
    made.close()


def test_who_comes_while_the_last_one_leaves_is_served(desk: Taking) -> None:
    leave, come = desk._next_waiting, []

    def leaving() -> str | None:
        found = leave()
        if found is None and not come:
            come.append(threading.Thread(target=desk.ring, args=["late", "customize"]))
            come[0].start()
            come[0].join()
        return found

    desk._next_waiting = leaving  # type: ignore[method-assign]
    desk.ring("first", "customize")
    assert desk.taken == ["first", "late"]


def test_who_waits_when_the_worker_goes_is_rung_for_elsewhere(desk: Taking) -> None:
    desk.go.clear()
    training = threading.Thread(target=desk.ring, args=["first", "customize"])
    training.start()
    until(lambda: desk.taken, "a training at work")
    desk.ring("second", "import")
    desk.ring("second", "import")
    desk.drain(0)
    assert desk.rung == [("second", "import")]
    desk.go.set()
    training.join(30)
    assert desk.taken == ["first"] and not desk.ring("third", "customize")
