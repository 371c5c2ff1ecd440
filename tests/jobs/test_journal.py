"""What the journal of finished jobs lacks is written, several at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from customedit.jobs.journal import FINAL, SETTLERS, Journal
from customedit.jobs.records import JobRecord
from customedit.jobs.store import Jobs
from customedit.storage import object_keys
from customedit.storage.store import Storage, StorageError
from customedit.tenants.catalogue import Catalogue

Make = Callable[..., JobRecord]


@pytest.fixture
def ended(jobs: Jobs, job: Make) -> Callable[[int], list[str]]:
    """Ends so many jobs as a front end does; gives their ids."""

    def make(count: int) -> list[str]:
        names = [jobs.submit(job()).record.id for _ in range(count)]
        for name in names:
            jobs.cancel("acme", name)
        return names

    return make


def test_ends_are_written_side_by_side(
    jobs: Jobs, catalogue: Catalogue, storage: Storage, journal: Journal,
    ended: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    names, put, together = ended(2 * SETTLERS), storage.put, threading.Barrier(SETTLERS)

    def slow(*given: Any) -> None:
        together.wait(60)  # none goes on before so many are at it
        put(*given)

    monkeypatch.setattr(storage, "put", slow)
    assert journal.settle(jobs, catalogue.concepts) == len(names)
    assert jobs.unjournaled() == []
    assert all(storage.exists(object_keys.job("acme", name, FINAL)) for name in names)


def test_an_end_that_cannot_be_written_keeps_no_other_waiting(
    jobs: Jobs, catalogue: Catalogue, storage: Storage, journal: Journal,
    ended: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    names, put = ended(5), storage.put

    def refusing(key: str, *given: Any) -> None:
        if names[2] in key:
            raise StorageError("no", transient=False)
        put(key, *given)

    monkeypatch.setattr(storage, "put", refusing)
    with pytest.raises(StorageError):
        journal.settle(jobs, catalogue.concepts)
    assert jobs.unjournaled() == [names[2]]
    monkeypatch.undo()
    assert journal.settle(jobs, catalogue.concepts) == 1
    assert jobs.unjournaled() == []


def test_what_is_deleted_while_its_end_is_written_leaves_nothing(
    jobs: Jobs, catalogue: Catalogue, storage: Storage, journal: Journal,
    ended: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (name,), put = ended(1), storage.put

    def late(*given: Any) -> None:
        assert jobs.delete("acme", name)
        journal.forget(object_keys.job("acme", name))
        put(*given)

    monkeypatch.setattr(storage, "put", late)
    journal.settle_job(jobs, catalogue.concepts, name)
    assert not list(storage.list(object_keys.job("acme", name)))


def test_jobs_are_kept_for_so_many_days(
    jobs: Jobs, client: Redis, ended: Callable[[int], list[str]], round_trips: Callable[[], int]
) -> None:
    young, *old = ended(6)
    finished, day = f"{jobs.settings.namespace}:finished", 86_400
    assert jobs.settings.keep_jobs_days == 30
    client.zadd(finished, {young: jobs.now() - 29 * day})
    client.zadd(finished, {name: jobs.now() - 31 * day - k for k, name in enumerate(old)})

    def asked(limit: int) -> tuple[int, list[tuple[str, str]]]:
        before = round_trips()
        found = jobs.expired(limit)
        return round_trips() - before, found

    trips, found = asked(1)
    assert found == [("acme", old[-1])]  # the oldest first
    assert asked(100) == (trips, [("acme", name) for name in reversed(old)])
