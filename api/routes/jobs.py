"""Jobs of all kinds: read, at once or once they end, listed, cancelled, deleted."""

from __future__ import annotations

import logging
import time
from typing import Annotated, Final

import anyio
from fastapi import APIRouter, Query, Response
from redis.exceptions import RedisError

from api.deletion import cancel_job, delete_job
from api.dependencies import (
    AppContainer,
    Container,
    Cursor,
    JobId,
    Limit,
    Reader,
    Wait,
    in_thread,
    needs,
    require_scope,
)
from api.openapi import refusals
from api.problems import not_found
from customedit.jobs.records import JobKind, JobRecord, JobState
from customedit.jobs.store import Page, Submitted
from customedit.schemas import answers as d
from customedit.schemas import patterns
from customedit.storage.store import StorageError
from customedit.tenants.access import ApiKey

router = APIRouter(tags=["jobs"])
Writer = Annotated[ApiKey, needs("edits:write", "concepts:write")]
StateFilter = Annotated[JobState | None, Query(description="Only those in this state.")]
KindFilter = Annotated[JobKind | None, Query(description="Only those of this kind.")]
ConceptFilter = Annotated[
    str | None,
    Query(pattern=patterns.CONCEPT, description="Only those that make or use this concept."),
]
RETRY_S: Final = 2
_STEP_S: Final = 2.0
_SCOPE: Final = {"edit": "edits:write", "customize": "concepts:write", "import": "concepts:write"}
_log = logging.getLogger(__name__)


def job_page(container: Container, page: Page[JobRecord]) -> d.Page[d.Job]:
    """A page of jobs as documents."""
    items = [container.serializers.job(record) for record in page.items]
    return d.Page(items=items, next_cursor=page.next_cursor)


def owned_job(container: Container, caller: ApiKey, id_: str) -> JobRecord:
    """The caller's job.

    Raises:
        ProblemError: not-found.
    """
    record = container.jobs.get(caller.tenant, id_)
    if record is None:
        raise not_found("job", id_)
    return record


@router.get(
    "/v1/jobs",
    operation_id="listJobs",
    summary="List jobs",
    response_model=d.Page[d.Job],
    responses=refusals("validation"),
)
def list_jobs(
    container: AppContainer,
    caller: Reader,
    kind: KindFilter = None,
    state: StateFilter = None,
    concept: ConceptFilter = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> d.Page[d.Job]:
    """Your jobs, newest first."""
    page = container.jobs.list(
        caller.tenant, kind=kind, state=state, concept=concept, cursor=cursor, limit=limit
    )
    return job_page(container, page)


@router.get(
    "/v1/jobs/{id}",
    operation_id="getJob",
    summary="Read a job",
    response_model=d.Job,
    responses=refusals("not-found", "validation"),
)
async def get_job(
    id: JobId, response: Response, container: AppContainer, caller: Reader, wait: Wait
) -> d.Job:
    """A job. With `Prefer: wait=20` the answer comes at its end, or after 20 seconds."""
    record = await in_thread(owned_job, container, caller, id)
    return await job_response(container, record, wait, response)


@router.post(
    "/v1/jobs/{id}/cancel",
    operation_id="cancelJob",
    summary="Cancel a job",
    response_model=d.Job,
    responses=refusals("not-found", "validation"),
)
def post_cancel(id: JobId, container: AppContainer, caller: Writer) -> d.Job:
    """A queued job is cancelled at once; a running one within a step of its method.

    A finished job stays as it is. What was written of a cancelled job is removed.
    """
    record = owned_job(container, caller, id)
    require_scope(caller, _SCOPE[record.kind])
    cancelled = cancel_job(container, record)
    if cancelled is None:
        raise not_found("job", id)
    return container.serializers.job(cancelled)


@router.delete(
    "/v1/jobs/{id}",
    operation_id="deleteJob",
    summary="Delete a finished job",
    status_code=204,
    responses=refusals("not-found", "not-finished", "validation"),
)
def remove_job(id: JobId, container: AppContainer, caller: Writer) -> None:
    """Removes the job and the pictures that it made. A concept that it made stays."""
    require_scope(caller, _SCOPE[owned_job(container, caller, id).kind])
    delete_job(container, caller.tenant, id)


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
