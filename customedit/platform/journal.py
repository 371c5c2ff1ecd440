"""What must outlive a Redis that lost everything, as JSON in the bucket.

``request.json`` of a job is written before the job is made and removed first when it is deleted, so
a folder without it is nobody's. ``final.json`` follows a job's end; ``settle`` makes up for it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from customedit.platform import keys_of

if TYPE_CHECKING:
    from customedit.platform.api_keys import ApiKey
    from customedit.platform.catalogue import Concepts
    from customedit.platform.jobs import Jobs
    from customedit.platform.records import ConceptRecord, ImageRecord, JobRecord, Record
    from customedit.platform.storage import Storage

REQUEST: Final = "request.json"
FINAL: Final = "final.json"
RESULT: Final = "result.json"
CONCEPT: Final = "concept.json"
_JSON: Final = "application/json"


class Journal:
    """Writes and removes the records. All calls raise StorageError, and may be repeated."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def _put(self, key: str, record: Record) -> None:
        self.storage.put(key, record.model_dump_json(exclude_none=True).encode(), _JSON)

    def request(self, record: JobRecord, concept: ConceptRecord | None = None) -> None:
        """A job that is about to be submitted, and the concept that it will make."""
        if concept is not None:  # first: without its job it counts for nothing
            self.concept(concept)
        self._put(keys_of.job(record.tenant, record.id, REQUEST), record)

    def final(self, record: JobRecord) -> None:
        """A job that is finished."""
        self._put(keys_of.job(record.tenant, record.id, FINAL), record)

    def concept(self, record: ConceptRecord) -> None:
        """A concept, in training or ready."""
        self._put(keys_of.concept(record.tenant, record.id, CONCEPT), record)

    def image(self, record: ImageRecord) -> None:
        """An image whose file is written."""
        self._put(keys_of.image_record(record.tenant, record.id), record)

    def api_key(self, key: ApiKey) -> None:
        """A key, made or revoked; of its secret only the hash."""
        self._put(keys_of.api_key(key.id), key)

    def webhook_secret(self, tenant: str, secret: str, made_at: float) -> None:
        """What the tenant's webhooks are signed with."""
        text = json.dumps({"secret": secret, "made_at": made_at})
        self.storage.put(secret_key(tenant), text.encode(), _JSON)

    def forget_job(self, tenant: str, job_id: str) -> None:
        """Removes all that a deleted job left in the bucket, its request first."""
        self.storage.delete(keys_of.job(tenant, job_id, REQUEST))
        self.storage.delete_prefix(keys_of.job(tenant, job_id))

    def forget_concept(self, tenant: str, concept_id: str) -> None:
        """Removes all that a deleted concept left in the bucket, its record first."""
        self.storage.delete(keys_of.concept(tenant, concept_id, CONCEPT))
        self.storage.delete_prefix(keys_of.concept(tenant, concept_id))

    def forget_image(self, tenant: str, image_id: str) -> None:
        """Removes a deleted image's record, file and inversions."""
        for stored in self.storage.list(keys_of.inversion(tenant, image_id)):
            self.storage.delete(stored.key)
        self.storage.delete(keys_of.image_record(tenant, image_id))
        self.storage.delete(keys_of.image(tenant, image_id))

    def settle(self, jobs: Jobs, concepts: Concepts, limit: int = 100) -> int:
        """Writes ``final.json`` of finished jobs, and removes the folders of what was deleted.

        For the reconciler, and for whoever just finished or deleted something. Returns how many
        were done, at most ``limit`` of each. Raises also ``redis.exceptions.RedisError``.
        """
        names, folders = jobs.unjournaled(limit), jobs.doomed(limit)
        for name in names:
            self._settle(jobs, concepts, name)
        for folder in folders:
            for record in (REQUEST, CONCEPT):
                self.storage.delete(folder + record)
            self.storage.delete_prefix(folder)
            jobs.swept(folder)
        return len(names) + len(folders)

    def _settle(self, jobs: Jobs, concepts: Concepts, job_id: str) -> None:
        record = jobs.peek(job_id)
        if record is not None:
            self._settle_concept(concepts, record)
            self.final(record)
            if jobs.peek(job_id) is None:  # deleted meanwhile: nobody else removes it
                self.forget_job(record.tenant, job_id)
        jobs.journaled(job_id)

    def _settle_concept(self, concepts: Concepts, record: JobRecord) -> None:
        if record.concept is None:
            return
        concept = concepts.get(record.tenant, record.concept)
        if concept is None:
            return
        self.concept(concept)
        if concepts.get(record.tenant, record.concept) is None:
            self.forget_concept(record.tenant, record.concept)

    def read(self, key: str) -> Any:
        """The JSON under ``key``. Raises MissingObject, or ValueError for what is no JSON."""
        return json.loads(self.storage.get(key))


def secret_key(tenant: str) -> str:
    """Where the journal has a tenant's webhook secret."""
    return f"{keys_of.tenant(tenant)}webhook-secret.json"
