"""The events of a job as a stream (server-sent events): replayed, as they happen, to its end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, Final

import anyio
from fastapi import APIRouter, Response
from redis.exceptions import RedisError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from api.dependencies import AppContainer, Container, JobId, LastEventId, Reader, in_thread
from api.openapi import refusals
from api.quotas import StreamSlot
from api.routes.jobs import owned_job
from api.serializers import failure, state_change
from customedit.jobs.events import Event
from customedit.jobs.records import JobProgress, JobRecord
from customedit.schemas import answers as d
from customedit.tenants.access import ApiKey

router = APIRouter(tags=["jobs"])
RETRY_S: Final = 2
PING: Final = 5
"""Seconds of silence until a heartbeat."""

SEND_S: Final = 30
"""A watcher who takes nothing for so long is disconnected: it comes back and misses nothing."""

_STEP_S: Final = 2.0  # between two looks at whether the stream should end
_RECORD_S: Final = 30.0  # of silence between two looks at the job's record


class _Stream(EventSourceResponse):
    """A stream that counts among those of its tenant until it is closed."""

    def __init__(self, slot: StreamSlot, events: AsyncIterator[Any]) -> None:
        super().__init__(events, ping=PING, ping_message_factory=_heartbeat, send_timeout=SEND_S)
        self._slot = slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._slot.release()


def _heartbeat() -> ServerSentEvent:
    """A comment that keeps a silent connection open, and shows that it is."""
    return ServerSentEvent(comment="heartbeat")


@router.get(
    "/v1/jobs/{id}/events",
    operation_id="watchJob",
    summary="Watch a job",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Server-sent events until the job's end: `state`, `progress`, "
            "`preview`, each with JSON as its data; a comment every few seconds of silence.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **refusals("not-found", "too-many-streams", "validation"),
    },
)
async def watch_job(
    id: JobId, container: AppContainer, caller: Reader, last_event_id: LastEventId = "0"
) -> Response:
    """All events so far, then each as it happens. Come back with `Last-Event-ID` to miss none."""
    slot = container.streams.take(caller.tenant)
    try:
        record = await in_thread(owned_job, container, caller, id)
        return _Stream(slot, job_events(container, caller, record, last_event_id))
    except BaseException:  # a caller that went away as well: nothing else would release it
        slot.release()
        raise


async def job_events(
    container: Container, caller: ApiKey, record: JobRecord, after: str
) -> AsyncIterator[ServerSentEvent]:
    """The job's events after id ``after`` until its end, or until the key is revoked.

    A job whose stream is gone (a day after its end, or when Redis was rebuilt) tells its state.
    """
    yield ServerSentEvent(retry=RETRY_S * 1000, comment="events of a job")
    looked = -_RECORD_S
    with container.events.watch(record.id, after) as watch:
        while not container.stopping() and await container.key_checks.valid(caller):
            events = await watch.wait(_STEP_S)
            for event in events:
                if event.kind == "preview":  # signing may have to fetch credentials
                    yield await anyio.to_thread.run_sync(_serialize, container, event)
                else:
                    yield _serialize(container, event)
                if event.final:
                    return
            now = time.monotonic()
            if not events and now - looked >= _RECORD_S:
                looked = now
                try:
                    current = await in_thread(container.jobs.get, record.tenant, record.id)
                except RedisError:  # it may be back before the watcher gives up
                    continue
                if current is None:
                    return
                if current.finished:  # its end was before ``after``, or its stream is gone
                    yield _state(current)
                    return


def _serialize(container: Container, event: Event) -> ServerSentEvent:
    """An event as it goes over the wire; previews as presigned addresses."""
    data = dict(event.data)
    if event.kind != "state":
        progress = container.serializers.progress(JobProgress.model_validate(data))
        return _sse(event.id, event.kind, progress.model_dump_json(exclude_none=True))
    return _sse(event.id, "state", state_change(data).model_dump_json(exclude_none=True))


def _state(record: JobRecord) -> ServerSentEvent:
    change = d.StateChange(state=record.state, attempt=record.attempt, error=failure(record.error))
    return _sse(None, "state", change.model_dump_json(exclude_none=True))


def _sse(id_: str | None, kind: str, data: str) -> ServerSentEvent:
    return ServerSentEvent(id=id_, event=kind, data=data)
