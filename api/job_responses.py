"""A job as an answer, at once or after a little wait for its end."""

from __future__ import annotations

import logging
import time
from typing import Final

import anyio
from fastapi import Response
from redis.exceptions import RedisError

from api.dependencies import Container
from customedit.jobs.records import JobRecord
from customedit.jobs.store import Submitted
from customedit.schemas import answers as d
from customedit.storage.store import StorageError

RETRY_S: Final = 2
_STEP_S: Final = 2.0

_log = logging.getLogger(__name__)


async def submitted_response(
    container: Container, submitted: Submitted, wait_s: int, response: Response
) -> d.Job:
    """The job as an answer to a POST: 202 while it is not finished, else 200.

    The job exists: whatever fails from here on, the caller gets its id. With 503 it would send
    the request again, and without an idempotency key that would make a second job.
    """
    if submitted.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = f"/v1/jobs/{submitted.record.id}"
    try:
        document = await job_response(container, submitted.record, wait_s, response)
    except (RedisError, StorageError) as error:
        _log.warning("%s: answered as submitted: %s", submitted.record.id, type(error).__name__)
        response.headers["Retry-After"] = str(RETRY_S)
        queued = submitted.record.model_copy(update={"result": None, "progress": None})
        document = await anyio.to_thread.run_sync(container.serializers.job, queued)
    response.status_code = 200 if document.finished else 202
    return document


async def job_response(
    container: Container, record: JobRecord, wait_s: int, response: Response
) -> d.Job:
    """The job as an answer, at its end or after ``wait_s`` seconds."""
    record = await wait_for_end(container, record, wait_s)
    if wait_s:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    if not record.finished:
        response.headers["Retry-After"] = str(RETRY_S)
    # Signing addresses takes about a millisecond each: not in the event loop.
    return await anyio.to_thread.run_sync(container.serializers.job, record)


async def wait_for_end(container: Container, record: JobRecord, seconds: int) -> JobRecord:
    """``record`` as it is at its end, or after ``seconds``, or when the service stops.

    While Redis is away the record is the last one that was read.
    """
    deadline = time.monotonic() + seconds
    if record.finished or not seconds:
        return record
    with container.events.watch(record.id) as watch:
        while (left := deadline - time.monotonic()) > 0 and not container.stopping():
            events = await watch.wait(min(left, _STEP_S))
            if events and all(event.kind != "state" for event in events):
                continue
            try:
                current = await anyio.to_thread.run_sync(
                    container.jobs.get, record.tenant, record.id
                )
            except RedisError as error:
                _log.warning("%s cannot be read: %s", record.id, type(error).__name__)
                continue
            if current is None:  # deleted meanwhile
                break
            record = current
            if record.finished:
                break
    return record
