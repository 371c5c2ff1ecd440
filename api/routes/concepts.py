"""Concepts: learned from references, listed, read, downloaded, deleted."""

from __future__ import annotations

import time
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse

from api.deletion import delete_concept
from api.dependencies import (
    AppContainer,
    ConceptId,
    Container,
    Cursor,
    DryRun,
    IdempotencyKey,
    Limit,
    Reader,
    Wait,
    in_thread,
    needs,
)
from api.dry_run import FINISHED_OR_DRY, customize_plan, dry_run_of
from api.openapi import IMAGE, OTHER_IMAGE, example_bodies, refusals
from api.problems import ProblemError, input_problem, not_found, unknown_reference
from api.serializers import at, submit_and_answer
from api.submission import Submission, check, submit
from customedit.concepts.prompts import ConceptPrompts
from customedit.errors import InputError
from customedit.jobs.records import ConceptRecord
from customedit.jobs.store import Submitted
from customedit.schemas import answers as d
from customedit.schemas import ids
from customedit.schemas.concepts import CustomizeRequest, reference_warnings
from customedit.tenants.access import ApiKey

router = APIRouter(tags=["concepts"])
Writer = Annotated[ApiKey, needs("concepts:write")]
EXAMPLES = example_bodies(
    {
        "plain": {
            "references": [IMAGE, OTHER_IMAGE],
            "noun": "teapot",
            "attribute": "patterned",
            "token": "<plaid>",
        },
        "expert": {
            "references": [IMAGE],
            "noun": "cup",
            "name": "Our house style",
            "training": {"way": "textual-inversion", "steps": 400, "seed": 7},
        },
    }
)


@router.post(
    "/v1/concepts",
    operation_id="createConcept",
    summary="Learn a concept from reference images",
    response_model=d.Job | d.DryRun,
    status_code=202,
    responses={
        200: {"model": d.Job | d.DryRun, "description": FINISHED_OR_DRY},
        202: {"model": d.Job, "description": "Queued."},
        **refusals(
            "malformed",
            "idempotency-in-flight",
            "request-timeout",
            "too-large",
            "unsupported-media-type",
            "validation",
            "unknown-image",
            "idempotency-conflict",
            "queue-full",
        ),
    },
    openapi_extra=EXAMPLES,
)
async def create_concept(
    request: CustomizeRequest,
    response: Response,
    container: AppContainer,
    caller: Writer,
    wait: Wait,
    dry_run: DryRun = False,
    idempotency_key: IdempotencyKey = None,
) -> d.DryRun | Response:
    """Starts a training with 1 to 20 references; 3 to 6 are best.

    The concept's id is in the answer; it can be used once the job has succeeded.
    """
    if dry_run:
        response.status_code = 200
        return await in_thread(_try, container, caller.tenant, request)
    make = partial(_customize, container, caller.tenant, request, idempotency_key)
    return await submit_and_answer(container, make, wait)


def _customize(
    container: Container, tenant: str, request: CustomizeRequest, key: str | None
) -> Submitted:
    return submit(container, _submission(container, tenant, request, key))


def _try(container: Container, tenant: str, request: CustomizeRequest) -> d.DryRun:
    record = check(container, _submission(container, tenant, request))
    return dry_run_of(container, record, lambda base: customize_plan(request, base))


def _submission(
    container: Container, tenant: str, request: CustomizeRequest, key: str | None = None
) -> Submission:
    job = ids.new("job")
    concept = ConceptRecord(
        id=ids.new("con"),
        tenant=tenant,
        job=job,
        name=request.name,
        token=request.token,
        noun=request.noun,
        attribute=request.attribute,
        references=list(request.references),
        created_at=time.time(),
        warnings=reference_warnings(len(request.references)),
    )

    def check() -> None:
        for name in ("references", "masks"):
            for number, image in enumerate(getattr(request, name)):
                if container.images.get(tenant, image) is None:
                    raise unknown_reference(image, f"{name}[{number}]")
        for noun in dict.fromkeys([request.noun, *request.nouns]):
            prompts = ConceptPrompts(request.token, noun, request.attribute)
            check_words(container, prompts, {request.token: 1})

    return Submission(tenant, "customize", request, key, concept=concept, check=check, id=job)


def check_words(container: Container, prompts: ConceptPrompts, columns: dict[str, int]) -> None:
    """Refuse words of which the workers' bases cannot read the prompts of a training.

    columns: as of ``ConceptRecord``.

    Raises:
        ProblemError: validation, of the noun or the attribute.
    """
    try:
        prompts.check(lambda prompt, field: container.bases.check_prompt(prompt, columns, field))
    except InputError as error:
        raise input_problem(error) from None


@router.get(
    "/v1/concepts",
    operation_id="listConcepts",
    summary="List concepts",
    response_model=d.Page[d.Concept],
    responses=refusals("validation"),
)
def list_concepts(
    container: AppContainer, caller: Reader, cursor: Cursor = None, limit: Limit = 20
) -> d.Page[d.Concept]:
    """Your concepts, newest first, those in training and those that failed as well."""
    page = container.concepts.list(caller.tenant, cursor=cursor, limit=limit)
    return d.Page(
        items=[container.serializers.concept(r) for r in page.items], next_cursor=page.next_cursor
    )


@router.get(
    "/v1/concepts/{id}",
    operation_id="getConcept",
    summary="Read a concept",
    response_model=d.Concept,
    responses=refusals("not-found", "validation"),
)
def get_concept(id: ConceptId, container: AppContainer, caller: Reader) -> d.Concept:
    """A concept, what it was made of and how."""
    return container.serializers.concept(_concept(container, caller, id))


def _concept(container: Container, caller: ApiKey, id_: str) -> ConceptRecord:
    record = container.concepts.get(caller.tenant, id_)
    if record is None:
        raise not_found("concept", id_)
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
    container: AppContainer,
    caller: Reader,
    format: Annotated[
        Literal["customedit", "diffusers"],
        Query(description="The service's own, which can be imported, or what diffusers loads."),
    ] = "customedit",
    redirect: Annotated[bool, Query(description="Answer 302 to the file.")] = False,
) -> d.Weights | Response:
    """Gives a presigned address of the file: safetensors, or for diffusers a zip."""
    record = _concept(container, caller, id)
    key = record.weights_key if format == "customedit" else record.diffusers_key
    if record.state != "ready":
        raise ProblemError("not-ready", f"{id} is {record.state}", field="id", limit="state ready")
    if key is None:
        raise ProblemError(
            "not-found", f"{id} has no file as {format}", field="format", limit="customedit"
        )
    filename = f"{record.token.strip('<>') or id}-{format}{PurePosixPath(key).suffix}"
    url = container.storage.presign_get(key, filename)
    if redirect:
        return RedirectResponse(url, 302)
    expires = at(time.time() + container.settings.presign_seconds)
    return d.Weights(format=format, filename=filename, url=url, expires_at=expires)


@router.delete(
    "/v1/concepts/{id}",
    operation_id="deleteConcept",
    summary="Delete a concept",
    status_code=204,
    responses=refusals("not-found", "in-use", "validation"),
)
def remove_concept(id: ConceptId, container: AppContainer, caller: Writer) -> None:
    """Removes its files and its record. Pictures that were made with it stay."""
    delete_concept(container, caller.tenant, id)
