"""Edits: pictures changed by prompt, with concepts or without."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response

from api.dependencies import (
    AppContainer,
    Container,
    Cursor,
    IdempotencyKey,
    JobId,
    Limit,
    Reader,
    Wait,
    in_thread,
    needs,
)
from api.edit_checks import check_edit
from api.job_responses import job_response, submitted_response
from api.openapi import CONCEPT, IMAGE, example_bodies, refusals
from api.problems import not_found
from api.routes.jobs import StateFilter, job_page
from api.submission import Submission, submit
from customedit.jobs.store import Submitted
from customedit.schemas import answers as d
from customedit.schemas.requests import EditRequest
from customedit.tenants.access import ApiKey

router = APIRouter(tags=["edits"])
Writer = Annotated[ApiKey, needs("edits:write")]
EXAMPLES = example_bodies(
    {
        "plain": {
            "image": IMAGE,
            "source_prompt": "a photo of a teapot on a table",
            "target_prompt": "a photo of a <plaid> patterned teapot on a table",
            "concepts": [{"id": CONCEPT}],
        },
        "several strengths": {
            "image": IMAGE,
            "source_prompt": "a photo of a teapot",
            "target_prompt": "a photo of a <plaid> patterned teapot",
            "concepts": [{"id": CONCEPT, "weight": 0.8}],
            "strengths": [0.3, 0.5, 0.7],
            "seeds": [0],
            "preserve": True,
        },
        "no concept": {"image": IMAGE, "target_prompt": "a blue teapot", "method": "sdedit"},
    }
)


@router.post(
    "/v1/edits",
    operation_id="createEdit",
    summary="Edit a picture",
    response_model=d.Job,
    status_code=202,
    responses={
        200: {"model": d.Job, "description": "Finished within the wait that was preferred."},
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
async def create_edit(
    request: EditRequest,
    response: Response,
    container: AppContainer,
    caller: Writer,
    wait: Wait,
    idempotency_key: IdempotencyKey = None,
) -> d.Job:
    """Say in words what the picture shall show; name a concept by its token.

    Several strengths and seeds make several pictures in one job, which share the inversion.
    """
    submitted = await in_thread(_edit, container, caller.tenant, request, idempotency_key)
    return await submitted_response(container, submitted, wait, response)


def _edit(container: Container, tenant: str, request: EditRequest, key: str | None) -> Submitted:
    def check() -> None:
        check_edit(container, tenant, request)

    return submit(container, Submission(tenant, "edit", request, key, check=check))


@router.get(
    "/v1/edits",
    operation_id="listEdits",
    summary="List edits",
    response_model=d.Page[d.Job],
    responses=refusals("validation"),
)
def list_edits(
    container: AppContainer,
    caller: Reader,
    state: StateFilter = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> d.Page[d.Job]:
    """Your edits, newest first."""
    page = container.jobs.list(caller.tenant, kind="edit", state=state, cursor=cursor, limit=limit)
    return job_page(container, page)


@router.get(
    "/v1/edits/{id}",
    operation_id="getEdit",
    summary="Read an edit",
    response_model=d.Job,
    responses=refusals("not-found", "validation"),
)
async def get_edit(
    id: JobId, response: Response, container: AppContainer, caller: Reader, wait: Wait
) -> d.Job:
    """An edit; once it has succeeded, with its pictures, their recipes and similarities."""
    record = await in_thread(container.jobs.get, caller.tenant, id)
    if record is None or record.kind != "edit":
        raise not_found("edit", id)
    return await job_response(container, record, wait, response)
