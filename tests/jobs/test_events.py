"""Events are replayed from any id and waited for, in threads and in a loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from redis import Redis

from customedit.config.settings import Settings
from customedit.jobs.events import AsyncEvents, Event, valid_id
from customedit.jobs.records import JobError, JobProgress, JobRecord
from customedit.jobs.redis import connect_async
from customedit.jobs.store import Jobs

Make = Callable[..., JobRecord]


def test_events_tell_the_whole_story(jobs: Jobs, job: Make) -> None:
    asked = jobs.submit(job()).record
    claim = jobs.claim(asked.id, "w")
    assert claim is not None
    jobs.progress(claim, JobProgress(phase="train", step=1, steps=2, facts={"loss": 0.5}))
    jobs.progress(claim, JobProgress(phase="train", step=2, steps=2, preview_key="a/b"))
    error = JobError(type="t", title='quotes " and \\ and ü', detail="d")
    jobs.fail(claim, error)
    found = jobs.events("acme", asked.id)
    assert [e.kind for e in found] == ["state", "state", "progress", "preview", "state"]
    assert found[2].data["facts"] == {"loss": 0.5} and found[3].data["preview_key"] == "a/b"
    assert JobError.model_validate(found[4].data["error"]) == error
    assert [e.final for e in found] == [False] * 4 + [True]
    assert asked.queued_at == pytest.approx(found[0].at, abs=1)
    for n, event in enumerate(found):
        assert jobs.events("acme", asked.id, event.id) == found[n + 1 :]
        assert valid_id(event.id)
    assert jobs.events("acme", asked.id, limit=2) == found[:2]
    assert jobs.events("other", asked.id) == jobs.wait_events("other", asked.id) == []


def test_a_stream_is_capped_and_outlives_the_job_for_a_day(
    client: Redis, settings: Settings, job: Make
) -> None:
    jobs = Jobs(client, settings.model_copy(update={"events_max": 10}))
    asked = jobs.submit(job()).record
    claim = jobs.claim(asked.id, "w")
    assert claim is not None
    for n in range(400):
        jobs.progress(claim, JobProgress(phase="p", step=n, steps=400))
    stream = f"{settings.namespace}:events:{asked.id}"
    assert client.xlen(stream) < 250
    assert jobs.events("acme", asked.id)[-1].data["step"] == 399
    assert client.ttl(stream) == -1
    jobs.commit(claim, {})
    assert 86_000 < client.ttl(stream) <= 86_400


def test_waiting_ends_with_the_first_news(jobs: Jobs, job: Make) -> None:
    asked = jobs.submit(job()).record
    last = jobs.events("acme", asked.id)[-1].id
    assert jobs.wait_events("acme", asked.id, last, timeout_s=0.01) == []
    heard: list[Event] = []

    def listen() -> None:
        while not heard:
            heard.extend(jobs.wait_events("acme", asked.id, last, timeout_s=3))

    listener = threading.Thread(target=listen)
    listener.start()
    jobs.cancel("acme", asked.id)
    listener.join(30)
    assert [e.data["state"] for e in heard] == ["cancelled"]
    assert jobs.wait_events("acme", asked.id, timeout_s=3)[0].data["state"] == "queued"


def test_a_loop_follows_a_job_to_its_end(jobs: Jobs, job: Make, settings: Settings) -> None:
    asked = jobs.submit(job()).record

    async def follow() -> list[str]:
        told: list[str] = []
        async with connect_async(settings) as client:
            async for event in AsyncEvents(client, settings).follow(asked.id, beat_s=0.05):
                if event is None:  # silence: now something happens
                    claim = await asyncio.to_thread(jobs.claim, asked.id, "w")
                    assert claim is not None
                    await asyncio.to_thread(jobs.commit, claim, {})
                else:
                    told.append(event.data["state"])
        return told

    assert asyncio.run(follow()) == ["queued", "running", "succeeded"]


@pytest.mark.parametrize("text", ["0", "17-0", "1759-12"])
def test_ids_that_can_be(text: str) -> None:
    assert valid_id(text)


@pytest.mark.parametrize("text", ["", "-", "1-", "a", "1-2-3", "+", "(1", "1 ", "²", str(2**64)])
def test_ids_that_cannot_be(text: str) -> None:
    assert not valid_id(text)
