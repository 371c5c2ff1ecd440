"""Edits: pictures changed by prompt, with concepts or without.

An edit is refused before a job is made unless its images and concepts are there and its words have
an effect.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Response

from api import submission
from api.dependencies import (
    AppContainer,
    Container,
    Cursor,
    DryRun,
    IdempotencyKey,
    JobId,
    Limit,
    Reader,
    Wait,
    in_thread,
    needs,
)
from api.dry_run import FINISHED_OR_DRY, dry_run_of, edit_plan
from api.image_sides import Sides
from api.image_storage import check_mask
from api.openapi import CONCEPT, IMAGE, example_bodies, refusals
from api.problems import ProblemError, input_problem, not_found, unknown_reference
from api.routes.jobs import StateFilter, job_page
from api.serializers import job_response, submit_and_answer
from api.submission import Submission, submit
from customedit.boxes import check_cells
from customedit.editing.region_words import ConceptWords
from customedit.editing.settings import CheckedRequest, check_request
from customedit.errors import InputError
from customedit.images.masks import check_aspect, same_aspect
from customedit.jobs.bases import Bases
from customedit.jobs.records import ConceptRecord, output_record
from customedit.jobs.store import Submitted
from customedit.prompt_syntax import check_prompt
from customedit.schemas import answers as d
from customedit.schemas import ids
from customedit.schemas.requests import ConceptUse, EditRequest
from customedit.tenants.access import ApiKey

router = APIRouter(tags=["edits"])
Size = tuple[int, int]
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
    response_model=d.Job | d.DryRun,
    status_code=202,
    responses={
        200: {"model": d.Job | d.DryRun, "description": FINISHED_OR_DRY},
        202: {"model": d.Job, "description": "Queued."},
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
    dry_run: DryRun = False,
    idempotency_key: IdempotencyKey = None,
) -> d.DryRun | Response:
    """Say in words what the picture shall show; name a concept by its token.

    Several strengths and seeds make several pictures in one job, which share the inversion.
    """
    if request.mask is not None:
        await check_mask(container, caller.tenant, request.mask, request.mask_marks)
    for k, use in enumerate(request.concepts):
        if use.mask is not None:
            await check_mask(container, caller.tenant, use.mask, field=f"concepts[{k}].mask")
    if dry_run:
        response.status_code = 200
        return await in_thread(try_edit, container, caller.tenant, request)
    make = partial(_edit, container, caller.tenant, request, idempotency_key)
    return await submit_and_answer(container, make, wait)


def try_edit(container: Container, tenant: str, request: EditRequest) -> d.DryRun:
    """What the edit would do."""
    checked = list[CheckedEdit]()
    for _, picture in _named_pictures(request):
        if ids.output_of(picture) is None:  # no script will notice one that is deleted
            container.image_sides.read(tenant, picture)

    def check() -> Size | None:
        checked.append(check_edit(container, tenant, request))
        return checked[0].size

    record = submission.check(container, Submission(tenant, "edit", request, check=check))
    (edit,) = checked
    return dry_run_of(
        container,
        record,
        lambda base: edit_plan(request, edit.settings, edit.concepts, edit.size, base),
    )


def _edit(container: Container, tenant: str, request: EditRequest, key: str | None) -> Submitted:
    def check() -> Size | None:
        return check_edit(container, tenant, request).size

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


@dataclass(frozen=True)
class CheckedEdit:
    """An edit that can be made. size: (width, height) of its picture; concepts: in its order."""

    size: Size | None
    concepts: list[ConceptRecord]
    settings: CheckedRequest


def check_edit(container: Container, tenant: str, request: EditRequest) -> CheckedEdit:
    """Refuse an edit that names what its tenant does not have, or a concept without effect.

    Raises:
        ProblemError: unknown-image, unknown-concept, not-ready, validation.
    """
    pictures = {
        field: _sides_of(container, tenant, picture, field)
        for field, picture in _named_pictures(request)
    }
    if request.mask is not None:
        _check_mask_aspect(pictures["mask"], pictures["image"])
    for k, use in enumerate(request.concepts):
        _check_region(container, use, f"concepts[{k}].{use.region}", pictures)
    records = [
        _ready_concept(container, tenant, use.id, f"concepts[{k}].id")
        for k, use in enumerate(request.concepts)
    ]
    image = pictures["image"]
    size = None if image is None else image.size
    checked = CheckedEdit(size, records, _check_words(request, records))
    _check_length(container.bases, request, records)
    return checked


def _named_pictures(request: EditRequest) -> Iterator[tuple[str, str]]:
    """Field and id of each picture that the request names."""
    yield "image", request.image
    if request.mask is not None:
        yield "mask", request.mask
    for k, use in enumerate(request.concepts):
        if use.mask is not None:
            yield f"concepts[{k}].mask", use.mask
    for k, image in enumerate(request.references):
        yield f"references[{k}]", image


def _sides_of(container: Container, tenant: str, id_: str, field: str) -> Sides | None:
    """Those of an image or an output; None: it is there, and nobody wrote its size down."""
    if (output := ids.output_of(id_)) is not None:
        job = container.jobs.get(tenant, output[0])
        found = None if job is None else output_record(job, output[1])
        if found is None:
            raise unknown_reference(id_, field)
        return Sides((found.width, found.height)) if found.width and found.height else None
    if (sides := container.image_sides.get(tenant, id_)) is None:
        raise unknown_reference(id_, field)
    return sides


def _check_region(
    container: Container, use: ConceptUse, field: str, pictures: Mapping[str, Sides | None]
) -> None:
    """Refuse a concept's region that does not fit the picture, or is empty in its latent cells.

    field: the region's own. Of a box in a picture of unknown size, or where no worker's base is
    known, the worker says the latter.
    """
    if use.mask is not None:
        _check_mask_aspect(pictures[field], pictures["image"], field)
    if use.box is None or (image := pictures["image"]) is None:
        return
    if (worker := container.forecasts.base()) is not None:
        with _as_problem():
            check_cells(use.box, worker.base.latent_grid(image.size), field)


def _check_mask_aspect(mask: Sides | None, picture: Sides | None, field: str = "mask") -> None:
    """Refuse a mask of another aspect; what its pixels must be is checked before.

    Where a record of an earlier version does not say whether its picture is upright, a mask that
    would fit turned is left to the worker.
    """
    if mask is None or picture is None:
        return
    width, height = mask.size
    known = mask.upright and picture.upright
    if known or not same_aspect((height, width), picture.size):
        with _as_problem():
            check_aspect(mask.size, picture.size, field)


def _ready_concept(container: Container, tenant: str, id_: str, field: str) -> ConceptRecord:
    record = container.concepts.get(tenant, id_)
    if record is None:
        raise unknown_reference(id_, field)
    if record.state != "ready":
        raise ProblemError(
            "not-ready", f"{field}: {id_} is {record.state}", field=field, limit="state ready"
        )
    try:
        container.bases.check_concept(record.base)
    except InputError as error:
        raise _refused(field, error.problem, error.remedy) from None
    return record


def _check_words(request: EditRequest, records: list[ConceptRecord]) -> CheckedRequest:
    """The settings, resolved, once each concept is named and what is said of words can be done.

    A file from elsewhere may hold further tokens than the one of its record, where an earlier
    version did not record them: of such concepts the worker checks the rest.
    """
    named = request.tokens
    tokens = [tuple(record.columns) or (record.token,) for record in records]
    known = [token for of_record in tokens for token in of_record]
    foreign = [record for record in records if not (record.references or record.columns)]
    others = [token for token in named if token not in known] if foreign else []
    for k, of_record in enumerate(tokens):
        taken = {token for earlier in tokens[:k] for token in earlier}
        if twice := taken.intersection(of_record):
            raise _refused(
                f"concepts[{k}].id",
                f"two concepts have the token {min(twice)}",
                "one concept of each token; import one of them under another token",
            )
    with _as_problem():
        for field in ("source_prompt", "target_prompt"):
            check_prompt(getattr(request, field), [*known, *others], field)
    concepts = [ConceptWords((token,)) for token in others]
    for k, (record, of_record) in enumerate(zip(records, tokens, strict=True)):
        if request.everywhere or not set(named).isdisjoint(of_record):
            region = f"concepts[{k}].{request.concepts[k].region}"
            region = region if request.concepts[k].region else ""
            concepts.append(ConceptWords(of_record, record.noun, record.attribute, region))
        elif record not in foreign or not others:
            raise _without_effect(f"concepts[{k}].id", record)
    with _as_problem():
        return check_request(request, concepts, mask=request.mask is not None)


def _check_length(bases: Bases, request: EditRequest, records: list[ConceptRecord]) -> None:
    """Refuse prompts that no base of the workers can read.

    Where it is not recorded how many columns a concept's token takes, it is taken for none here.
    """
    columns = {token: n for record in records for token, n in record.columns.items()}
    with _as_problem():
        for field in ("source_prompt", "target_prompt"):
            bases.check_prompt(getattr(request, field), columns, field)


@contextlib.contextmanager
def _as_problem() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise input_problem(error) from None


def _without_effect(field: str, record: ConceptRecord) -> ProblemError:
    words = " ".join(part for part in (record.token, record.attribute, record.noun) if part)
    return _refused(
        field,
        f"the target prompt does not name {record.token}, so the concept has no effect",
        f'write "{words}" in target_prompt, or leave the concept out',
    )


def _refused(field: str, problem: str, limit: str) -> ProblemError:
    return ProblemError("validation", f"{field}: {problem}", field=field, limit=limit)
