"""Images: uploaded in a form, or straight to the store and then checked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Request, Response

from api.deletion import delete_image
from api.dependencies import (
    AppContainer,
    Container,
    Cursor,
    ImageId,
    Limit,
    PictureId,
    Reader,
    UploadId,
    in_thread,
    needs,
)
from api.forms import NoFields, form_schema, read_form
from api.image_storage import store_image
from api.openapi import refusals
from api.problems import ProblemError, not_found
from api.serializers import at
from customedit.schemas import answers as d
from customedit.schemas import ids
from customedit.schemas.requests import UploadRequest
from customedit.storage import object_keys
from customedit.storage.store import MissingObject, StorageError
from customedit.tenants.access import ApiKey

router = APIRouter(tags=["images"])
Writer = Annotated[ApiKey, needs("images:write")]


@router.post(
    "/v1/images",
    operation_id="uploadImage",
    summary="Upload a picture",
    response_model=d.Image,
    status_code=201,
    responses={
        200: {"model": d.Image, "description": "You had uploaded the same file before."},
        **refusals(
            "malformed",
            "request-timeout",
            "too-large",
            "unsupported-media-type",
            "validation",
            "unusable-image",
        ),
    },
    openapi_extra=form_schema(NoFields, {"file": "the picture's bytes"}),
)
async def upload_image(
    request: Request, response: Response, container: AppContainer, caller: Writer
) -> d.Image:
    """PNG, JPEG or WebP as ``file`` of a form, with its file name if it has one.

    The same file twice is one image, which keeps the name that it was first sent with.
    """
    async with read_form(request, NoFields) as form:
        return await _store(container, caller.tenant, form.file.read, response, form.file.filename)


async def _store(
    container: Container,
    tenant: str,
    load: Callable[[], Awaitable[bytes]],
    response: Response,
    name: str | None = None,
) -> d.Image:
    record, fresh = await store_image(container, tenant, load, name=name)
    response.status_code = 201 if fresh else 200
    response.headers["Location"] = f"/v1/images/{record.id}"
    return await in_thread(container.serializers.image, record)


@router.post(
    "/v1/uploads",
    operation_id="createUpload",
    summary="Ask for a form to upload a picture straight to the store",
    response_model=d.Upload,
    status_code=201,
    responses=refusals(
        "malformed", "request-timeout", "too-large", "unsupported-media-type", "validation"
    ),
)
def create_upload(request: UploadRequest, container: AppContainer, caller: Writer) -> d.Upload:
    """POST the ``fields`` and then the ``file`` to ``url``; then complete the upload."""
    id_, limits = ids.new("upl"), container.settings
    form = container.storage.presign_post(
        object_keys.upload(caller.tenant, id_), request.media_type, limits.max_upload_bytes
    )
    container.jobs.expect_upload(caller.tenant, id_, request.name)
    return d.Upload(
        id=id_,
        url=form["url"],
        fields=form["fields"],
        max_bytes=limits.max_upload_bytes,
        expires_at=at(time.time() + limits.presign_seconds),
    )


@router.post(
    "/v1/uploads/{id}/complete",
    operation_id="completeUpload",
    summary="Check an uploaded picture and keep it as an image",
    response_model=d.Image,
    status_code=201,
    responses={
        200: {"model": d.Image, "description": "You had uploaded the same file before."},
        **refusals("not-found", "validation", "unusable-image"),
    },
)
async def complete_upload(
    id: UploadId, response: Response, container: AppContainer, caller: Writer
) -> d.Image:
    """What is not usable is removed; what is usable becomes an image like any other."""
    key = object_keys.upload(caller.tenant, id)

    async def load() -> bytes:
        return await in_thread(container.storage.get, key, container.settings.max_upload_bytes)

    try:
        name = await in_thread(container.jobs.upload_name, caller.tenant, id)
        image = await _store(container, caller.tenant, load, response, name)
    except MissingObject:
        raise not_found("upload", id) from None
    except ProblemError as problem:
        if problem.kind.slug == "unusable-image":  # one that only came too early stays
            await in_thread(container.storage.delete, key)
        raise
    with contextlib.suppress(StorageError):  # the image is stored: the rest may be swept later
        await in_thread(container.storage.delete, key)
    return image


@router.get(
    "/v1/images",
    operation_id="listImages",
    summary="List images",
    response_model=d.Page[d.Image],
    responses=refusals("validation"),
)
def list_images(
    container: AppContainer, caller: Reader, cursor: Cursor = None, limit: Limit = 20
) -> d.Page[d.Image]:
    """Your images, newest first."""
    page = container.images.list(caller.tenant, cursor=cursor, limit=limit)
    return d.Page(
        items=[container.serializers.image(r) for r in page.items], next_cursor=page.next_cursor
    )


@router.get(
    "/v1/images/{id}",
    operation_id="getImage",
    summary="Read an image",
    response_model=d.Image,
    responses=refusals("not-found", "validation"),
)
def get_image(id: PictureId, container: AppContainer, caller: Reader) -> d.Image:
    """An image, or an output of an edit, with a fresh address of its file."""
    if (output := ids.output_of(id)) is not None:
        job = container.jobs.get(caller.tenant, output[0])
        document = None if job is None else container.serializers.output(job, output[1])
        if document is None:
            raise not_found("image", id)
        return document
    record = container.images.get(caller.tenant, id)
    if record is None:
        raise not_found("image", id)
    return container.serializers.image(record)


@router.delete(
    "/v1/images/{id}",
    operation_id="deleteImage",
    summary="Delete an image",
    status_code=204,
    responses=refusals("not-found", "in-use", "validation"),
)
def remove_image(id: ImageId, container: AppContainer, caller: Writer) -> None:
    """Removes the file and its record. What was made from it stays."""
    delete_image(container, caller.tenant, id)
