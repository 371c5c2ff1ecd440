"""``POST /v1/images/edits``, as clients of OpenAI's images API call it."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile

from api.deletion import cancel_job
from api.dependencies import AppContainer, Container, in_thread, needs
from api.forms import form_schema, read_files
from api.image_storage import check_mask, store_image
from api.openai import MODEL, ImageEditForm, encoded
from api.openapi import refusals
from api.problem_types import PATH as PROBLEMS
from api.problem_types import TYPES
from api.problems import ProblemError, input_problem
from api.routes.edits import check_edit
from api.serializers import wait_for_end
from api.submission import Submission, submit
from customedit.errors import InputError
from customedit.jobs.records import ConceptRecord, EditOutcome, ImageRecord, JobRecord
from customedit.prompt_syntax import tokens_in
from customedit.schemas import answers as d
from customedit.schemas.requests import MAX_CONCEPTS, ConceptUse, EditRequest
from customedit.tenants.access import ApiKey

router = APIRouter(tags=["edits"])
Writer = Annotated[ApiKey, needs("edits:write")]
FILES: Final = {"image": True, "mask": False}
LONGEST_S: Final = 600
"""After so many seconds the job is cancelled and the request refused."""

_LOOK_S: Final = 2
_PAGE: Final = 100


@router.post(
    "/v1/images/edits",
    operation_id="editImage",
    summary="Edit a picture, as with OpenAI's images API",
    response_model=d.OpenAIImages,
    responses=refusals(
        "malformed",
        "request-timeout",
        "too-large",
        "unsupported-media-type",
        "validation",
        "unusable-image",
        "unknown-concept",
        "queue-full",
    ),
    openapi_extra=form_schema(
        ImageEditForm,
        {"image": "the picture's bytes", "prompt": "a <plaid> patterned teapot", "n": 2},
        FILES,
    ),
)
async def edit_image(request: Request, container: AppContainer, caller: Writer) -> Response:
    """One call from a picture to its edits; programs written for OpenAI's API need no change.

    The mask is a PNG that is transparent where the picture may change. Errors have OpenAI's form
    (``{"error": {...}}``); options that have no meaning here are refused by name.
    """
    async with read_files(request, ImageEditForm, FILES) as form:
        fields = form.fields
        _check_fields(fields)
        await in_thread(_check_worker, container, fields)
        image = await _stored(container, caller.tenant, form.files, "image")
        mask = await _stored(container, caller.tenant, form.files, "mask")
    assert image is not None
    _check_size(fields, image)
    if mask is not None:
        await check_mask(container, caller.tenant, mask.id, "transparent")
    record = await in_thread(_submit, container, caller.tenant, fields, image, mask)
    record = await _ended(request, container, record)
    return JSONResponse(await in_thread(_document, container, fields, record))


async def _stored(
    container: Container, tenant: str, files: dict[str, UploadFile], name: str
) -> ImageRecord | None:
    if (file := files.get(name)) is None:
        return None
    record, _ = await store_image(container, tenant, file.read, name, file.filename)
    return record


def _check_fields(form: ImageEditForm) -> None:
    """Refuse what contradicts itself or would have no effect."""
    if form.source_prompt and form.n > 1:
        raise _refused("n", f"is {form.n}, and with source_prompt each would be the same", "1")
    if form.source_prompt and "seed" in form.model_fields_set:
        raise _refused("seed", "has no effect with source_prompt", "leave it out")
    if form.output_compression is not None and form.output_format == "png":
        raise _refused("output_compression", "has no effect on png", "jpeg or webp")
    if form.response_format == "url" and form.output_format != "png":
        raise _refused("output_format", "is png with response_format url", "png, or b64_json")


def _check_worker(container: Container, form: ImageEditForm) -> None:
    """The caller waits for a worker, so one must run; and the model must be the one that it has."""
    worker = container.forecasts.base()
    known = [MODEL] + ([worker.base.name] if worker is not None else [])
    if form.model is not None and form.model not in known:
        raise _refused("model", f"there is no model {form.model}", f"one of {', '.join(known)}")
    if worker is None:
        raise ProblemError("unavailable", "no worker is running; try again later")


def _check_size(form: ImageEditForm, image: ImageRecord) -> None:
    own = f"{image.width}x{image.height}"
    if form.size not in (None, "auto", own):
        raise _refused("size", f"is {form.size}; an edit has its picture's", f"auto or {own}")


def _submit(
    container: Container,
    tenant: str,
    form: ImageEditForm,
    image: ImageRecord,
    mask: ImageRecord | None,
) -> JobRecord:
    p2p = bool(form.source_prompt.strip())
    fields: dict[str, Any] = {
        "image": image.id,
        "target_prompt": form.prompt,
        "source_prompt": form.source_prompt,
        "method": "p2p" if p2p else "sdedit",
        "seeds": [0] if p2p else list(range(form.seed, form.seed + form.n)),
        "steps": form.steps,
        "change": form.change,
        "concepts": _concepts(container, tenant, form.prompt),
    }
    if mask is not None:
        fields |= {"mask": mask.id, "mask_marks": "transparent"}
    request = EditRequest.model_validate(fields)

    def check() -> tuple[int, int] | None:
        return check_edit(container, tenant, request).size

    return submit(container, Submission(tenant, "edit", request, check=check)).record


def _concepts(container: Container, tenant: str, prompt: str) -> list[ConceptUse]:
    """The newest concept that is ready, for each token that the prompt names."""
    wanted = dict.fromkeys(tokens_in(prompt))
    found: dict[str, ConceptRecord] = {}
    cursor: str | None = None
    while wanted.keys() - found.keys():
        page = container.concepts.list(tenant, cursor=cursor, limit=_PAGE)
        for record in page.items:
            if record.state == "ready" and record.token in wanted:
                found.setdefault(record.token, record)
        if (cursor := page.next_cursor) is None:
            break
    for token in wanted:
        if token not in found:
            raise ProblemError(
                "unknown-concept",
                f"you have no concept {token} that is ready",
                field="prompt",
                limit="tokens of your concepts",
            )
    if len(found) > MAX_CONCEPTS:
        raise _refused("prompt", f"names {len(found)} concepts", f"at most {MAX_CONCEPTS}")
    return [ConceptUse(id=found[token].id) for token in wanted]


async def _ended(request: Request, container: Container, record: JobRecord) -> JobRecord:
    """The job at its end; it is cancelled if the caller leaves, or if it takes too long.

    Raises:
        ProblemError: it took too long, failed, or was cancelled.
    """
    until = time.monotonic() + LONGEST_S
    while not record.finished:
        left = until - time.monotonic()
        gone = await request.is_disconnected()
        if gone or left <= 0 or container.stopping():
            await in_thread(cancel_job, container, record)
            raise ProblemError("unavailable", "the edit was not finished in time; it is cancelled")
        record = await wait_for_end(container, record, _LOOK_S)
    if record.error is not None:
        slug = record.error.type.removeprefix(PROBLEMS)
        kind = TYPES.get(slug, TYPES["internal"])
        raise ProblemError(
            kind.slug if kind.status else "validation" if record.error.field else "internal",
            record.error.detail or record.error.title,
            field=record.error.field,
        )
    if record.result is None:
        raise ProblemError("internal", "the job was cancelled")
    return record


def _document(container: Container, form: ImageEditForm, record: JobRecord) -> dict[str, Any]:
    outcome = EditOutcome.model_validate(record.result)
    data: list[dict[str, str]] = []
    for output in outcome.outputs:
        if form.response_format == "url":
            data.append({"url": container.storage.presign_get(output.image_key)})
        else:
            data.append({"b64_json": encoded(container.storage.get(output.image_key), form)})
    document: dict[str, Any] = {
        "created": int(record.created_at),
        "data": data,
        "background": "opaque",
        "output_format": form.output_format,
    }
    first = outcome.outputs[0]
    if first.width and first.height:
        document["size"] = f"{first.width}x{first.height}"
    return document


def _refused(field: str, problem: str, limit: str) -> ProblemError:
    return input_problem(InputError(field, problem, limit))
