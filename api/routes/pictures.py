"""The bytes of pictures, through the API: for pages, which may not read the store's own addresses.

A browser shows a picture of another origin but lets no script read its pixels, unless the store
sends CORS headers. A mask is painted on from the region that an edit found, so the page needs them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Response

from api.dependencies import AppContainer, Container, ImageId, JobId, Reader
from api.openapi import refusals
from api.problems import ProblemError, not_found
from customedit.jobs.records import EditOutcome
from customedit.schemas.requests import MAX_OUTPUTS
from customedit.storage.store import MissingObject

router = APIRouter()
PNG: Final = "image/png"
_BYTES: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
OutputNumber = Annotated[
    int, Path(ge=0, lt=MAX_OUTPUTS, description="Its place in the result's `outputs`, from 0.")
]


@router.get(
    "/v1/images/{id}/file",
    operation_id="getImageFile",
    summary="Read an image's bytes",
    response_class=Response,
    responses={
        200: {
            "description": "The file as it was uploaded.",
            "content": {t: _BYTES for t in (PNG, "image/jpeg", "image/webp")},
        },
        **refusals("not-found", "validation"),
    },
    tags=["images"],
)
def get_image_file(id: ImageId, container: AppContainer, caller: Reader) -> Response:
    """The file itself, for callers that cannot follow `url`, such as a page without CORS."""
    record = container.images.get(caller.tenant, id)
    if record is None:
        raise not_found("image", id)
    return _file(container, record.key, record.media_type, not_found("image", id))


@router.get(
    "/v1/jobs/{id}/outputs/{number}/file",
    operation_id="getOutputFile",
    summary="Read the bytes of a picture that an edit made",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": {PNG: _BYTES}},
        **refusals("not-found", "validation"),
    },
    tags=["jobs"],
)
def get_output_file(
    id: JobId, number: OutputNumber, container: AppContainer, caller: Reader
) -> Response:
    """One of the outputs of an edit that succeeded."""
    outcome = _outcome(container, caller.tenant, id)
    missing = _missing(id, f"no output {number}", "number")
    if outcome is None or number >= len(outcome.outputs):
        raise missing
    return _file(container, outcome.outputs[number].image_key, PNG, missing)


@router.get(
    "/v1/jobs/{id}/mask/file",
    operation_id="getMaskFile",
    summary="Read the bytes of the region that an edit changed",
    response_class=Response,
    responses={
        200: {"description": "The region, as a mask.", "content": {PNG: _BYTES}},
        **refusals("not-found", "validation"),
    },
    tags=["jobs"],
)
def get_mask_file(id: JobId, container: AppContainer, caller: Reader) -> Response:
    """White where the edit reached, of the source's size: it can be sent as a mask."""
    outcome = _outcome(container, caller.tenant, id)
    missing = _missing(id, "no region", "id")
    if outcome is None or outcome.mask_key is None:
        raise missing
    return _file(container, outcome.mask_key, PNG, missing)


def _outcome(container: Container, tenant: str, job: str) -> EditOutcome | None:
    """The result of an edit; None for a job without one.

    Raises:
        ProblemError: the tenant has no such job.
    """
    record = container.jobs.get(tenant, job)
    if record is None:
        raise not_found("job", job)
    if record.kind != "edit" or record.result is None:
        return None
    return EditOutcome.model_validate(record.result)


def _missing(job: str, what: str, field: str) -> ProblemError:
    return ProblemError("not-found", f"{job} has {what}", field=field, limit="a finished edit's")


def _file(container: Container, key: str, media_type: str, missing: ProblemError) -> Response:
    """The object at ``key``; raises ``missing`` if it is gone."""
    try:
        return Response(container.storage.get(key), media_type=media_type)
    except MissingObject:
        raise missing from None
