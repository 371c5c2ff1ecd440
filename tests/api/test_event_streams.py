"""Many event streams of one process: one connection to Redis, a limit, and revoked keys."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from api import quotas
from api.event_reader import EventReader, running
from customedit.config.settings import Settings
from customedit.jobs.events import Event
from customedit.jobs.records import JobProgress
from customedit.jobs.store import Jobs

from .. import web
from .conftest import Running, claimed, edit, wait_for

Start = Callable[..., Running]


class Source:
    """Streams of events in memory, read as Redis reads them; a call can be held up."""

    def __init__(self) -> None:
        self.streams: dict[str, list[Event]] = {}
        self.calls: list[dict[str, str]] = []
        self.hold: asyncio.Event | None = None
        self.fail = 0

    def add(self, job: str, number: int) -> None:
        self.streams.setdefault(job, []).append(Event(f"{number}-0", "progress", {"n": number}))

    async def read(self, positions: Any, timeout_s: float) -> dict[str, list[Event]]:
        self.calls.append(dict(positions))
        if self.fail:
            self.fail -= 1
            raise RedisConnectionError("away")
        asked = dict(positions)
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(0.001)
        news = {
            job: [e for e in self.streams.get(job, ()) if int(e.id[:-2]) > int(after.split("-")[0])]
            for job, after in asked.items()
        }
        return {job: events for job, events in news.items() if events}


def numbers(events: list[Event]) -> list[int]:
    return [event.data["n"] for event in events]


async def until(watch: Any, last: int) -> list[int]:
    seen: list[int] = []
    while not seen or seen[-1] != last:
        seen += numbers(await watch.wait(5))
    return seen


def in_loop(test: Callable[[Source, EventReader], Any]) -> None:
    async def run() -> None:
        source = Source()
        reader = EventReader(source)  # type: ignore[arg-type]
        async with running(reader):
            await asyncio.wait_for(test(source, reader), 20)
        assert not reader._watches and not reader._positions and not reader._joining

    asyncio.run(run())


def test_watchers_of_one_job_begin_where_each_asked_to() -> None:
    async def test(source: Source, reader: EventReader) -> None:
        for n in range(1, 6):
            source.add("a", n)
        with reader.watch("a") as all_of_it, reader.watch("a", "3-0") as rest:
            assert await until(all_of_it, 5) == [1, 2, 3, 4, 5]
            assert await until(rest, 5) == [4, 5]
            source.add("a", 6)
            with reader.watch("a", "1-0") as late:
                assert await until(late, 6) == [2, 3, 4, 5, 6]
            assert await until(all_of_it, 6) == [6] and await until(rest, 6) == [6]
            assert await all_of_it.wait(0.01) == []

    in_loop(test)


def test_whoever_joins_during_a_call_misses_nothing() -> None:
    """The answer of that call begins after what the new watcher has not seen."""

    async def test(source: Source, reader: EventReader) -> None:
        for n in range(1, 4):
            source.add("a", n)
        with reader.watch("a") as first:
            assert await until(first, 3) == [1, 2, 3]
            source.hold = asyncio.Event()
            count = len(source.calls)
            while len(source.calls) == count:
                await asyncio.sleep(0.001)
            with reader.watch("a") as second:
                source.add("a", 4)
                source.hold.set()
                source.hold = None
                assert await until(second, 4) == [1, 2, 3, 4]
                assert await until(first, 4) == [4]

    in_loop(test)


def test_a_watcher_that_lags_reads_again_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.event_reader._MAX_WAITING", 3)

    async def test(source: Source, reader: EventReader) -> None:
        with reader.watch("a") as watch, reader.watch("a") as other:
            for n in range(1, 9):
                source.add("a", n)
                assert await until(other, n) == [n]
            assert len(watch._events) <= 3
            assert await until(watch, 8) == [1, 2, 3, 4, 5, 6, 7, 8]

    in_loop(test)


def test_it_goes_on_when_redis_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.event_reader._RETRY_S", 0.01)

    async def test(source: Source, reader: EventReader) -> None:
        source.fail = 3
        source.add("a", 1)
        with reader.watch("a") as watch:
            assert await until(watch, 1) == [1]

    in_loop(test)


def test_nothing_is_asked_while_nobody_watches() -> None:
    async def test(source: Source, reader: EventReader) -> None:
        with reader.watch("a"):
            while not source.calls:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        count = len(source.calls)
        await asyncio.sleep(0.05)
        assert len(source.calls) == count

    in_loop(test)


def opened(client: httpx.Client, job: str, stack: ExitStack) -> Iterator[str]:
    """The lines of an event stream, after its first state."""
    response = stack.enter_context(client.stream("GET", f"/v1/jobs/{job}/events"))
    assert response.status_code == 200, response.read()
    lines = response.iter_lines()
    for line in lines:
        if line.startswith("data: "):
            return lines
    raise AssertionError("the stream ended")


def test_more_streams_than_redis_gives_connections(
    start: Start, settings: Settings, jobs: Jobs
) -> None:
    """150 streams of two tenants beside other calls: all hear of the end, over one connection."""
    api = start(settings, rate_per_minute=10_000, streams_per_tenant=100)
    limits = httpx.Limits(max_connections=None)
    with ExitStack() as stack:
        clients = {}
        for tenant in ("anna", "bert"):
            headers = {"Authorization": f"Bearer {api.key(tenant)}"}
            client = web.Client(base_url=api.url, headers=headers, limits=limits)
            clients[tenant] = stack.enter_context(client)
        made = {tenant: edit(client)["id"] for tenant, client in clients.items()}
        streams = [
            opened(clients[tenant], made[tenant], stack) for tenant in made for _ in range(75)
        ]
        waiting = clients["bert"].get(f"/v1/jobs/{made['bert']}", headers={"Prefer": "wait=1"})
        assert waiting.status_code == 200
        assert len(api.container.events._events.client.connection_pool._available_connections) <= 3
        for tenant, job in made.items():
            claim = claimed(jobs, job)
            jobs.progress(claim, JobProgress(phase="edit", step=1, steps=2))
            jobs.cancel(tenant, job)
            assert jobs.cancelled(claim)

        def last(lines: Iterator[str]) -> str:
            return [line for line in lines if line.startswith("data: ")][-1]

        with ThreadPoolExecutor(16) as pool:
            assert all('"cancelled"' in line for line in pool.map(last, streams))
    wait_for(lambda: not api.container.streams._open)


def test_streams_over_the_tenants_limit_are_refused(start: Start, settings: Settings) -> None:
    api = start(settings, streams_per_tenant=2)
    anna, bert = api.client("anna"), api.client("bert")
    job, other = edit(anna)["id"], edit(bert)["id"]
    with ExitStack() as stack:
        streams = [opened(anna, job, stack) for _ in range(2)]
        answer = anna.get(f"/v1/jobs/{job}/events")
        assert answer.status_code == 429 and answer.headers["Retry-After"] == "5"
        assert answer.json()["type"] == "/problems/too-many-streams"
        assert answer.json()["limit"] == "2 open event streams"
        streams.append(opened(bert, other, stack))  # an iterator that is dropped closes it
    wait_for(lambda: not api.container.streams._open)
    with ExitStack() as stack:
        opened(anna, job, stack)


def test_streams_that_are_opened_together_are_counted_together(
    start: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = start(settings, streams_per_tenant=3)
    anna = api.client("anna")
    job, asked, free = edit(anna)["id"], list[int](), threading.Event()
    get = api.container.jobs.get

    def slow(*given: str) -> Any:
        asked.append(1)
        assert free.wait(60)
        return get(*given)

    statuses: list[int] = []

    def look() -> None:
        with anna.stream("GET", f"/v1/jobs/{job}/events") as response:
            statuses.append(response.status_code)
            wait_for(lambda: len(statuses) == 20)

    monkeypatch.setattr(api.container.jobs, "get", slow)
    with ThreadPoolExecutor(20) as pool:
        opening = [pool.submit(look) for _ in range(20)]
        wait_for(lambda: statuses.count(429) == 17 and len(asked) == 3)
        free.set()
        for one in opening:
            one.result()
    assert sorted(statuses) == [200] * 3 + [429] * 17
    wait_for(lambda: not api.container.streams._open)


def test_a_stream_that_is_not_opened_counts_no_more(
    api: Running, anna: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = "job_" + "0" * 26
    assert anna.get(f"/v1/jobs/{nobody}/events").status_code == 404

    def away(*_: Any) -> Any:
        raise RedisConnectionError("away")

    job = edit(anna)["id"]
    monkeypatch.setattr(api.container.jobs, "get", away)
    assert anna.get(f"/v1/jobs/{job}/events").status_code == 503
    assert not api.container.streams._open


def test_the_streams_of_a_revoked_key_end(
    start: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "KEY_CHECK_S", 0.2)
    monkeypatch.setattr("api.routes.job_events._STEP_S", 0.1)
    api = start(settings)
    kept = api.client("anna")
    key, text = api.keys.create("anna", scopes=("read",))
    job = edit(kept)["id"]
    with ExitStack() as stack:
        headers = {"Authorization": f"Bearer {text}"}
        client = web.Client(base_url=api.url, headers=headers, timeout=30)
        stack.enter_context(client)
        gone, stays = opened(client, job, stack), opened(kept, job, stack)
        assert api.keys.revoke(key.id)
        assert not [line for line in gone if line.startswith("data: ")]  # it ends without a state
        ends = threading.Event()

        def read() -> None:
            list(stays)
            ends.set()

        threading.Thread(target=read, daemon=True).start()
        assert not ends.wait(0.5)
        api.container.jobs.cancel("anna", job)
        assert ends.wait(20)


@pytest.mark.parametrize("call", ["get", "read"])
def test_an_error_while_waiting_is_no_503_once_the_job_exists(
    api: Running, anna: httpx.Client, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    body = {
        "image": edit(anna)["request"]["image"],
        "source_prompt": "a cup",
        "target_prompt": "a red cup",
    }

    def away(*_: Any, **__: Any) -> Any:
        raise RedisConnectionError("away")

    where = api.container.jobs if call == "get" else api.container.events._events
    monkeypatch.setattr(where, call, away)
    answer = anna.post("/v1/edits", json=body, headers={"Prefer": "wait=3"})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/v1/jobs/{answer.json()['id']}"
    monkeypatch.undo()
    assert anna.get(answer.headers["Location"]).json()["state"] == "queued"


def test_a_result_that_cannot_be_signed_is_no_503_either(
    api: Running, anna: httpx.Client, jobs: Jobs, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from customedit.storage.store import StorageError

    from .conftest import finish_edit

    body = {
        "image": edit(anna)["request"]["image"],
        "source_prompt": "a cup",
        "target_prompt": "a red cup",
    }
    headers = {"Idempotency-Key": "one"}
    job = anna.post("/v1/edits", json=body, headers=headers).json()["id"]
    finish_edit(jobs, storage, job)

    def away(*_: Any, **__: Any) -> Any:
        raise StorageError("no credentials", transient=True)

    monkeypatch.setattr(api.container.storage, "presign_get", away)
    answer = anna.post("/v1/edits", json=body, headers=headers)
    assert answer.status_code == 200 and answer.json()["id"] == job
    assert answer.json()["state"] == "succeeded" and answer.json().get("result") is None
