"""Jobs of all kinds: read, listed, cancelled, deleted."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

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
from api.serializers import job_response
from customedit.jobs.records import JobRecord
from customedit.jobs.store import Page
from customedit.schemas import answers as d
from customedit.schemas import patterns
from customedit.schemas.answers import JobKind, JobState
from customedit.tenants.access import ApiKey

router = APIRouter(tags=["jobs"])
Writer = Annotated[ApiKey, needs("edits:write", "concepts:write")]
StateFilter = Annotated[JobState | None, Query(description="Only those in this state.")]
KindFilter = Annotated[JobKind | None, Query(description="Only those of this kind.")]
ConceptFilter = Annotated[
    str | None,
    Query(pattern=patterns.CONCEPT, description="Only those that make or use this concept."),
]
_SCOPE: Final = {"edit": "edits:write", "customize": "concepts:write", "import": "concepts:write"}


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
    responses=refusals("not-found", "not-finished", "in-use", "validation"),
)
def remove_job(id: JobId, container: AppContainer, caller: Writer) -> None:
    """Removes the job and the pictures that it made. A concept that it made stays."""
    require_scope(caller, _SCOPE[owned_job(container, caller, id).kind])
    delete_job(container, caller.tenant, id)
