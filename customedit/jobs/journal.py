"""What must survive a Redis that lost everything, as JSON in the bucket.

``request.json`` of a job is written before the job is made and removed first when it is deleted, so
a folder without it has no owner. ``cancel.json`` is there from before a cancellation is confirmed
until ``final.json``, which follows a job's end; ``settle`` writes what is missing.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol

from customedit.storage import object_keys

if TYPE_CHECKING:
    from customedit.jobs.records import ConceptRecord, ImageRecord, JobRecord, Record
    from customedit.jobs.store import Jobs
    from customedit.storage.store import Storage

    class Concepts(Protocol):
        """Where records of concepts are: ``tenants.catalogue.Concepts``."""

        def get(self, tenant: str, concept_id: str, /) -> ConceptRecord | None:
            """The tenant's concept; None: there is none, or it is another's."""


REQUEST: Final = "request.json"
FINAL: Final = "final.json"
RESULT: Final = "result.json"
CANCEL: Final = "cancel.json"
CONCEPT: Final = "concept.json"
IMAGE: Final = "image.json"
EPOCH: Final = "epoch"
_JSON: Final = "application/json"

SETTLERS: Final = 8
"""Threads of ``settle``, which wait for S3."""


class Journal:
    """Writes and removes the records. All calls raise StorageError, and may be repeated.

    epoch: the epoch of Redis in which a record is written before Redis has it
    (``Maintenance.epoch``); a record that never gets into Redis is recognized by it.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def _put(self, key: str, record: Record, epoch: str = "") -> None:
        text = record.model_dump_json(exclude_none=True)
        self.storage.put(key, text.encode(), _JSON, epoch_metadata(epoch))

    def request(
        self, record: JobRecord, concept: ConceptRecord | None = None, epoch: str = ""
    ) -> None:
        """A job that is about to be submitted, and the concept that it will make."""
        if concept is not None:  # first: without its job it counts for nothing
            self.concept(concept, epoch)
        self._put(object_keys.job(record.tenant, record.id, REQUEST), record, epoch)

    def cancel(self, tenant: str, job_id: str, epoch: str = "") -> None:
        """A job that is about to be cancelled."""
        text = json.dumps({"requested_at": time.time()})
        key = object_keys.job(tenant, job_id, CANCEL)
        self.storage.put(key, text.encode(), _JSON, epoch_metadata(epoch))

    def forget_cancel(self, tenant: str, job_id: str) -> None:
        """Removes what ``cancel`` wrote: it came to nothing, or ``final.json`` says more."""
        self.storage.delete(object_keys.job(tenant, job_id, CANCEL))

    def final(self, record: JobRecord) -> None:
        """A job that is finished."""
        self._put(object_keys.job(record.tenant, record.id, FINAL), record)

    def concept(self, record: ConceptRecord, epoch: str = "") -> None:
        """A concept, in training or ready."""
        self._put(object_keys.concept(record.tenant, record.id, CONCEPT), record, epoch)

    def image(self, record: ImageRecord, epoch: str = "") -> None:
        """An image whose file is written: the record lies beside it."""
        self._put(record.folder + IMAGE, record, epoch)

    def api_key(self, key_id: str, key: Record) -> None:
        """A key, made or revoked; of its secret only the hash."""
        self._put(object_keys.api_key(key_id), key)

    def forget_api_key(self, key_id: str) -> None:
        """Removes a key that has ended and is about to be forgotten."""
        self.storage.delete(object_keys.api_key(key_id))

    def webhook_secret(self, tenant: str, secret: str, made_at: float) -> None:
        """What the tenant's webhooks are signed with."""
        text = json.dumps({"secret": secret, "made_at": made_at})
        self.storage.put(secret_key(tenant), text.encode(), _JSON)

    def preset(self, tenant: str, name: str, record: Record) -> None:
        """A preset that is about to be saved."""
        self._put(object_keys.preset(tenant, name), record)

    def forget_preset(self, tenant: str, name: str) -> None:
        """Removes a preset that is about to be deleted."""
        self.storage.delete(object_keys.preset(tenant, name))

    def forget(self, folder: str) -> None:
        """Removes a folder whose job, concept or image is deleted, the record first."""
        for record in (REQUEST, CONCEPT, IMAGE):
            self.storage.delete(folder + record)
        self.storage.delete_prefix(folder)

    def settle(self, jobs: Jobs, concepts: Concepts, limit: int = 100) -> int:
        """Writes ``final.json`` of finished jobs, and removes the folders of what was deleted.

        For the reconciler: whoever ends one job has ``settle_job``. Returns how many were done, at
        most ``limit`` of each, ``SETTLERS`` at once. Where some fail the others are done before the
        first error is raised; it may be a ``redis.exceptions.RedisError`` as well.
        """
        names, folders = jobs.unjournaled(limit), jobs.folders_to_delete(limit)
        with ThreadPoolExecutor(SETTLERS) as pool:
            done = [pool.submit(self.settle_job, jobs, concepts, name) for name in names]
            done += [pool.submit(self._forget_deleted, jobs, folder) for folder in folders]
        for one in done:
            one.result()
        return len(done)

    def _forget_deleted(self, jobs: Jobs, folder: str) -> None:
        self.forget(folder)
        jobs.folder_deleted(folder)

    def settle_job(self, jobs: Jobs, concepts: Concepts, job_id: str) -> None:
        """Writes ``final.json`` of one finished job, and what else its end leaves to be written."""
        record = jobs.peek(job_id)
        if record is not None:
            self._settle_concept(concepts, record)
            self.final(record)
            if record.cancel_requested:
                self.forget_cancel(record.tenant, job_id)
            if not jobs.exists(job_id):  # deleted meanwhile: nobody else removes it
                self.forget(object_keys.job(record.tenant, job_id))
        jobs.journaled(job_id)

    def _settle_concept(self, concepts: Concepts, record: JobRecord) -> None:
        if record.concept is None:
            return
        concept = concepts.get(record.tenant, record.concept)
        if concept is None:
            return
        self.concept(concept)
        if concepts.get(record.tenant, record.concept) is None:
            self.forget(object_keys.concept(record.tenant, record.concept))

    def read(self, key: str) -> Any:
        """The JSON under ``key``. Raises MissingObject, or ValueError for what is no JSON."""
        return json.loads(self.storage.get(key))


def epoch_metadata(epoch: str) -> dict[str, str]:
    """An object's metadata that names the epoch of Redis in which it was written."""
    return {EPOCH: epoch} if epoch else {}


def secret_key(tenant: str) -> str:
    """Where the journal has a tenant's webhook secret."""
    return f"{object_keys.tenant(tenant)}webhook-secret.json"
