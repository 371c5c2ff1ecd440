"""Jobs of all kinds: read, watched, cancelled, deleted."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Response
from sse_starlette import EventSourceResponse

from api.auth import Here, Reader, needs, require
from api.cancellation import cancel
from api.container import Services, in_thread
from api.openapi import refusals
from api.params import Cursor, JobId, Limit, Wait, no_such
from api.waiting import PING, SEND_S, heartbeat, read, stream
from customedit.jobs.records import JobKind, JobRecord, JobState
from customedit.jobs.store import Page
from customedit.schemas import answers as d
from customedit.schemas import ids
from customedit.tenants.api_keys import ApiKey

router = APIRouter(tags=["jobs"])
Writer = Annotated[ApiKey, needs("edits:write", "concepts:write")]
StateFilter = Annotated[JobState | None, Query(description="Only those in this state.")]
KindFilter = Annotated[JobKind | None, Query(description="Only those of this kind.")]
ConceptFilter = Annotated[
    str | None, Query(pattern=ids.CONCEPT, description="Only those that make or use this concept.")
]
LastEventId = Annotated[
    str,
    Header(
        alias="Last-Event-ID",
        pattern=r"^[0-9]{1,18}(-[0-9]{1,18})?$",
        description="The id of the last event that was seen: what came after it is sent.",
    ),
]
_SCOPE: Final = {"edit": "edits:write", "customize": "concepts:write", "import": "concepts:write"}


def job_page(here: Services, found: Page[JobRecord]) -> d.Page[d.Job]:
    """A page of jobs as documents."""
    return d.Page(items=[here.views.job(r) for r in found.items], next_cursor=found.next_cursor)


@router.get(
    "/v1/jobs",
    operation_id="listJobs",
    summary="List jobs",
    response_model=d.Page[d.Job],
    responses=refusals("validation"),
)
def list_jobs(
    here: Here,
    caller: Reader,
    kind: KindFilter = None,
    state: StateFilter = None,
    concept: ConceptFilter = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> d.Page[d.Job]:
    """Your jobs, newest first."""
    found = here.jobs.list(
        caller.tenant, kind=kind, state=state, concept=concept, cursor=cursor, limit=limit
    )
    return job_page(here, found)


@router.get(
    "/v1/jobs/{id}",
    operation_id="getJob",
    summary="Read a job",
    response_model=d.Job,
    responses=refusals("not-found", "validation"),
)
async def get_job(id: JobId, response: Response, here: Here, caller: Reader, wait: Wait) -> d.Job:
    """A job. With `Prefer: wait=20` the answer comes at its end, or after 20 seconds."""
    return await read(here, await in_thread(_job, here, caller, id), wait, response)


def _job(here: Services, caller: ApiKey, id_: str) -> JobRecord:
    record = here.jobs.get(caller.tenant, id_)
    if record is None:
        raise no_such("job", id_)
    return record


@router.post(
    "/v1/jobs/{id}/cancel",
    operation_id="cancelJob",
    summary="Cancel a job",
    response_model=d.Job,
    responses=refusals("not-found", "validation"),
)
def cancel_job(id: JobId, here: Here, caller: Writer) -> d.Job:
    """A queued job is cancelled at once; a running one within a step of its method.

    A finished job stays as it is. What was written of a cancelled job is removed.
    """
    found = _job(here, caller, id)
    require(caller, _SCOPE[found.kind])
    record = cancel(here, found)
    if record is None:
        raise no_such("job", id)
    return here.views.job(record)


@router.delete(
    "/v1/jobs/{id}",
    operation_id="deleteJob",
    summary="Delete a finished job",
    status_code=204,
    responses=refusals("not-found", "not-finished", "validation"),
)
def delete_job(id: JobId, here: Here, caller: Writer) -> None:
    """Removes the job and the pictures that it made. A concept that it made stays."""
    require(caller, _SCOPE[_job(here, caller, id).kind])
    here.deleting.job(caller.tenant, id)


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
        **refusals("not-found", "validation"),
    },
)
async def watch_job(
    id: JobId, here: Here, caller: Reader, last_event_id: LastEventId = "0"
) -> Response:
    """All events so far, then each as it happens. Come back with `Last-Event-ID` to miss none."""
    record = await in_thread(_job, here, caller, id)
    return EventSourceResponse(
        stream(here, record, last_event_id),
        ping=PING,
        ping_message_factory=heartbeat,
        send_timeout=SEND_S,
    )
