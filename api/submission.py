"""From a request to a queued job: reserve the key, check, journal, record, notify the workers.

Workers are notified by a message of Celery's, written with the job's record, which is never the
reason that a request fails.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

from api.problems import ProblemError, input_problem, unknown_reference
from customedit.config import telemetry
from customedit.errors import InputError
from customedit.jobs import notifications, webhook_addresses
from customedit.jobs.journal import epoch_metadata
from customedit.jobs.queued_requests import left_out
from customedit.jobs.records import ConceptRecord, JobRecord
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
from customedit.schemas.answers import JobKind
from customedit.schemas.fields import RequestModel
from customedit.schemas.requests import BatchRequest, EditRequest
from customedit.storage import object_keys

if TYPE_CHECKING:
    from api.dependencies import Container

_log = logging.getLogger(__name__)
_RETRY_S: Final = 2
_JOURNAL_THREADS: Final = 8


def _no_check() -> None:
    return None


@dataclass(frozen=True)
class Submission:
    """A job to be made.

    check: refuses what cannot be done, and gives (width, height) of the picture that is edited, if
    there is one and it is known; file: one that the job reads, open at its start; contents:
    what else tells two requests apart, such as a digest of that file.
    """

    tenant: str
    kind: JobKind
    request: RequestModel
    key: str | None = None
    contents: str = ""
    concept: ConceptRecord | None = None
    check: Callable[[], tuple[int, int] | None] = field(default=_no_check)
    file: IO[bytes] | None = None
    id: str = field(default_factory=lambda: ids.new("job"))


def submit(container: Container, submission: Submission) -> Submitted:
    """Make the job, or nothing at all. Its request is in the journal before this returns.

    Raises:
        ProblemError: the queue is full, the key is taken, or something named is not there.
    """
    with _store_errors_as_problems(submission.request):
        key = _idempotency(submission)
        if key is not None:
            earlier = container.jobs.reserve(submission.tenant, key)
            if earlier is not None:
                return Submitted(earlier, True)
        try:
            submitted = _write(container, submission, key, check(container, submission))
        except BaseException:
            _release(container, submission.tenant, key)
            raise
    return submitted


def submit_batch(
    container: Container,
    tenant: str,
    request: BatchRequest,
    key: str | None,
    check_edit: Callable[[EditRequest], tuple[int, int] | None],
) -> Submitted:
    """Make a job for each picture, or nothing at all; gives the first one.

    Raises:
        ProblemError: as ``submit``; the limit of unfinished jobs counts each picture.
    """
    batch = ids.new("bat")

    def submission(edit: EditRequest) -> Submission:
        return Submission(tenant, "edit", edit, check=lambda: check_edit(edit))

    with _store_errors_as_problems(request):
        idem = None
        if key is not None:
            idem = Idempotency.of(key, ["batch", fingerprint_fields(request)])
            earlier = container.jobs.reserve(tenant, idem)
            if earlier is not None:
                return Submitted(earlier, True)
        try:
            made = [submission(edit) for edit in request.edits()]
            records = [
                check(container, one).model_copy(update={"batch": batch, "batch_place": place})
                for place, one in enumerate(made)
            ]
            submitted = _write_batch(container, made, records, idem)
        except BaseException:
            _release(container, tenant, idem)
            raise
    return submitted


def _write_batch(
    container: Container,
    made: list[Submission],
    records: list[JobRecord],
    key: Idempotency | None,
) -> Submitted:
    """As ``_write``, for all jobs of a batch."""
    epoch = container.jobs.recent_epoch()
    try:
        with ThreadPoolExecutor(_JOURNAL_THREADS) as pool:
            list(pool.map(lambda record: container.journal.request(record, None, epoch), records))
        messages = [_message(container, record) for record in records]
        submitted = container.jobs.submit_batch(records, key, messages)
        if submitted.replayed:  # another request made the batch while this one was written
            for one in made:
                _take_back(container, one)
        return _told(container, submitted)
    except (QueueFull, Missing, IdempotencyConflict, IdempotencyInFlight):
        for one in made:
            _take_back(container, one)
        raise
    except Exception:
        for one in made:
            if all([container.jobs.disown(folder) for folder in _folders(one)]):
                _take_back(container, one)
        raise


def check(container: Container, submission: Submission) -> JobRecord:
    """The job that would be made.

    Raises:
        ProblemError: something that the request names is not there or cannot be used.
    """
    _check_webhook(container, submission)
    return _record(submission, submission.check())


def _check_webhook(container: Container, submission: Submission) -> None:
    """A webhook can be sent and signed; its name is resolved only when it is sent."""
    url = getattr(submission.request, "webhook", None)
    if url is None:
        return
    try:
        webhook_addresses.check(str(url), allow_private=container.settings.webhook_allow_private)
    except InputError as error:
        raise input_problem(error, limit="an https address on the public internet") from None
    if container.secrets.get(submission.tenant) is None:
        raise ProblemError(
            "validation",
            "webhook: there is no secret to sign it with",
            field="webhook",
            limit="first POST /v1/webhooks/secret",
        )


def _idempotency(submission: Submission) -> Idempotency | None:
    """The key, bound to the request: its kind, its fields and its file."""
    if submission.key is None:
        return None
    request = fingerprint_fields(submission.request)
    return Idempotency.of(submission.key, [submission.kind, request, submission.contents])


def fingerprint_fields(request: RequestModel) -> dict[str, Any]:
    """What tells two requests apart: the fields that differ from their defaults, but no file.

    A request that is repeated after an upgrade is the same request, although the newer version
    knows more fields.
    """
    return request.model_dump(mode="json", exclude={"file"}, exclude_defaults=True)


def _write(
    container: Container, submission: Submission, key: Idempotency | None, record: JobRecord
) -> Submitted:
    """Journal, then record. What was written is taken back if the record is not made.

    Otherwise the files would have no owner, and ``recover`` would make a job of them.
    """
    epoch = container.jobs.recent_epoch()
    try:
        if submission.file is not None:
            path = object_keys.given(submission.tenant, submission.id)
            container.storage.put(path, submission.file, metadata=epoch_metadata(epoch))
        container.journal.request(record, submission.concept, epoch)
        submitted = container.jobs.submit(
            record,
            concept=submission.concept,
            idempotency=key,
            message=_message(container, record),
        )
        if submitted.replayed:  # another request made the job while this one was written
            _take_back(container, submission)
        return _told(container, submitted)
    except (QueueFull, Missing, IdempotencyConflict, IdempotencyInFlight):
        _take_back(container, submission)  # the record is not there for certain
        raise
    except Exception:
        # Raises if Redis is away: then the journal stays. A script that was given up may still run,
        # after this: it makes no job in a folder that is disowned.
        if all([container.jobs.disown(folder) for folder in _folders(submission)]):
            _take_back(container, submission)
        raise


def _message(container: Container, record: JobRecord) -> str:
    return notifications.message(container.settings, record.id, record.kind, record.traceparent)


def _told(container: Container, submitted: Submitted) -> Submitted:
    """``submitted``; it is logged and counted if no worker was notified."""
    if not submitted.notified:
        _log.warning("%s: no worker was notified", submitted.record.id)
        container.metrics.notifications_failed.inc()
    return submitted


def _record(submission: Submission, picture: tuple[int, int] | None) -> JobRecord:
    now = time.time()
    request = submission.request.model_dump(mode="json", exclude_none=True)
    return JobRecord(
        id=submission.id,
        tenant=submission.tenant,
        kind=submission.kind,
        request=request,
        left_out=left_out(submission.request),
        concept=submission.concept.id if submission.concept else None,
        webhook=request.get("webhook"),
        picture=picture,
        created_at=now,
        queued_at=now,
        traceparent=telemetry.traceparent(),
    )


def _take_back(container: Container, submission: Submission) -> None:
    with _or_left_to_sweeper(submission.id):
        for folder in _folders(submission):
            container.journal.forget(folder.path)


def _folders(submission: Submission) -> list[object_keys.Folder]:
    """The folders of the job and of the concept that it makes."""
    keys = [object_keys.job(submission.tenant, submission.id)]
    if submission.concept is not None:
        keys.append(object_keys.concept(submission.tenant, submission.concept.id))
    return [folder for key in keys if (folder := object_keys.folder_of(key)) is not None]


def _release(container: Container, tenant: str, key: Idempotency | None) -> None:
    if key is not None:
        with _or_left_to_sweeper(key.token):  # it expires by itself
            container.jobs.release(tenant, key)


@contextlib.contextmanager
def _or_left_to_sweeper(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        _log.warning("%s could not be taken back: %s", name, type(error).__name__)


@contextlib.contextmanager
def _store_errors_as_problems(request: RequestModel) -> Iterator[None]:
    """request: what is submitted."""
    try:
        yield
    except QueueFull as error:
        raise ProblemError(
            "queue-full",
            str(error),
            limit=f"{error.limit} queued and running jobs",
            headers={"Retry-After": "10"},
        ) from None
    except IdempotencyConflict:
        raise ProblemError(
            "idempotency-conflict", field="Idempotency-Key", limit="one request for each key"
        ) from None
    except IdempotencyInFlight:
        raise ProblemError(
            "idempotency-in-flight",
            field="Idempotency-Key",
            limit="one request at a time for each key",
            headers={"Retry-After": str(_RETRY_S)},
        ) from None
    except Missing as error:
        raise _unknown(error.id, request) from None
    except Gone as error:
        raise ProblemError("unavailable", str(error)) from None


def _unknown(id_: str, request: RequestModel) -> ProblemError:
    """The problem of an image, concept or job that was deleted since it was looked for.

    It names the field of the request, of a batch that of the edit.
    """
    edits = request.edits() if isinstance(request, BatchRequest) else [request]
    for one in edits:
        for place, text in _texts(one.model_dump(mode="json")):
            output = ids.output_of(text)
            if id_ in (text, None if output is None else output[0]):
                return unknown_reference(text, place)
    return unknown_reference(id_)


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Each text in a JSON document after the field that it stands in, as ``concepts[0].id``."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{k}]")
