"""Cancelling and deleting that last, whatever Redis loses after the caller was answered.

Deleted is the record first, so that nobody finds half of it, then the files; files that cannot be
removed now are left to the workers' reconciler, which knows of them. A cancellation goes to the
journal before Redis hears of it, so that a recovery at any moment either finds it or is found by
it. While S3 is away the cancellation goes to Redis alone: whoever cancels wants the work to stop,
and ``final.json`` follows once S3 is back. Of several jobs only the first waits for an S3 that does
not answer, which can take minutes; the rest is left to the reconciler at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from api.dependencies import Container
from api.problems import ProblemError, not_found
from customedit.jobs.records import JobRecord
from customedit.jobs.store import InUse, NotFinished
from customedit.storage import object_keys
from customedit.storage.store import StorageError

_log = logging.getLogger(__name__)


def delete_image(container: Container, tenant: str, id_: str) -> None:
    """Remove an image and its inversions.

    Raises:
        ProblemError: there is none, or unfinished jobs need it.
    """
    try:
        folders = container.images.delete(tenant, id_)
    except InUse as error:
        raise _in_use(error) from None
    if not folders:
        raise not_found("image", id_)
    answers = True
    for folder in folders:
        answers = answers and _remove_files(container, folder)


def delete_concept(container: Container, tenant: str, id_: str) -> None:
    """Remove a concept.

    Raises:
        ProblemError: there is none, or unfinished jobs make it or use it.
    """
    try:
        deleted = container.concepts.delete(tenant, id_)
    except InUse as error:
        raise _in_use(error) from None
    if not deleted:
        raise not_found("concept", id_)
    _remove_files(container, object_keys.concept(tenant, id_))


def delete_job(container: Container, tenant: str, id_: str) -> None:
    """Remove a finished job.

    Raises:
        ProblemError: there is none, it is not finished, or unfinished jobs need an output of it.
    """
    delete_jobs(container, tenant, [id_])


def delete_jobs(container: Container, tenant: str, ids: Sequence[str]) -> None:
    """Remove finished jobs, one after the other, up to the first that cannot be removed.

    Raises:
        ProblemError: as ``delete_job``.
    """
    answers = True
    for id_ in ids:
        _delete_record(container, tenant, id_)
        answers = answers and _remove_files(container, object_keys.job(tenant, id_))


def _delete_record(container: Container, tenant: str, id_: str) -> None:
    try:
        deleted = container.jobs.delete(tenant, id_)
    except NotFinished as error:
        raise ProblemError(
            "not-finished", str(error), field="id", limit="a job that is finished"
        ) from None
    except InUse as error:
        raise _in_use(error) from None
    if not deleted:
        raise not_found("job", id_)


def cancel_job(container: Container, record: JobRecord) -> JobRecord | None:
    """Cancel a queued job at once, ask a running one to stop; a finished one stays as it is.

    None: the job is gone.
    """
    return cancel_jobs(container, [record])[0]


def cancel_jobs(container: Container, records: Sequence[JobRecord]) -> list[JobRecord | None]:
    """``cancel_job`` of each of ``records``."""
    answers = True  # whether S3 does, as far as it is known
    cancelled: list[JobRecord | None] = []
    for record in records:
        if record.finished:
            cancelled.append(record)
            continue
        answers = answers and _journal_wish(container, record)
        current = container.jobs.cancel(record.tenant, record.id)
        answers = answers and _settle(container, record, current)
        cancelled.append(current)
    return cancelled


def _journal_wish(container: Container, record: JobRecord) -> bool:
    """Write that the job is to be cancelled; False: S3 does not answer."""
    try:
        container.journal.cancel(record.tenant, record.id, container.jobs.epoch())
    except StorageError as error:
        _log.warning("%s: only Redis knows that it is to be cancelled: %s", record.id, error)
        return False
    return True


def _settle(container: Container, record: JobRecord, current: JobRecord | None) -> bool:
    """Write what came of the wish; False: S3 does not answer. current: None: the job is gone."""
    try:
        if current is None or current.state in ("succeeded", "failed"):  # it came too late
            container.journal.forget_cancel(record.tenant, record.id)
        elif current.finished:
            container.journal.settle_job(container.jobs, container.concepts, record.id)
    except StorageError as error:
        _log.warning("%s is left to the reconciler: %s", record.id, error)
        return False
    return True


def _remove_files(container: Container, folder: str) -> bool:
    """Remove a folder that is marked for deletion; False: it failed, and the mark stays."""
    try:
        container.journal.forget(folder)
    except StorageError as error:
        _log.warning("%s is left to the reconciler: %s", folder, error)
        return False
    container.jobs.folder_deleted(folder)
    return True


def _in_use(error: InUse) -> ProblemError:
    return ProblemError("in-use", str(error), field="id", limit="not needed by unfinished jobs")
