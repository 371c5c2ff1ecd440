"""Cancelling that lasts: what the caller is told holds even if Redis loses everything after it.

The wish goes to the journal before Redis hears of it, so that a recovery at any moment either finds
it or is found by it. Where S3 is away Redis is told all the same: whoever cancels wants the work to
stop, and ``final.json`` follows once S3 is back.
"""

from __future__ import annotations

import logging

from api.container import Services
from customedit.jobs.records import JobRecord
from customedit.storage.store import StorageError

_log = logging.getLogger(__name__)


def cancel(services: Services, record: JobRecord) -> JobRecord | None:
    """Cancel a queued job at once, ask a running one to stop; a finished one stays as it is.

    None: the job is gone.
    """
    if record.finished:
        return record
    try:
        services.journal.cancel(record.tenant, record.id, services.jobs.epoch())
    except StorageError as error:
        _log.warning("%s: only Redis knows that it is to be cancelled: %s", record.id, error)
    found = services.jobs.cancel(record.tenant, record.id)
    try:
        if found is None or found.state in ("succeeded", "failed"):  # it came too late
            services.journal.forget_cancel(record.tenant, record.id)
        elif found.finished:
            services.journal.settle_job(services.jobs, services.concepts, record.id)
    except StorageError as error:
        _log.warning("%s is left to the reconciler: %s", record.id, error)
    return found
