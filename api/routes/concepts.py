"""Concepts: learnt from references, brought in from files, given out as files."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse

from api.auth import Here, Reader, needs
from api.container import Services, in_thread
from api.examples import CUSTOMIZE
from api.openapi import refusals
from api.params import ConceptId, Cursor, IdempotencyKey, Limit, Wait, no_such
from api.problems import Refused
from api.serializers import at, warnings
from api.submission import Submission, submit, unknown
from api.waiting import answer
from customedit.jobs.records import ConceptRecord
from customedit.jobs.store import Submitted
from customedit.schemas import answers as d
from customedit.schemas import ids
from customedit.schemas.requests import CustomizeRequest
from customedit.tenants.api_keys import ApiKey

router = APIRouter(tags=["concepts"])
Writer = Annotated[ApiKey, needs("concepts:write")]


@router.post(
    "/v1/concepts",
    operation_id="createConcept",
    summary="Learn a concept from reference images",
    response_model=d.Job,
    status_code=202,
    responses={
        200: {"model": d.Job, "description": "Finished within the wait that was preferred."},
        **refusals(
            "malformed",
            "idempotency-in-flight",
            "too-large",
            "unsupported-media-type",
            "validation",
            "unknown-image",
            "idempotency-conflict",
            "queue-full",
        ),
    },
    openapi_extra=CUSTOMIZE,
)
async def create_concept(
    asked: CustomizeRequest,
    response: Response,
    here: Here,
    caller: Writer,
    wait: Wait,
    idempotency_key: IdempotencyKey = None,
) -> d.Job:
    """Starts a training. 1 to 20 references are taken, 3 to 6 are best.

    The concept's id is in the answer; it can be used once the job has succeeded.
    """
    made = await in_thread(_customize, here, caller.tenant, asked, idempotency_key)
    return await answer(here, made, wait, response)


def _customize(here: Services, tenant: str, asked: CustomizeRequest, key: str | None) -> Submitted:
    job = ids.new("job")
    concept = ConceptRecord(
        id=ids.new("con"),
        tenant=tenant,
        job=job,
        name=asked.name,
        token=asked.token,
        noun=asked.noun,
        attribute=asked.attribute,
        references=list(asked.references),
        created_at=time.time(),
        warnings=warnings("customize", asked.references),
    )

    def check() -> None:
        for number, image in enumerate(asked.references):
            if here.images.get(tenant, image) is None:
                raise unknown(image, f"references[{number}]")

    return submit(
        here,
        Submission(tenant, "customize", asked, key, concept=concept, check=check, id=job),
    )


@router.get(
    "/v1/concepts",
    operation_id="listConcepts",
    summary="List concepts",
    response_model=d.Page[d.Concept],
    responses=refusals("validation"),
)
def list_concepts(
    here: Here, caller: Reader, cursor: Cursor = None, limit: Limit = 20
) -> d.Page[d.Concept]:
    """Your concepts, newest first, those in training and those that failed as well."""
    page = here.concepts.list(caller.tenant, cursor=cursor, limit=limit)
    return d.Page(items=[here.views.concept(r) for r in page.items], next_cursor=page.next_cursor)


@router.get(
    "/v1/concepts/{id}",
    operation_id="getConcept",
    summary="Read a concept",
    response_model=d.Concept,
    responses=refusals("not-found", "validation"),
)
def get_concept(id: ConceptId, here: Here, caller: Reader) -> d.Concept:
    """A concept, what it was made of and how."""
    return here.views.concept(_concept(here, caller, id))


def _concept(here: Services, caller: ApiKey, id_: str) -> ConceptRecord:
    record = here.concepts.get(caller.tenant, id_)
    if record is None:
        raise no_such("concept", id_)
    return record


@router.get(
    "/v1/concepts/{id}/weights",
    operation_id="getConceptWeights",
    summary="Download a concept",
    response_model=d.Weights,
    responses={
        302: {"description": "With `redirect=true`: the file's address is in `Location`."},
        **refusals("not-found", "not-ready", "validation"),
    },
)
def get_weights(
    id: ConceptId,
    here: Here,
    caller: Reader,
    format: Annotated[
        Literal["customedit", "diffusers"],
        Query(description="The service's own, which can be imported, or what diffusers loads."),
    ] = "customedit",
    redirect: Annotated[bool, Query(description="Answer 302 to the file.")] = False,
) -> d.Weights | Response:
    """Gives a presigned address of the file (safetensors)."""
    record = _concept(here, caller, id)
    key = record.weights_key if format == "customedit" else record.diffusers_key
    if record.state != "ready":
        raise Refused("not-ready", f"{id} is {record.state}", field="id", limit="state ready")
    if key is None:
        raise Refused(
            "not-found", f"{id} has no file as {format}", field="format", limit="customedit"
        )
    filename = f"{record.token.strip('<>') or id}-{format}.safetensors"
    url = here.storage.presign_get(key, filename)
    if redirect:
        return RedirectResponse(url, 302)
    expires = at(time.time() + here.settings.presign_seconds)
    return d.Weights(format=format, filename=filename, url=url, expires_at=expires)


@router.delete(
    "/v1/concepts/{id}",
    operation_id="deleteConcept",
    summary="Delete a concept",
    status_code=204,
    responses=refusals("not-found", "in-use", "validation"),
)
def delete_concept(id: ConceptId, here: Here, caller: Writer) -> None:
    """Removes its files and all that is known of it. Pictures that were made with it stay."""
    here.deleting.concept(caller.tenant, id)
