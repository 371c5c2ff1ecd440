"""Images: uploaded in a form, or straight to the store and then checked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Here, Reader, needs
from api.container import in_thread
from api.openapi import refusals
from api.params import Cursor, ImageId, Limit, UploadId, no_such
from api.problems import Refused
from api.routes.uploads import file_of, form, form_schema, store_image
from api.serializers import at
from customedit.schemas import answers as d
from customedit.schemas import ids
from customedit.storage import object_keys
from customedit.storage.store import MissingObject, StorageError
from customedit.tenants.api_keys import ApiKey

router = APIRouter(tags=["images"])
Writer = Annotated[ApiKey, needs("images:write")]


class UploadRequest(BaseModel):
    """Asks for a form to send a picture straight to the store."""

    model_config = ConfigDict(extra="forbid")
    media_type: Annotated[
        Literal["image/png", "image/jpeg", "image/webp"],
        Field(description="What will be sent.", examples=["image/png"]),
    ]


@router.post(
    "/v1/images",
    operation_id="uploadImage",
    summary="Upload a picture",
    response_model=d.Image,
    status_code=201,
    responses={
        200: {"model": d.Image, "description": "You had uploaded the same file before."},
        **refusals(
            "malformed", "too-large", "unsupported-media-type", "validation", "unusable-image"
        ),
    },
    openapi_extra=form_schema({}),
)
async def upload_image(request: Request, response: Response, here: Here, caller: Writer) -> d.Image:
    """PNG, JPEG or WebP as ``file`` of a form. The same file twice is one image."""
    async with form(request) as fields:
        return await _stored(here, caller.tenant, file_of(fields).read, response)


async def _stored(
    here: Here, tenant: str, load: Callable[[], Awaitable[bytes]], response: Response
) -> d.Image:
    record, fresh = await store_image(here, tenant, load)
    response.status_code = 201 if fresh else 200
    response.headers["Location"] = f"/v1/images/{record.id}"
    return here.views.image(record)


@router.post(
    "/v1/uploads",
    operation_id="createUpload",
    summary="Ask for a form to upload a picture straight to the store",
    response_model=d.Upload,
    status_code=201,
    responses=refusals("malformed", "too-large", "unsupported-media-type", "validation"),
)
def create_upload(asked: UploadRequest, here: Here, caller: Writer) -> d.Upload:
    """POST the ``fields`` and then the ``file`` to ``url``; then complete the upload."""
    id_, limits = ids.new("upl"), here.settings
    sent = here.storage.presign_post(
        object_keys.upload(caller.tenant, id_), asked.media_type, limits.max_upload_bytes
    )
    here.jobs.expect_upload(caller.tenant, id_)
    return d.Upload(
        id=id_,
        url=sent["url"],
        fields=sent["fields"],
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
async def complete_upload(id: UploadId, response: Response, here: Here, caller: Writer) -> d.Image:
    """What is not usable is removed; what is usable becomes an image like any other."""
    key = object_keys.upload(caller.tenant, id)

    async def load() -> bytes:
        return await in_thread(here.storage.get, key, here.settings.max_upload_bytes)

    try:
        made = await _stored(here, caller.tenant, load, response)
    except MissingObject:
        raise no_such("upload", id) from None
    except Refused as refused:
        if refused.kind.slug == "unusable-image":  # one that only came too early stays
            await in_thread(here.storage.delete, key)
        raise
    with contextlib.suppress(StorageError):  # the image is there: the rest may be swept later
        await in_thread(here.storage.delete, key)
    return made


@router.get(
    "/v1/images",
    operation_id="listImages",
    summary="List images",
    response_model=d.Page[d.Image],
    responses=refusals("validation"),
)
def list_images(
    here: Here, caller: Reader, cursor: Cursor = None, limit: Limit = 20
) -> d.Page[d.Image]:
    """Your images, newest first."""
    page = here.images.list(caller.tenant, cursor=cursor, limit=limit)
    return d.Page(items=[here.views.image(r) for r in page.items], next_cursor=page.next_cursor)


@router.get(
    "/v1/images/{id}",
    operation_id="getImage",
    summary="Read an image",
    response_model=d.Image,
    responses=refusals("not-found", "validation"),
)
def get_image(id: ImageId, here: Here, caller: Reader) -> d.Image:
    """An image, with a fresh address of its file."""
    record = here.images.get(caller.tenant, id)
    if record is None:
        raise no_such("image", id)
    return here.views.image(record)


@router.delete(
    "/v1/images/{id}",
    operation_id="deleteImage",
    summary="Delete an image",
    status_code=204,
    responses=refusals("not-found", "in-use", "validation"),
)
def delete_image(id: ImageId, here: Here, caller: Writer) -> None:
    """Removes the file and all that is known of it. What was made of it stays."""
    here.deleting.image(caller.tenant, id)
