"""The bytes of pictures, through the API: for pages, which may not read the store's own addresses.

A browser shows a picture of another origin but lets no script read its pixels, unless the store
sends CORS headers. A mask is painted on from the region that an edit found, so the page needs them.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Response

from api.dependencies import AppContainer, Container, JobId, PictureId, Reader
from api.openapi import refusals
from api.problems import ProblemError, not_found
from customedit.jobs.records import EditOutcome, output_record
from customedit.schemas import ids
from customedit.storage.store import MissingObject

router = APIRouter()
PNG: Final = "image/png"
_BYTES: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}


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
def get_image_file(id: PictureId, container: AppContainer, caller: Reader) -> Response:
    """The file itself, for callers that cannot follow `url`, such as a page without CORS."""
    if (output := ids.output_of(id)) is not None:
        job = container.jobs.get(caller.tenant, output[0])
        made = None if job is None else output_record(job, output[1])
        if made is None:
            raise not_found("image", id)
        return _file(container, made.image_key, PNG, not_found("image", id))
    record = container.images.get(caller.tenant, id)
    if record is None:
        raise not_found("image", id)
    return _file(container, record.key, record.media_type, not_found("image", id))


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
    record = container.jobs.get(caller.tenant, id)
    if record is None:
        raise not_found("job", id)
    missing = ProblemError(
        "not-found", f"{id} has no region", field="id", limit="a finished edit of a region"
    )
    if record.kind != "edit" or record.result is None:
        raise missing
    key = EditOutcome.model_validate(record.result).mask_key
    if key is None:
        raise missing
    return _file(container, key, PNG, missing)


def _file(container: Container, key: str, media_type: str, missing: ProblemError) -> Response:
    """The object at ``key``; raises ``missing`` if it is gone."""
    try:
        return Response(container.storage.get(key), media_type=media_type)
    except MissingObject:
        raise missing from None
