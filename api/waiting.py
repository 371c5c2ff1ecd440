"""Waiting for a job: a little in the request itself, or along a stream of events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

import anyio
from fastapi import Response
from sse_starlette import ServerSentEvent

from api.container import Services
from api.serializers import state_change
from customedit.jobs.events import Event
from customedit.jobs.records import JobProgress, JobRecord
from customedit.jobs.store import Submitted
from customedit.schemas import answers as d

RETRY_S: Final = 2
PING: Final = 5
"""Seconds of silence until a heartbeat."""

SEND_S: Final = 30
"""A watcher who takes nothing for so long is let go: it comes back and misses nothing."""

_STEP_S: Final = 2.0


async def finished(services: Services, record: JobRecord, seconds: int) -> JobRecord:
    """``record`` as it is at its end, or after ``seconds``, or when the service stops."""
    deadline = time.monotonic() + seconds
    after = "0"
    while not record.finished and (left := deadline - time.monotonic()) > 0:
        if services.stopping():
            break
        news = await services.events.wait(record.id, after, min(left, _STEP_S))
        after = news[-1].id if news else after
        if news and not news[-1].final and news[-1].kind != "state":
            continue
        fresh = await anyio.to_thread.run_sync(services.jobs.get, record.tenant, record.id)
        if fresh is None:  # deleted meanwhile
            break
        record = fresh
    return record


async def answer(services: Services, made: Submitted, seconds: int, response: Response) -> d.Job:
    """The job as an answer to a POST: 202 while it is not finished, else 200."""
    if made.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = f"/v1/jobs/{made.record.id}"
    document = await read(services, made.record, seconds, response)
    response.status_code = 200 if document.finished else 202
    return document


async def read(services: Services, record: JobRecord, seconds: int, response: Response) -> d.Job:
    """The job as an answer, at its end or after ``seconds``."""
    record = await finished(services, record, seconds)
    if seconds:
        response.headers["Preference-Applied"] = f"wait={seconds}"
    if not record.finished:
        response.headers["Retry-After"] = str(RETRY_S)
    # Signing addresses takes about a millisecond each: not in the event loop.
    return await anyio.to_thread.run_sync(services.views.job, record)


def heartbeat() -> ServerSentEvent:
    """A comment that keeps a silent connection open, and shows that it is."""
    return ServerSentEvent(comment="heartbeat")


async def stream(
    services: Services, record: JobRecord, after: str
) -> AsyncIterator[ServerSentEvent]:
    """The job's events after id ``after`` until its end, heartbeats being the response's matter.

    A job whose stream is gone (a day after its end, or when Redis was rebuilt) tells its state.
    """
    yield ServerSentEvent(retry=RETRY_S * 1000, comment="events of a job")
    told_end = False
    async with aclosing(_until_stopped(services, record, after)) as events:
        async for event in events:
            told_end = event.final
            yield await anyio.to_thread.run_sync(sent, services, event)
    if not told_end and not services.stopping():
        last = await anyio.to_thread.run_sync(services.jobs.get, record.tenant, record.id)
        if last is not None and last.finished:
            yield _of_record(last)


async def _until_stopped(
    services: Services, record: JobRecord, after: str
) -> AsyncGenerator[Event, None]:
    while not services.stopping():
        found = await services.events.wait(record.id, after, _STEP_S)
        for event in found:
            after = event.id
            yield event
            if event.final:
                return
        if not found and await _is_over(services, record):
            return


async def _is_over(services: Services, record: JobRecord) -> bool:
    """Whether nothing more will come: the end was before ``after``, or the stream is gone."""
    now = await anyio.to_thread.run_sync(services.jobs.get, record.tenant, record.id)
    return now is None or now.finished


def sent(services: Services, event: Event) -> ServerSentEvent:
    """An event as it goes over the wire; previews as presigned addresses."""
    data = dict(event.data)
    if event.kind != "state":
        shown = services.views.progress(JobProgress.model_validate(data))
        return _sse(event.id, event.kind, shown.model_dump_json(exclude_none=True))
    return _sse(event.id, "state", state_change(data).model_dump_json(exclude_none=True))


def _of_record(record: JobRecord) -> ServerSentEvent:
    told = d.StateChange(state=record.state, attempt=record.attempt)
    return _sse(None, "state", told.model_dump_json(exclude_none=True))


def _sse(id_: str | None, kind: str, data: str) -> ServerSentEvent:
    return ServerSentEvent(id=id_, event=kind, data=data)
