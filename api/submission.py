"""From a request that was read to a job that waits: reserved, journaled, recorded, rung."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from api.container import Services
from api.problems import Refused, unusable
from customedit.config import telemetry
from customedit.errors import InputError
from customedit.jobs import webhook_addresses
from customedit.jobs.journal import epoch_metadata
from customedit.jobs.records import ConceptRecord, JobKind, JobRecord
from customedit.jobs.store import (
    Gone,
    Idempotency,
    IdempotencyConflict,
    IdempotencyInFlight,
    Missing,
    QueueFull,
    Submitted,
)
from customedit.schemas import ids
from customedit.schemas.requests import Asked
from customedit.storage import object_keys

_log = logging.getLogger(__name__)
_RETRY_S: Final = 2


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Submission:
    """A job to be made.

    check: refuses what cannot be done; given: a file that the job reads; contents: what else tells
    two requests apart, such as that file.
    """

    tenant: str
    kind: JobKind
    request: Asked
    key: str | None = None
    contents: str = ""
    concept: ConceptRecord | None = None
    check: Callable[[], None] = field(default=_nothing)
    given: Path | None = None
    id: str = field(default_factory=lambda: ids.new("job"))


def submit(services: Services, asked: Submission) -> Submitted:
    """Make the job, or nothing at all. Its request is in the journal before this returns.

    Raises:
        Refused: the queue is full, the key is taken, or something named is not there.
    """
    with _refusals():
        key = _idempotency(asked)
        if key is not None:
            earlier = services.jobs.reserve(asked.tenant, key)
            if earlier is not None:
                return Submitted(earlier, True)
        try:
            _check_webhook(services, asked)
            asked.check()
            made = _write(services, asked, key)
        except BaseException:
            _release(services, asked.tenant, key)
            raise
    services.doorbell.ring(made.record)
    return made


def _check_webhook(services: Services, asked: Submission) -> None:
    """A webhook can be sent and signed; where its name leads is looked at when it is sent."""
    url = asked.request.model_dump(mode="json").get("webhook")
    if url is None:
        return
    try:
        webhook_addresses.check(url, allow_private=services.settings.webhook_allow_private)
    except InputError as error:
        raise unusable(error, limit="an https address on the public internet") from None
    if services.secrets.get(asked.tenant) is None:
        raise Refused(
            "validation",
            "webhook: there is no secret to sign it with",
            field="webhook",
            limit="first POST /v1/webhooks/secret",
        )


def _idempotency(asked: Submission) -> Idempotency | None:
    """The key, bound to what was asked for: the kind, the request and the file."""
    if asked.key is None:
        return None
    request = asked.request.model_dump(mode="json", exclude={"file"})
    return Idempotency.of(asked.key, [asked.kind, request, asked.contents])


def _write(services: Services, asked: Submission, key: Idempotency | None) -> Submitted:
    """Journal, then record. What was written is taken back if the record cannot be made."""
    record, epoch = _record(asked), services.jobs.epoch()
    try:
        if asked.given is not None:
            given = object_keys.given(asked.tenant, asked.id)
            services.storage.put(given, asked.given, metadata=epoch_metadata(epoch))
        services.journal.request(record, asked.concept, epoch)
        return services.jobs.submit(record, concept=asked.concept, idempotency=key)
    except (QueueFull, Missing, IdempotencyConflict, IdempotencyInFlight):
        _take_back(services, asked)  # the record is not there for certain
        raise
    except Exception:
        # Raises if Redis is away: then the journal stays. A script that was given up may still run,
        # after this: it makes no job in a folder that is disowned.
        if all([services.jobs.disown(folder) for folder in _folders(asked)]):
            _take_back(services, asked)
        raise


def _record(asked: Submission) -> JobRecord:
    now = time.time()
    request = asked.request.model_dump(mode="json", exclude_none=True)
    return JobRecord(
        id=asked.id,
        tenant=asked.tenant,
        kind=asked.kind,
        request=request,
        concept=asked.concept.id if asked.concept else None,
        webhook=request.get("webhook"),
        created_at=now,
        queued_at=now,
        traceparent=telemetry.traceparent(),
    )


def _take_back(services: Services, asked: Submission) -> None:
    with _left_to_sweeper(asked.id):
        for folder in _folders(asked):
            services.journal.forget(folder.path)


def _folders(asked: Submission) -> list[object_keys.Folder]:
    """Where what is written of it lies: its job, and the concept that it makes."""
    found = [object_keys.job(asked.tenant, asked.id)]
    if asked.concept is not None:
        found.append(object_keys.concept(asked.tenant, asked.concept.id))
    return [folder for key in found if (folder := object_keys.folder_of(key)) is not None]


def _release(services: Services, tenant: str, key: Idempotency | None) -> None:
    if key is not None:
        with _left_to_sweeper(key.token):  # it runs out by itself
            services.jobs.release(tenant, key)


@contextlib.contextmanager
def _left_to_sweeper(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        _log.warning("%s could not be taken back: %s", what, type(error).__name__)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What the platform refuses, as problems."""
    try:
        yield
    except QueueFull as error:
        raise Refused(
            "queue-full",
            str(error),
            limit=f"{error.limit} queued and running jobs",
            headers={"Retry-After": "10"},
        ) from None
    except IdempotencyConflict:
        raise Refused(
            "idempotency-conflict", field="Idempotency-Key", limit="one request for each key"
        ) from None
    except IdempotencyInFlight:
        raise Refused(
            "idempotency-in-flight",
            field="Idempotency-Key",
            limit="one request at a time for each key",
            headers={"Retry-After": str(_RETRY_S)},
        ) from None
    except Missing as error:
        raise unknown(error.id) from None
    except Gone as error:
        raise Refused("unavailable", str(error)) from None


def unknown(id_: str, where: str = "") -> Refused:
    """The problem of an image or concept that a request names and its tenant does not have."""
    what = "image" if id_.startswith("img_") else "concept"
    name = where or ("image" if what == "image" else "concepts")
    limit = f"an {what} of yours" if what == "image" else f"a {what} of yours"
    return Refused(f"unknown-{what}", f"{name}: you have no {what} {id_}", field=name, limit=limit)
