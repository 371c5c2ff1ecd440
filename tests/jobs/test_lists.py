"""Lists of jobs, what is deleted with one, and what the reconciler looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs.records import ConceptRecord, JobRecord, uses_of
from customedit.jobs.store import (
    Jobs,
    NotFinished,
)
from customedit.schemas import ids

Make = Callable[..., JobRecord]
Training = Callable[..., tuple[JobRecord, ConceptRecord]]


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
