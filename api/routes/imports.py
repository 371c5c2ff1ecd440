"""Concepts from files: stored as they came, read by a worker and by nobody else."""

from __future__ import annotations

import hashlib
import os
import time
from typing import IO, Annotated, Final

from fastapi import APIRouter, Request, Response

from api.dependencies import AppContainer, Container, IdempotencyKey, Wait, in_thread, needs
from api.forms import form_schema, read_form
from api.openapi import refusals
from api.problems import input_problem
from api.routes.concepts import check_words
from api.serializers import submitted_response
from api.submission import Submission, submit
from customedit.concepts.prompts import ConceptPrompts
from customedit.errors import InputError
from customedit.jobs.records import ConceptRecord
from customedit.jobs.store import Submitted
from customedit.schemas import answers as d
from customedit.schemas import ids
from customedit.schemas.concepts import ImportForm, ImportRequest
from customedit.storage import object_keys
from customedit.tenants.access import ApiKey

router = APIRouter(tags=["concepts"])
Writer = Annotated[ApiKey, needs("concepts:write")]
MIN_BYTES: Final = 16
_HEADS: Final = (b"PK\x03\x04", b"\x80\x02")
_FORMATS: Final = "a safetensors file, a zip of them, or a PyTorch file"
_EXAMPLE: Final = {
    "file": "the file's bytes",
    "noun": "teapot",
    "attribute": "patterned",
    "token": "<plaid>",
    "name": "Plaid, from elsewhere",
}


@router.post(
    "/v1/concepts/import",
    operation_id="importConcept",
    summary="Make a concept from a file",
    response_model=d.Job,
    status_code=202,
    responses={
        200: {"model": d.Job, "description": "Finished within the wait that was preferred."},
        **refusals(
            "malformed",
            "idempotency-in-flight",
            "request-timeout",
            "too-large",
            "unsupported-media-type",
            "validation",
            "idempotency-conflict",
            "queue-full",
            "too-many-imports",
        ),
    },
    openapi_extra=form_schema(ImportForm, _EXAMPLE),
)
async def import_concept(
    request: Request,
    container: AppContainer,
    caller: Writer,
    wait: Wait,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Takes the service's own files, Custom Diffusion, textual inversion and LoRA, also zipped."""
    async with (
        container.imports.hold(caller.tenant),
        read_form(request, ImportForm) as form,
    ):
        submitted = await in_thread(
            _import, container, caller.tenant, form.file.file, form.fields, idempotency_key
        )
    return await submitted_response(container, submitted, wait)


def _import(
    container: Container, tenant: str, file: IO[bytes], form: ImportForm, key: str | None
) -> Submitted:
    size = _checked_size(file, container.settings.max_import_bytes)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it reads into a buffer
    file.seek(0)
    job = ids.new("job")
    stored_at = object_keys.given(tenant, job)
    request = ImportRequest(**form.model_dump(), file=stored_at, bytes=size)
    concept = ConceptRecord(
        id=ids.new("con"),
        tenant=tenant,
        job=job,
        name=form.name,
        token=form.token or "",
        noun=form.noun,
        attribute=form.attribute,
        created_at=time.time(),
    )

    def check() -> None:
        if form.noun:  # the token's columns are known when the file is read
            check_words(container, ConceptPrompts("<a>", form.noun, form.attribute), {})

    submission = Submission(
        tenant,
        "import",
        request,
        key,
        contents=digest,
        concept=concept,
        check=check,
        file=file,
        id=job,
    )
    return submit(container, submission)


def _checked_size(file: IO[bytes], most: int) -> int:
    """The size of a file that looks like weights; leaves it at its start.

    Raises:
        ProblemError: it is too small or too large, or of no format that is known.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not MIN_BYTES <= size <= most:
        limit = f"{MIN_BYTES} to {most} bytes"
        raise input_problem(InputError("file", f"has {size} bytes", limit))
    head = file.read(9)
    file.seek(0)
    if head[8:9] != b"{" and not head.startswith(_HEADS):
        raise input_problem(InputError("file", "holds no weights of a known format", _FORMATS))
    return size
