"""Removes files of attempts that did not become the job's result.

Every claim marks its job for one cleanup after its end (``Jobs.due_cleanups``), so that even what a
worker wrote that was killed, or that lost its lease and wrote on, is removed in the end.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from redis.exceptions import RedisError

from customedit.jobs.records import JobRecord
from customedit.storage import object_keys
from customedit.storage.store import Storage, StorageError
from worker.attempt import Attempt

_STAMP: Final = re.compile(r"(\d+-[0-9a-f]+)[/-]")
_log = logging.getLogger(__name__)


def remove_outputs(attempt: Attempt) -> None:
    """Remove what this attempt wrote, unless it is the job's result after all.

    Where Redis knows of no such job it has lost everything, and ``recover`` may find what is here.
    """
    try:
        record = attempt.runtime.jobs.peek(attempt.id)
        if record is not None and result_stamp(record) != attempt.stamp:
            remove(
                attempt.storage,
                attempt.tenant,
                attempt.id,
                attempt.record.concept,
                only=attempt.stamp,
            )
    except (StorageError, RedisError, OSError) as error:
        _log.warning("left for the reconciler to clean up: %s", error)


def after_end(attempt: Attempt) -> None:
    """The job is final: remove the files of all its other attempts and its checkpoints."""
    try:
        record = attempt.runtime.jobs.peek(attempt.id)
        if record is not None and record.finished:
            keep_result_only(attempt.storage, record)
    except (StorageError, RedisError, OSError) as error:
        _log.warning("left for the reconciler to clean up: %s", error)


def keep_result_only(storage: Storage, record: JobRecord) -> None:
    """Leave of a final job only its request and the outputs of the attempt that succeeded."""
    remove(storage, record.tenant, record.id, record.concept, but=result_stamp(record))
    storage.delete_prefix(object_keys.checkpoints(record.tenant, record.id))
    if record.kind == "import":
        storage.delete(object_keys.given(record.tenant, record.id))


def result_stamp(record: JobRecord) -> str | None:
    """The stamp of the attempt whose outputs are the job's result; None if none is."""
    if record.state != "succeeded" or record.result is None:
        return None
    key: str = record.result.get("weights_key") or record.result["outputs"][0]["image_key"]
    for folder in _folders(record.tenant, record.id, record.concept):
        if key.startswith(folder) and (match := _STAMP.match(key.removeprefix(folder))):
            return match.group(1)
    return None


def _folders(tenant: str, job: str, concept: str | None) -> list[str]:
    folders = [object_keys.attempts(tenant, job)]
    return folders + ([object_keys.concept(tenant, concept)] if concept is not None else [])


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
            match = _STAMP.match(stored.key.removeprefix(folder))
            if match is None:
                continue
            stamp = match.group(1)
            if stamp == only or (only is None and stamp != but):
                storage.delete(stored.key)
