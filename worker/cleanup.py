"""Removes what attempts wrote that became nobody's result.

Every job that is claimed is marked for one look after its end, so that even the leavings of a
worker that was killed, or of one that lost its lease and wrote on, go in the end.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from redis.exceptions import RedisError

from customedit.config.settings import Settings
from customedit.jobs.records import JobRecord
from customedit.storage import object_keys
from customedit.storage.store import Storage, StorageError
from worker.attempt import Work

_STAMP: Final = re.compile(r"(\d+-[0-9a-f]+)[/-]")
_log = logging.getLogger(__name__)


def marks(settings: Settings) -> str:
    """The sorted set of ``tenant/job`` to look at, by when."""
    return f"{settings.namespace}:sweep"


def again_s(settings: Settings) -> float:
    """Seconds until a marked job is looked at: by then a worker that lost its lease knows."""
    return max(5.0, 2 * settings.lease_seconds)


def mark(work: Work) -> None:
    """Have the job looked at again some time; the reconciler does it once it is final."""
    runtime = work.runtime
    due = {f"{work.tenant}/{work.id}": runtime.jobs.now() + again_s(runtime.settings)}
    work.patiently(lambda: runtime.redis.zadd(marks(runtime.settings), due))


def sweep_own(work: Work) -> None:
    """Remove what this attempt wrote, unless it is the job's result after all.

    Where Redis knows of no such job it has lost everything, and ``recover`` may find what is here.
    """
    try:
        record = work.runtime.jobs.peek(work.id)
        if record is not None and kept(record) != work.stamp:
            remove(work.storage, work.tenant, work.id, work.record.concept, only=work.stamp)
    except (StorageError, RedisError, OSError) as error:
        _log.warning("left for the reconciler to sweep: %s", error)


def after(work: Work) -> None:
    """The job is final: remove the leavings of all its attempts and its checkpoints."""
    try:
        record = work.runtime.jobs.peek(work.id)
        if record is not None and record.finished:
            tidy(work.storage, record)
    except (StorageError, RedisError, OSError) as error:
        _log.warning("left for the reconciler to sweep: %s", error)


def tidy(storage: Storage, record: JobRecord) -> None:
    """Leave of a final job only its request and the outputs of the attempt that succeeded."""
    remove(storage, record.tenant, record.id, record.concept, but=kept(record))
    storage.delete_prefix(object_keys.checkpoints(record.tenant, record.id))
    if record.kind == "import":
        storage.delete(object_keys.given(record.tenant, record.id))


def kept(record: JobRecord) -> str | None:
    """The stamp of the attempt whose outputs are the job's result; None if none is."""
    if record.state != "succeeded" or record.result is None:
        return None
    key: str = record.result.get("weights_key") or record.result["outputs"][0]["image_key"]
    folder = _folders(record.tenant, record.id, record.concept)
    found = [m for f in folder if key.startswith(f) and (m := _STAMP.match(key.removeprefix(f)))]
    return found[0].group(1) if found else None


def _folders(tenant: str, job: str, concept: str | None) -> list[str]:
    own = [object_keys.attempts(tenant, job)]
    return own + ([object_keys.concept(tenant, concept)] if concept is not None else [])


def remove(
    storage: Storage,
    tenant: str,
    job: str,
    concept: str | None,
    *,
    only: str | None = None,
    but: str | None = None,
) -> None:
    """Remove the outputs of the attempt stamped ``only``, or of all attempts but ``but``."""
    for folder in _folders(tenant, job, concept):
        for stored in storage.list(folder):
            found = _STAMP.match(stored.key.removeprefix(folder))
            if found is None:
                continue
            stamp = found.group(1)
            if stamp == only or (only is None and stamp != but):
                storage.delete(stored.key)
