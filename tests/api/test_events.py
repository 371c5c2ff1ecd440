"""Events of jobs over HTTP: as they happen, replayed, with heartbeats, to their end."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from redis import Redis

import api.routes.job_events
from customedit.config.settings import Settings
from customedit.jobs.records import JobError, JobProgress
from customedit.jobs.store import Jobs
from customedit.storage.store import Storage

from .. import web
from .conftest import Running, claimed, edit, finish_edit, png, wait_for

Told = tuple[str | None, str, dict[str, Any]]


def events(client: httpx.Client, job: str, after: str | None = None) -> Generator[Told]:
    headers = {"Last-Event-ID": after} if after else {}
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        name, kind = None, ""
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "id":
                name = value
            elif field == "event":
                kind = value
            elif field == "data":
                yield name, kind, json.loads(value)


def test_all_that_happens_until_the_end(anna: httpx.Client, jobs: Jobs, storage: Storage) -> None:
    job = edit(anna)["id"]
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(lambda: list(events(anna, job)))
        claim = claimed(jobs, job)
        storage.put(claim.key("preview.jpg"), png())
        preview = JobProgress(phase="edit", step=5, steps=50, preview_key=claim.key("preview.jpg"))
        jobs.progress(claim, JobProgress(phase="invert", step=1, steps=50, facts={"loss": 0.5}))
        jobs.progress(claim, preview)
        jobs.hand_back(claim)
        finish_edit(jobs, storage, job)
        found = told.result(30)
    states = [data["state"] for _, kind, data in found if kind == "state"]
    assert states == ["queued", "running", "queued", "running", "succeeded"]
    shown = [data for _, kind, data in found if kind != "state"]
    assert shown[0]["phase"] == "invert" and shown[0]["facts"] == {"loss": 0.5}
    assert web.get(shown[1]["preview_url"]).content == png()
    assert all("_key" not in str(data) for _, _, data in found)
    assert [name for name, _, _ in found] == sorted({str(name) for name, _, _ in found})


def test_whoever_comes_back_misses_nothing(
    anna: httpx.Client, jobs: Jobs, storage: Storage
) -> None:
    job = edit(anna)["id"]
    claim = claimed(jobs, job)
    for step in range(4):
        jobs.progress(claim, JobProgress(phase="edit", step=step, steps=4))
    stream = events(anna, job)
    first = [next(stream) for _ in range(3)]
    stream.close()
    jobs.progress(claim, JobProgress(phase="edit", step=4, steps=4))
    jobs.hand_back(claim)
    finish_edit(jobs, storage, job)
    rest = list(events(anna, job, first[-1][0]))
    whole = list(events(anna, job))
    assert first + rest == whole
    after_the_end = list(events(anna, job, whole[-1][0]))
    assert [data["state"] for _, _, data in after_the_end] == ["succeeded"]


def test_a_job_whose_stream_is_gone_tells_its_state(
    api: Running, anna: httpx.Client, jobs: Jobs, storage: Storage, redis_client: Redis
) -> None:
    job = edit(anna)["id"]
    finish_edit(jobs, storage, job)
    redis_client.delete(f"{api.settings.namespace}:events:{job}")
    assert [(kind, data["state"]) for _, kind, data in events(anna, job)] == [
        ("state", "succeeded")
    ]


def test_it_tells_why_a_job_failed_as_its_event_did(
    api: Running, anna: httpx.Client, jobs: Jobs, redis_client: Redis
) -> None:
    job = edit(anna)["id"]
    why = JobError(type="input-error", title="It cannot be used", detail="is empty", field="mask")
    assert jobs.fail(claimed(jobs, job), why)
    (told,) = [data for _, _, data in events(anna, job) if data["state"] == "failed"]
    redis_client.delete(f"{api.settings.namespace}:events:{job}")
    (again,) = [data for _, _, data in events(anna, job)]
    assert again == told and told["error"]["field"] == "mask"


def test_silence_has_heartbeats(anna: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.routes.job_events, "PING", 0.05)
    job = edit(anna)["id"]
    with anna.stream("GET", f"/v1/jobs/{job}/events") as response:
        beats = 0
        for line in response.iter_lines():
            beats += line.startswith(":") and "heartbeat" in line
            if beats == 3:
                break
    assert beats == 3


@pytest.mark.parametrize("after", ["x", "1-2-3", "-1", "9" * 40, "1-" + "9" * 19, "$"])
def test_ids_that_are_none(anna: httpx.Client, after: str) -> None:
    job = edit(anna)["id"]
    answer = anna.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": after})
    assert answer.status_code == 422 and answer.json()["field"] == "Last-Event-ID"


def test_streams_and_waits_end_when_the_service_stops(
    start: Callable[..., Running], settings: Settings
) -> None:
    api = start(settings)
    anna = api.client()
    job = edit(anna)["id"]
    with ThreadPoolExecutor(2) as pool:
        told: list[Told] = []
        stream = pool.submit(lambda: told.extend(events(anna, job)))
        wait = pool.submit(anna.get, f"/v1/jobs/{job}", headers={"Prefer": "wait=50"})
        wait_for(lambda: told and api.container.metrics.open._value.get() == 2)
        api.server.stop_streams()
        api.server.should_exit = True
        stream.result(20)
        assert [data["state"] for _, _, data in told] == ["queued"]
        assert wait.result(20).json()["state"] == "queued"


def test_watchers_that_leave_are_forgotten(api: Running, anna: httpx.Client) -> None:
    job = edit(anna)["id"]
    for _ in range(5):
        stream = events(anna, job)
        next(stream)
        stream.close()
    wait_for(lambda: api.container.metrics.open._value.get() == 0)


def test_a_watcher_that_reads_nothing_is_let_go(
    start: Callable[..., Running], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.routes.job_events, "SEND_S", 0.2)
    running = start(settings)
    anna = running.client()
    job = edit(anna)["id"]
    claim = claimed(running.container.jobs, job)
    for step in range(400):  # more than the connection's buffers hold
        progress = JobProgress(phase="x" * 50_000, step=step)
        running.container.jobs.progress(claim, progress)
    where = httpx.URL(running.url)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((where.host, where.port))
        key = anna.headers["Authorization"]
        asked = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n\r\n"
        deaf.sendall(asked.encode())
        open_ = running.container.metrics.open._value
        wait_for(lambda: open_.get() == 1)
        wait_for(lambda: open_.get() == 0)
