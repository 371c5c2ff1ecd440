"""Pictures on their way in: forms read, files checked under a limit, stored by their contents."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from api.container import Services
from api.problems import RETRY_SECONDS, Refused, unusable, wrong_media_type
from customedit import images as pictures
from customedit.errors import InputError
from customedit.images.turns import Busy
from customedit.jobs.journal import epoch_metadata
from customedit.jobs.records import ImageRecord
from customedit.schemas import ids
from customedit.storage import object_keys
from customedit.storage.store import StorageError

TRIES: Final = 5
MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp")


@asynccontextmanager
async def form(request: Request, *words: str) -> AsyncIterator[FormData]:
    """The request's form: at most one ``file``, spooled to disk if it is large, and ``words``.

    Raises:
        Refused: it is no form, or not to be read as one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise wrong_media_type("multipart/form-data")
    async with request.form(max_files=1, max_fields=20, max_part_size=64 * 2**10) as fields:
        known = ("file", *words)
        names = [name for name, _ in fields.multi_items()]
        for name in names:
            if name not in known:
                raise unusable(InputError(name[:100], "is no field", f"one of {', '.join(known)}"))
            if names.count(name) > 1:
                raise unusable(InputError(name, "is given twice", "each field once"))
        yield fields


def file_of(fields: FormData) -> UploadFile:
    """The file of a form.

    Raises:
        Refused: there is none.
    """
    found = fields.get("file")
    if not isinstance(found, UploadFile):
        raise unusable(InputError("file", "is missing", "required"), limit="required")
    return found


def form_schema(properties: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI ``requestBody`` of a form with a file and ``properties``."""
    schema = {
        "type": "object",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {
            "file": {"type": "string", "contentMediaType": "application/octet-stream"}
            | {"format": "binary"},
            **properties,
        },
    }
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


async def store_image(
    services: Services, tenant: str, load: Callable[[], Awaitable[bytes]]
) -> tuple[ImageRecord, bool]:
    """Check a file and keep it; gives its record, and whether it is new.

    load: reads the file into memory, which happens when a decoder is free for it.

    Raises:
        Refused: it is not usable, or the tenant has too many files waiting; nothing is kept.
    """
    limits = pictures.Limits(
        max_bytes=services.settings.max_upload_bytes, max_pixels=services.settings.max_upload_pixels
    )
    try:
        async with services.decoders.turn(tenant) as turn:
            data = await load()
            checked = await turn.check(data, field="file", limits=limits)
    except Busy as busy:
        raise Refused(
            "rate-limited",
            f"{busy.waiting} of your files wait to be checked; send this one again later",
            field="file",
            limit=f"{busy.waiting} files that wait",
            headers={"Retry-After": str(RETRY_SECONDS)},
        ) from None
    except InputError as error:
        raise unusable(error, "unusable-image", _image_limit(services)) from None
    return await anyio.to_thread.run_sync(_keep, services, tenant, data, checked)


def _image_limit(services: Services) -> str:
    limits = services.settings
    return (
        f"PNG, JPEG or WebP; at most {limits.max_upload_bytes} bytes and "
        f"{limits.max_upload_pixels} pixels, {limits.decode_memory_bytes} bytes to decode; "
        f"each side at least {pictures.MIN_SIDE} pixels"
    )


def _keep(
    services: Services, tenant: str, data: bytes, checked: pictures.Checked
) -> tuple[ImageRecord, bool]:
    """The image's record, and whether this upload made it: again, if it is deleted meanwhile."""
    id_ = ids.of_image(data)
    for _ in range(TRIES):
        if (known := services.images.get(tenant, id_)) is not None:
            return known, False
        record = ImageRecord(
            id=id_,
            tenant=tenant,
            media_type=checked.media_type,
            bytes=len(data),
            width=checked.size[0],
            height=checked.size[1],
            key=object_keys.image(tenant, id_, secrets.token_hex(8), object_keys.PICTURE),
            created_at=time.time(),
            warnings=[f"The file {warning}." for warning in checked.warnings],
        )
        if (kept := _put(services, record, data)) is not None:
            return kept, kept.key == record.key
    raise Refused("unavailable", "the picture was deleted again and again; send it once more")


def _put(services: Services, record: ImageRecord, data: bytes) -> ImageRecord | None:
    """File, journal, record, in a folder of this upload's own; gives the record that is kept.

    So a deletion at the same time removes either this upload, whole, or none of it; what is left
    of a front end that dies in between is known by its ``epoch`` and removed (``orphans``).
    """
    epoch = services.jobs.epoch()
    services.storage.put(record.key, data, record.media_type, epoch_metadata(epoch))
    services.journal.image(record, epoch)
    kept = services.images.put(record)
    if kept is not None and kept.key != record.key:  # another upload of the same file was faster
        with contextlib.suppress(StorageError):
            services.journal.forget(record.folder)
    return kept
