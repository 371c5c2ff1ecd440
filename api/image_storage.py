"""Images on their way in: checked under limits, stored by their contents, deleted as a whole."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from api.dependencies import Container
from api.problems import RETRY_SECONDS, ProblemError, input_problem
from customedit import images as pictures
from customedit.errors import InputError
from customedit.images.masks import Marks
from customedit.images.turns import Busy
from customedit.jobs.journal import epoch_metadata
from customedit.jobs.records import ImageRecord, output_record
from customedit.schemas import ids
from customedit.schemas.file_names import file_name
from customedit.storage import object_keys
from customedit.storage.store import MissingObject, StorageError

TRIES: Final = 5


async def store_image(
    container: Container,
    tenant: str,
    load: Callable[[], Awaitable[bytes]],
    field: str = "file",
    name: str | None = None,
) -> tuple[ImageRecord, bool]:
    """Check a file and store it; gives its record, and whether it is new.

    load: reads the file into memory, which happens when a decoder is free for it; field: its name
    in errors; name: what the sender called it, kept with an image that is new.

    Raises:
        ProblemError: it is not usable, or the tenant has too many files waiting; nothing is stored.
    """
    try:
        async with container.decoders.turn(tenant) as turn:
            data = await load()
            checked = await turn.check(data, field=field, limits=_limits(container))
    except Busy as busy:
        raise too_busy(busy, field) from None
    except InputError as error:
        raise input_problem(error, "unusable-image", _image_limit(container)) from None
    return await anyio.to_thread.run_sync(put_image, container, tenant, data, checked, name)


async def check_mask(
    container: Container, tenant: str, mask: str, marks: Marks = "white", field: str = "mask"
) -> None:
    """Refuse a stored picture that cannot be used as a mask, as the worker would.

    field: its name in errors. One that is not there is let through: whoever makes the job says so.
    So is one too large to be read here; the worker reads it.

    Raises:
        ProblemError: validation, of ``field``; rate-limited.
    """
    key = await anyio.to_thread.run_sync(_key_of, container, tenant, mask)
    if key is None:
        return
    try:
        async with container.decoders.turn(tenant) as turn:
            data = await anyio.to_thread.run_sync(container.storage.get, key)
            await turn.check_mask(data, field=field, limits=_limits(container), marks=marks)
    except MissingObject:
        return
    except Busy as busy:
        raise too_busy(busy, field) from None
    except InputError as error:
        raise input_problem(error) from None


def _key_of(container: Container, tenant: str, picture: str) -> str | None:
    """Where the file of an image or an output lies; None: there is none."""
    if (output := ids.output_of(picture)) is not None:
        job = container.jobs.get(tenant, output[0])
        found = None if job is None else output_record(job, output[1])
        return None if found is None else found.image_key
    record = container.images.get(tenant, picture)
    return None if record is None else record.key


def too_busy(busy: Busy, field: str) -> ProblemError:
    """The problem of a tenant with as many files waiting for a decoder as it may have."""
    return ProblemError(
        "rate-limited",
        f"{busy.waiting} of your files wait to be checked; send this one again later",
        field=field,
        limit=f"{busy.waiting} files that wait",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def _limits(container: Container) -> pictures.Limits:
    settings = container.settings
    return pictures.Limits(
        max_bytes=settings.max_upload_bytes, max_pixels=settings.max_upload_pixels
    )


def _image_limit(container: Container) -> str:
    limits = container.settings
    return (
        f"PNG, JPEG or WebP; at most {limits.max_upload_bytes} bytes and "
        f"{limits.max_upload_pixels} pixels, {limits.decode_memory_bytes} bytes to decode; "
        f"each side at least {pictures.MIN_SIDE} pixels"
    )


def put_image(
    container: Container,
    tenant: str,
    data: bytes,
    checked: pictures.Checked,
    name: str | None = None,
) -> tuple[ImageRecord, bool]:
    """The image's record, and whether this upload made it: again, if it is deleted meanwhile.

    The same bytes are one image, which keeps the name that it was first sent with.

    Raises:
        ProblemError: it was deleted each time.
    """
    id_ = ids.of_image(data)
    for _ in range(TRIES):
        if (known := container.images.get(tenant, id_)) is not None:
            return known, False
        record = ImageRecord(
            id=id_,
            tenant=tenant,
            media_type=checked.media_type,
            bytes=len(data),
            width=checked.size[0],
            height=checked.size[1],
            upright=True,
            key=object_keys.image(tenant, id_, secrets.token_hex(8), object_keys.PICTURE),
            created_at=time.time(),
            name=file_name(name),
            warnings=[f"The file {warning}." for warning in checked.warnings],
        )
        if (stored := _put(container, record, data)) is not None:
            return stored, stored.key == record.key
    raise ProblemError("unavailable", "the picture was deleted again and again; send it once more")


def _put(container: Container, record: ImageRecord, data: bytes) -> ImageRecord | None:
    """File, journal, record, in a folder of this upload's own; gives the record that is stored.

    So a deletion at the same time removes either this upload, whole, or none of it; what is left
    of a front end that dies in between is known by its ``epoch`` and removed (``orphans``).
    """
    epoch = container.jobs.epoch()
    container.storage.put(record.key, data, record.media_type, epoch_metadata(epoch))
    container.journal.image(record, epoch)
    stored = container.images.put(record)
    if stored is not None and stored.key != record.key:  # another upload of the file was faster
        with contextlib.suppress(StorageError):
            container.journal.forget(record.folder)
    return stored
