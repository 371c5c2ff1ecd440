"""Edits: pictures painted anew by prompt, with concepts or without."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response

from api.auth import Here, Reader, needs
from api.container import Services, in_thread
from api.examples import EDIT
from api.openapi import refusals
from api.params import Cursor, IdempotencyKey, JobId, Limit, Wait, no_such
from api.problems import Refused
from api.routes.jobs import StateFilter, job_page
from api.submission import Submission, submit, unknown
from api.waiting import answer, read
from customedit.jobs.store import Submitted
from customedit.schemas import answers as d
from customedit.schemas.requests import EditRequest
from customedit.tenants.api_keys import ApiKey

router = APIRouter(tags=["edits"])
Writer = Annotated[ApiKey, needs("edits:write")]


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
            "too-large",
            "unsupported-media-type",
            "validation",
            "unknown-image",
            "unknown-concept",
            "idempotency-conflict",
            "queue-full",
        ),
    },
    openapi_extra=EDIT,
)
async def create_edit(
    asked: EditRequest,
    response: Response,
    here: Here,
    caller: Writer,
    wait: Wait,
    idempotency_key: IdempotencyKey = None,
) -> d.Job:
    """Says in words what is to be seen instead; a concept is named by its token.

    Several strengths and seeds make several pictures in one job, which share the inversion.
    """
    made = await in_thread(_edit, here, caller.tenant, asked, idempotency_key)
    return await answer(here, made, wait, response)


def _edit(here: Services, tenant: str, asked: EditRequest, key: str | None) -> Submitted:
    def check() -> None:
        _check_images(here, tenant, asked)
        _check_concepts(here, tenant, asked)

    return submit(here, Submission(tenant, "edit", asked, key, check=check))


def _check_images(here: Services, tenant: str, asked: EditRequest) -> None:
    named = {"image": asked.image}
    if asked.mask is not None:
        named["mask"] = asked.mask
    named |= {f"references[{k}]": image for k, image in enumerate(asked.references)}
    for where, image in named.items():
        if here.images.get(tenant, image) is None:
            raise unknown(image, where)


def _check_concepts(here: Services, tenant: str, asked: EditRequest) -> None:
    """All concepts are there and ready, and the prompt names no token but theirs."""
    known: set[str] = set()
    all_known = True
    for number, use in enumerate(asked.concepts):
        where = f"concepts[{number}].id"
        record = here.concepts.get(tenant, use.id)
        if record is None:
            raise unknown(use.id, where)
        if record.state != "ready":
            raise Refused(
                "not-ready",
                f"{where}: {use.id} is {record.state}",
                field=where,
                limit="state ready",
            )
        if record.token in known:
            raise Refused(
                "validation",
                f"{where}: two concepts have the token {record.token}",
                field=where,
                limit="each token once",
            )
        known.add(record.token)
        all_known &= bool(record.references)  # a file from elsewhere may hold further tokens
    for token in asked.tokens:
        if all_known and token not in known:
            raise Refused(
                "validation",
                f"target_prompt: {token} is the token of no concept in this request",
                field="target_prompt",
                limit=f"tokens of its concepts: {', '.join(sorted(known)) or 'none are given'}",
            )


@router.get(
    "/v1/edits",
    operation_id="listEdits",
    summary="List edits",
    response_model=d.Page[d.Job],
    responses=refusals("validation"),
)
def list_edits(
    here: Here,
    caller: Reader,
    state: StateFilter = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> d.Page[d.Job]:
    """Your edits, newest first."""
    found = here.jobs.list(caller.tenant, kind="edit", state=state, cursor=cursor, limit=limit)
    return job_page(here, found)


@router.get(
    "/v1/edits/{id}",
    operation_id="getEdit",
    summary="Read an edit",
    response_model=d.Job,
    responses=refusals("not-found", "validation"),
)
async def get_edit(id: JobId, response: Response, here: Here, caller: Reader, wait: Wait) -> d.Job:
    """An edit; once it has succeeded, with its pictures, their recipes and similarities."""
    record = await in_thread(here.jobs.get, caller.tenant, id)
    if record is None or record.kind != "edit":
        raise no_such("edit", id)
    return await read(here, record, wait, response)
