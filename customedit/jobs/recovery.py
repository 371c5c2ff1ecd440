"""Rebuilds Redis from the journal: what is missing is put back, what is there stays.

Unfinished jobs are queued again, finished ones are as ``final.json`` says; a job whose attempt
wrote a whole ``result.json`` has succeeded, though nobody lived to say so, and one that was to be
cancelled is. May be run at any time, twice, and while others write.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from customedit.jobs.journal import CANCEL, CONCEPT, FINAL, IMAGE, REQUEST, RESULT, Journal
from customedit.jobs.records import ConceptOutcome, ConceptRecord, ImageRecord, JobRecord
from customedit.jobs.store import Jobs
from customedit.jobs.webhooks import Secrets
from customedit.storage import object_keys
from customedit.storage.store import MissingObject
from customedit.tenants.access import ApiKey, ApiKeys
from customedit.tenants.catalogue import Concepts, Images
from customedit.tenants.presets import PresetRecord, Presets

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings
    from customedit.storage.store import Storage

_PLACE: Final = re.compile(
    r"tenants/(?P<tenant>[^/]+)/(?:"
    r"(?P<secret>webhook-secret\.json)"
    r"|presets/(?P<preset>[^/]+)\.json"
    rf"|images/(?P<image>img_[0-9a-f]{{64}})/[^/]+/{re.escape(IMAGE)}"
    rf"|concepts/(?P<concept>con_[0-9a-z]+)/{re.escape(CONCEPT)}"
    r"|jobs/(?P<job>job_[0-9a-z]+)/(?P<file>.+)"
    r")"
)
_ATTEMPT: Final = re.compile(rf"attempts/(\d+)(?:-[^/]+)?/(?:(?P<result>{re.escape(RESULT)})$)?")
_THREADS: Final = 16
_log = logging.getLogger(__name__)


@dataclass
class _Job:
    """What the bucket has of a job. results: attempt -> (key, when it was written).

    cancelled: when somebody asked for that, if it is not done with.
    """

    tenant: str
    id: str
    requested: bool = False
    final: bool = False
    cancelled: float | None = None
    attempts: int = 0
    results: dict[int, tuple[str, float]] = field(default_factory=dict)


@dataclass
class _Bucket:
    secrets: list[str] = field(default_factory=list)
    presets: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    concepts: list[str] = field(default_factory=list)
    jobs: dict[str, _Job] = field(default_factory=dict)


@dataclass
class Recovered:
    """How many records were put back; unreadable: keys that were passed over."""

    keys: int = 0
    secrets: int = 0
    presets: int = 0
    images: int = 0
    concepts: int = 0
    queued: int = 0
    finished: int = 0
    unreadable: list[str] = field(default_factory=list)


def recover(client: Redis, storage: Storage, settings: Settings) -> Recovered:
    """Puts back whatever the journal has and Redis has not.

    Raises:
        StorageError: the bucket cannot be read; run it again.
        redis.exceptions.RedisError: Redis is away; run it again.
    """
    return _Recovery(client, storage, settings).run()


class _Recovery:
    def __init__(self, client: Redis, storage: Storage, settings: Settings) -> None:
        self._storage, self._journal = storage, Journal(storage)
        self._jobs, self._keys = Jobs(client, settings), ApiKeys(client, settings)
        self._images, self._concepts = Images(client, settings), Concepts(client, settings)
        self._secrets = Secrets(client, settings)
        self._presets = Presets(client, settings)
        self._done = Recovered()
        self._records: dict[str, JobRecord] = {}

    def run(self) -> Recovered:
        bucket = self._look()
        with ThreadPoolExecutor(_THREADS) as pool:

            def each(does: Callable[[Any], bool], items: Iterable[Any]) -> int:
                return sum(pool.map(self._guarded(does), items))

            self._done.keys = each(
                self._key, [s.key for s in self._storage.list(object_keys.api_keys())]
            )
            self._done.secrets = each(self._secret, bucket.secrets)
            self._done.presets = each(self._preset, bucket.presets)
            self._done.images = each(self._image, bucket.images)
            # Jobs as the journal has them, then their concepts, then the jobs into Redis: nobody
            # sees a job whose concept is not there.
            each(self._read_job, [j for j in bucket.jobs.values() if j.requested])
            self._done.concepts = each(self._concept, bucket.concepts)
            each(self._restore, [bucket.jobs[name] for name in sorted(self._records)])
        return self._done

    def _look(self) -> _Bucket:
        bucket = _Bucket()
        for stored in self._storage.list(object_keys.TENANTS):
            place = _PLACE.fullmatch(stored.key)
            if place is None:
                continue
            if place["secret"]:
                bucket.secrets.append(stored.key)
            elif place["preset"]:
                bucket.presets.append(stored.key)
            elif place["image"]:
                bucket.images.append(stored.key)
            elif place["concept"]:
                bucket.concepts.append(stored.key)
            else:
                job = bucket.jobs.setdefault(place["job"], _Job(place["tenant"], place["job"]))
                _sort(job, place["file"], stored.key, stored.modified)
        return bucket

    def _guarded(self, does: Callable[[Any], bool]) -> Callable[[Any], bool]:
        """``does`` of one record; one that cannot be read, or went away, stops no other."""

        def guarded(item: Any) -> bool:
            try:
                return does(item)
            except MissingObject:  # deleted while we looked
                return False
            except (ValueError, KeyError, TypeError) as error:
                name = item if isinstance(item, str) else item.id
                _log.error("%s cannot be read: %s", name, type(error).__name__)
                self._done.unreadable.append(name)
                return False

        return guarded

    def _key(self, key: str) -> bool:
        return self._keys.put(ApiKey.model_validate(self._journal.read(key)))

    def _secret(self, key: str) -> bool:
        tenant = key.split("/")[1]
        if self._secrets.get(tenant) is not None:
            return False
        document = self._journal.read(key)
        self._secrets.put(tenant, document["secret"], document["made_at"])
        return True

    def _preset(self, key: str) -> bool:
        return self._presets.put(PresetRecord.model_validate(self._journal.read(key)))

    def _image(self, key: str) -> bool:
        record = ImageRecord.model_validate(self._journal.read(key))
        if record.folder + IMAGE != key:  # whoever deletes it removes the whole folder
            raise ValueError(f"{record.key} lies elsewhere")
        if self._images.get(record.tenant, record.id) is not None:
            return False
        return self._images.put(record) is not None

    def _read_job(self, job: _Job) -> bool:
        self._records[job.id] = self._record(job)
        return True

    def _record(self, job: _Job) -> JobRecord:
        """The job as it is after all that the bucket has of it."""
        if job.final:
            return JobRecord.model_validate(
                self._journal.read(object_keys.job(job.tenant, job.id, FINAL))
            )
        record = JobRecord.model_validate(
            self._journal.read(object_keys.job(job.tenant, job.id, REQUEST))
        )
        if not job.results:
            tried = {"attempt": job.attempts, "handed_back": job.attempts}  # a fresh allowance
            return record.model_copy(update=tried | _cancelled(job))
        attempt = max(job.results)
        key, at = job.results[attempt]
        return record.model_copy(
            update={
                "state": "succeeded",
                "result": self._journal.read(key),
                "attempt": attempt,
                "started_at": record.queued_at,
                "finished_at": at,
            }
        )

    def _concept(self, key: str) -> bool:
        record = ConceptRecord.model_validate(self._journal.read(key))
        job = self._records.get(record.job)
        if record.state == "training":
            if job is None:  # its submit never came to an end
                return False
            if job.state == "succeeded":
                outcome = ConceptOutcome.model_validate(job.result)
                record = record.ready(outcome, job.finished_at or job.queued_at)
            elif job.finished:
                record = record.model_copy(update={"state": "failed"})
        return self._concepts.put(record)

    def _restore(self, job: _Job) -> bool:
        record = self._records[job.id]
        if not self._jobs.restore(record, journaled=job.final):
            if record.state == "cancelled":  # Redis has the job, but lost its last second
                self._jobs.cancel(job.tenant, job.id)
            return False
        if record.finished:
            if not self._storage.exists(object_keys.job(job.tenant, job.id, REQUEST)):
                self._jobs.delete(job.tenant, job.id)  # deleted while we looked
                return False
            self._done.finished += 1
        else:
            self._done.queued += 1
        return True


def _cancelled(job: _Job) -> dict[str, Any]:
    """How a requested cancellation changes a job that has no result."""
    if job.cancelled is None:
        return {}
    return {"state": "cancelled", "cancel_requested": True, "finished_at": job.cancelled}


def _sort(job: _Job, file: str, key: str, modified: float) -> None:
    if file == REQUEST:
        job.requested = True
    elif file == FINAL:
        job.final = True
    elif file == CANCEL:
        job.cancelled = modified
    elif (attempt := _ATTEMPT.match(file)) is not None:
        number = int(attempt[1])
        job.attempts = max(job.attempts, number)
        if attempt["result"]:
            job.results[number] = (key, modified)
