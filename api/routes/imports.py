"""Concepts brought in from files: stored as they came, read by a worker and by nobody else."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from api.auth import Here, needs
from api.container import Services, in_thread
from api.openapi import refusals
from api.params import IdempotencyKey, Wait
from api.problems import of_errors, unusable
from api.routes.uploads import file_of, form, form_schema
from api.submission import Submission, submit
from api.waiting import answer
from customedit.errors import InputError
from customedit.jobs.records import ConceptRecord
from customedit.jobs.store import Submitted
from customedit.schemas import answers as d
from customedit.schemas import ids
from customedit.schemas.requests import ImportRequest
from customedit.storage import object_keys
from customedit.tenants.api_keys import ApiKey

router = APIRouter(tags=["concepts"])
Writer = Annotated[ApiKey, needs("concepts:write")]
_HEADS = (b"PK\x03\x04", b"\x80\x02")


def _words() -> dict[str, Any]:
    """The form's fields besides the file. A form knows no null: what is left out is none."""
    found = ImportRequest.model_json_schema()["properties"]
    for name in ("file", "bytes"):
        del found[name]
    for schema in found.values():
        kinds = [k for k in schema.pop("anyOf", []) if k != {"type": "null"}]
        schema |= {"anyOf": kinds} if len(kinds) > 1 else dict(*kinds)
        if schema.get("default", "") is None:
            del schema["default"]
    return found


_FORM = _words()
_ONE_OF = "a safetensors file, a zip of them, or a PyTorch file"


@router.post(
    "/v1/concepts/import",
    operation_id="importConcept",
    summary="Make a concept of a file",
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
            "idempotency-conflict",
            "queue-full",
        ),
    },
    openapi_extra=form_schema(_FORM),
)
async def import_concept(
    request: Request,
    response: Response,
    here: Here,
    caller: Writer,
    wait: Wait,
    idempotency_key: IdempotencyKey = None,
) -> d.Job:
    """Takes the service's own safetensors, diffusers' Custom Diffusion files and adobe's deltas."""
    async with form(request, *_FORM) as fields:
        upload = file_of(fields)
        words = {name: value for name, value in fields.items() if name != "file"}
        made = await in_thread(_import, here, caller.tenant, upload.file, words, idempotency_key)
    return await answer(here, made, wait, response)


@dataclass(frozen=True)
class _Given:
    """The file that came, on disk, and its sha256."""

    path: Path
    bytes: int
    sha256: str


def _import(
    here: Services, tenant: str, file: IO[bytes], words: dict[str, Any], key: str | None
) -> Submitted:
    with _on_disk(here, file) as given:
        job = ids.new("job")
        asked = _asked(here, given, object_keys.given(tenant, job), words)
        return submit(here, _submission(here, tenant, job, given, asked, key))


def _submission(
    here: Services, tenant: str, job: str, given: _Given, asked: ImportRequest, key: str | None
) -> Submission:
    concept = ConceptRecord(
        id=ids.new("con"),
        tenant=tenant,
        job=job,
        name=asked.name,
        token=asked.token or "",
        noun=asked.noun,
        attribute=asked.attribute,
        created_at=time.time(),
    )
    return Submission(
        tenant,
        "import",
        asked,
        key,
        contents=given.sha256,
        concept=concept,
        given=given.path,
        id=job,
    )


def _asked(here: Services, given: _Given, where: str, words: dict[str, Any]) -> ImportRequest:
    """The request that the form makes; an empty field is as good as none."""
    words = {name: value for name, value in words.items() if value != ""}
    try:
        asked = ImportRequest(**{**words, "file": where, "bytes": max(1, given.bytes)})
    except ValidationError as error:
        raise of_errors(error.errors(include_url=False)) from None
    most = here.settings.max_import_bytes
    if not 16 <= given.bytes <= most:
        problem = InputError("file", f"has {given.bytes} bytes", f"16 to {most} bytes")
        raise unusable(problem)
    with given.path.open("rb") as stream:
        head = stream.read(9)
    if head[8:9] != b"{" and not head.startswith(_HEADS):
        raise unusable(InputError("file", "holds no weights that are known", _ONE_OF))
    return asked


@contextmanager
def _on_disk(here: Services, file: IO[bytes]) -> Iterator[_Given]:
    """The form's file under a path, since a spooled one need not have any."""
    with tempfile.NamedTemporaryFile(dir=here.settings.scratch_dir, prefix="import-") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        copy.seek(0)
        digest = hashlib.file_digest(copy, "sha256").hexdigest()
        yield _Given(Path(copy.name), copy.tell(), digest)
