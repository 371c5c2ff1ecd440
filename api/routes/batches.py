"""Batches: many pictures edited in one way, by one request; each picture is a job."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.deletion import cancel_jobs, delete_jobs
from api.dependencies import (
    AppContainer,
    Container,
    Cursor,
    IdempotencyKey,
    Limit,
    Reader,
    Wait,
    in_thread,
    needs,
)
from api.openapi import CONCEPT, IMAGE, OTHER_IMAGE, example_bodies, refusals
from api.problems import ProblemError, not_found
from api.routes.edits import check_edit
from api.serializers import RETRY_S, wait_for_end
from api.submission import submit_batch
from customedit.jobs.records import JobRecord
from customedit.jobs.store import Submitted
from customedit.schemas import answers as d
from customedit.schemas import patterns
from customedit.schemas.requests import BatchRequest, EditRequest
from customedit.tenants.access import ApiKey

router = APIRouter(tags=["batches"])
Writer = Annotated[ApiKey, needs("edits:write")]
BatchId = Annotated[str, Path(pattern=patterns.BATCH, description="Id of a batch.")]
EXAMPLES = example_bodies(
    {
        "plain": {
            "images": [IMAGE, OTHER_IMAGE],
            "source_prompt": "a photo of a teapot",
            "target_prompt": "a photo of a <plaid> patterned teapot",
            "concepts": [{"id": CONCEPT}],
        }
    }
)


@router.post(
    "/v1/batches",
    operation_id="createBatch",
    summary="Edit many pictures in one way",
    response_model=d.Batch,
    status_code=202,
    responses={
        200: {"model": d.Batch, "description": "Finished within the wait that was preferred."},
        **refusals(
            "malformed",
            "idempotency-in-flight",
            "not-ready",
            "request-timeout",
            "too-large",
            "unsupported-media-type",
            "validation",
            "unknown-image",
            "unknown-concept",
            "idempotency-conflict",
            "queue-full",
        ),
    },
    openapi_extra=EXAMPLES,
)
async def create_batch(
    request: BatchRequest,
    response: Response,
    container: AppContainer,
    caller: Writer,
    wait: Wait,
    idempotency_key: IdempotencyKey = None,
) -> d.Batch:
    """All pictures are accepted or none. Each is a job of its own, which counts as any other does.

    A `webhook` is called at the end of each of them.
    """
    submitted = await in_thread(_submit, container, caller.tenant, request, idempotency_key)
    batch = submitted.record.batch or ""
    if submitted.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = f"/v1/batches/{batch}"
    document = await _answer(container, caller.tenant, batch, wait, response)
    response.status_code = 200 if document.finished else 202
    return document


def _submit(container: Container, tenant: str, request: BatchRequest, key: str | None) -> Submitted:
    def check(edit: EditRequest) -> tuple[int, int] | None:
        return check_edit(container, tenant, edit).size

    return submit_batch(container, tenant, request, key, check)


@router.get(
    "/v1/batches",
    operation_id="listBatches",
    summary="List batches",
    response_model=d.Page[d.BatchSummary],
    responses=refusals("validation"),
)
def list_batches(
    container: AppContainer, caller: Reader, cursor: Cursor = None, limit: Limit = 20
) -> d.Page[d.BatchSummary]:
    """Your batches, newest first, without their jobs."""
    page = container.jobs.batches(caller.tenant, cursor=cursor, limit=limit)
    found = container.jobs.batches_in_short(caller.tenant, page.items)
    items = [container.serializers.batch_summary(records) for records in found if records]
    return d.Page(items=items, next_cursor=page.next_cursor)


@router.get(
    "/v1/batches/{id}",
    operation_id="getBatch",
    summary="Read a batch",
    response_model=d.Batch,
    responses=refusals("not-found", "validation"),
)
async def get_batch(
    id: BatchId, response: Response, container: AppContainer, caller: Reader, wait: Wait
) -> d.Batch:
    """A batch with all of its jobs, and their results as far as they have any."""
    return await _answer(container, caller.tenant, id, wait, response)


@router.post(
    "/v1/batches/{id}/cancel",
    operation_id="cancelBatch",
    summary="Cancel a batch",
    response_model=d.Batch,
    responses=refusals("not-found", "validation"),
)
def post_cancel(id: BatchId, container: AppContainer, caller: Writer) -> d.Batch:
    """Cancels all of its jobs that are not finished; results that are there stay."""
    cancel_jobs(container, _jobs_of(container, caller.tenant, id))
    return container.serializers.batch(_jobs_of(container, caller.tenant, id))


@router.delete(
    "/v1/batches/{id}",
    operation_id="deleteBatch",
    summary="Delete a finished batch",
    status_code=204,
    responses=refusals("not-found", "not-finished", "in-use", "validation"),
)
def remove_batch(id: BatchId, container: AppContainer, caller: Writer) -> None:
    """Removes its jobs and their pictures. Should one still be needed, those before it are gone."""
    records = _jobs_of(container, caller.tenant, id)
    for record in records:
        if not record.finished:
            raise ProblemError(
                "not-finished",
                f"{record.id} of {id} is {record.state}; cancel the batch first",
                field="id",
                limit="a batch that is finished",
            )
    delete_jobs(container, caller.tenant, [record.id for record in records])


def _jobs_of(container: Container, tenant: str, id_: str) -> list[JobRecord]:
    records = container.jobs.batch(tenant, id_)
    if not records:
        raise not_found("batch", id_)
    return records


async def _answer(
    container: Container, tenant: str, id_: str, wait_s: int, response: Response
) -> d.Batch:
    """The batch, at its end or after ``wait_s`` seconds."""
    records = await in_thread(_jobs_of, container, tenant, id_)
    until = time.monotonic() + wait_s
    if wait_s:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
        for record in records:
            left = until - time.monotonic()
            if left <= 0:
                break
            await wait_for_end(container, record, left)
        records = await in_thread(_jobs_of, container, tenant, id_)
    if not all(record.finished for record in records):
        response.headers["Retry-After"] = str(RETRY_S)
    return await in_thread(container.serializers.batch, records)
