"""Jobs: the record in Redis is the truth, changed by scripts that are each all or nothing.

States: queued -> running -> succeeded | failed | cancelled. A worker's lease that runs out makes a
running job free for the next claim. All calls bear being repeated, which the client does by itself
when Redis restarts; times are Redis' own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from customedit.jobs import notifications
from customedit.jobs.claims import Claim, Claims, Standing
from customedit.jobs.events import Events
from customedit.jobs.maintenance import Maintenance
from customedit.jobs.records import (
    IN_SHORT,
    ConceptRecord,
    JobRecord,
    Page,
    body_of,
    cost_of,
    fields_of,
    job_of,
    short_job_of,
    uses_of,
)
from customedit.jobs.redis import pairs
from customedit.schemas.answers import JobKind, JobState
from customedit.storage import object_keys

__all__ = ["Claim", "Idempotency", "Jobs", "Page", "Standing", "Submitted"]

# How long a reserved idempotency key waits for its submit; so long a client is kept out whose
# front end died in between. A submit that comes later still finds out if another was made.
_HOLD_S: Final = 30
_SCAN: Final = 1000  # records that one run of the list script looks at


class QueueFull(RuntimeError):
    """The tenant has ``limit`` unfinished jobs."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs are queued or running; wait for one to finish")
        self.limit = limit


class IdempotencyConflict(RuntimeError):
    """The idempotency key was used with another body."""


class IdempotencyInFlight(RuntimeError):
    """A request with the same idempotency key is being written at this moment."""


class Missing(RuntimeError):
    """``id``, an image or concept that the job needs, is not there (any more)."""

    def __init__(self, id: str) -> None:
        super().__init__(f"{id} is not there")
        self.id = id


class Gone(RuntimeError):
    """The job was deleted, or taken back, before this call of ``submit`` arrived."""


class InUse(RuntimeError):
    """``id`` is needed by unfinished ``jobs``: it can go once they are finished or cancelled."""

    def __init__(self, id: str, jobs: list[str]) -> None:
        super().__init__(f"{id} is needed by {', '.join(sorted(jobs)[:3])}, not finished yet")
        self.id, self.jobs = id, sorted(jobs)


class NotFinished(RuntimeError):
    """The job is queued or running: cancel it before it is deleted."""


@dataclass(frozen=True)
class Idempotency:
    """A client's key for a request. fingerprint: of the body; token: of this very call."""

    key: str
    fingerprint: str
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def of(cls, key: str, body: object) -> Idempotency:
        """``key`` with the fingerprint of ``body``, anything JSON can hold."""
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return cls(key, hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True)
class Submitted:
    """A job, and whether an earlier request with the same idempotency key made it.

    notified: False if workers could not be told of it; they look for it by themselves, later.
    """

    record: JobRecord
    replayed: bool
    notified: bool = True


class Jobs(Claims, Events, Maintenance):
    """All that is done to jobs. Safe to use from many threads.

    Calls raise ``redis.exceptions.RedisError`` when Redis stays away.
    """

    def reserve(self, tenant: str, idempotency: Idempotency) -> JobRecord | None:
        """Takes the key before the request goes to the journal, for half a minute.

        So that of two equal requests at the same moment only one is written. Returns the job that
        an earlier request made, if there is one: to be answered instead.

        Raises:
            IdempotencyConflict: the key came with another body before.
            IdempotencyInFlight: another call holds the key and has not submitted yet.
        """
        answer = self._run("reserve", tenant=tenant, idem=self._entry(idempotency), hold=_HOLD_S)
        _raise(answer)
        return job_of(pairs(answer[1])) if answer[0] == "replayed" else None

    def release(self, tenant: str, idempotency: Idempotency) -> None:
        """Gives a reserved key back when the request is refused after all."""
        self._run("release", tenant=tenant, idem=self._entry(idempotency))

    def submit(
        self,
        record: JobRecord,
        *,
        concept: ConceptRecord | None = None,
        idempotency: Idempotency | None = None,
        message: str | None = None,
    ) -> Submitted:
        """Makes the job, its concept's record and its idempotency entry, or nothing.

        The same ``record.id`` again changes nothing and answers the same. ``queued_at`` and
        ``max_attempts`` are set here. message: wakes a worker (``notifications.message``) once the
        job is made, with no call of its own.

        Raises:
            QueueFull: the tenant has ``queue_limit_per_tenant`` unfinished jobs.
            Missing: an image or concept that the request names is not the tenant's.
            IdempotencyConflict: the key came with another body before.
            IdempotencyInFlight: another call holds the key and has not submitted yet.
            Gone: its folder is deleted; this call came too late.
        """
        if concept is not None and (concept.id != record.concept or concept.job != record.id):
            raise ValueError(f"{concept.id} is not the concept of {record.id}")
        answer = self._run(
            "submit",
            **made_of(record),
            tenant=record.tenant,
            concept_record=None if concept is None else concept.model_dump_json(),
            **self._terms(idempotency, record.kind, [] if message is None else [message]),
        )
        _raise(answer, self.settings.queue_limit_per_tenant)
        if isinstance(answer[1], list):  # it was there
            return Submitted(job_of(pairs(answer[1])), answer[0] == "replayed")
        _, queued_at, notified = answer
        set_here = {"queued_at": float(queued_at), "max_attempts": self.settings.max_attempts}
        return Submitted(record.model_copy(update=set_here), False, bool(notified))

    def _terms(
        self, idempotency: Idempotency | None, kind: JobKind, messages: Sequence[str]
    ) -> dict[str, Any]:
        queue = notifications.queue(self.settings, kind)
        return {
            "notify": {"queue": queue, "messages": messages} if messages else None,
            "max_attempts": self.settings.max_attempts,
            "queue_limit": self.settings.queue_limit_per_tenant,
            "notify_after": self.settings.queued_notify_after_seconds,
            "idem": None if idempotency is None else self._entry(idempotency),
        }

    def submit_batch(
        self,
        records: Sequence[JobRecord],
        idempotency: Idempotency | None = None,
        messages: Sequence[str] = (),
    ) -> Submitted:
        """Makes all jobs of a batch, or none; gives the first one. As ``submit`` otherwise.

        messages: one for each job.

        Raises:
            QueueFull: the tenant would have more unfinished jobs than it may.
        """
        tenants, batches = {r.tenant for r in records}, {r.batch for r in records}
        if len(tenants) != 1 or len(batches) != 1 or None in batches:
            raise ValueError("the jobs are not of one batch")
        answer = self._run(
            "submit_batch",
            tenant=records[0].tenant,
            jobs=[{k: v for k, v in made_of(r).items() if v is not None} for r in records],
            **self._terms(idempotency, records[0].kind, messages),
        )
        _raise(answer, self.settings.queue_limit_per_tenant)
        what, first, *notified = answer
        return Submitted(job_of(pairs(first)), what == "replayed", notified != [0])

    def batch(self, tenant: str, batch_id: str) -> list[JobRecord]:
        """The jobs of the tenant's batch in their order, but for deleted ones; none: no batch."""
        names: Any = self.client.zrange(self._key("batch", batch_id), 0, -1)
        with self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(self._key("job", name))
            rows = pipe.execute()
        records = [job_of(fields) for fields in rows if fields]
        return [record for record in records if record.tenant == tenant]

    def batches_in_short(self, tenant: str, batch_ids: Sequence[str]) -> list[list[JobRecord]]:
        """``batch`` of each id, without results and errors, in two round trips for all of them."""
        with self.client.pipeline(transaction=False) as pipe:
            for batch_id in batch_ids:
                pipe.zrange(self._key("batch", batch_id), 0, -1)
            names = pipe.execute()
            for name in itertools.chain.from_iterable(names):
                pipe.hmget(self._key("job", name), IN_SHORT)
            rows = iter(pipe.execute())
        batches = []
        for part in names:
            found = (dict(zip(IN_SHORT, next(rows), strict=True)) for _ in part)
            records = [short_job_of(fields) for fields in found if fields["body"] is not None]
            batches.append([record for record in records if record.tenant == tenant])
        return batches

    def batches(self, tenant: str, *, cursor: str | None = None, limit: int = 50) -> Page[str]:
        """Ids of the tenant's batches, newest first, at most ``limit``."""
        start = f"({cursor}" if cursor else "+"
        names: Any = self.client.zrange(
            self._key("batches", tenant), start, "-", desc=True, bylex=True, offset=0, num=limit + 1
        )
        return Page(list(names[:limit]), names[limit - 1] if len(names) > limit else None)

    def _entry(self, idempotency: Idempotency) -> dict[str, Any]:
        return {
            # hashed: a client may put anything into its key
            "key": hashlib.sha256(idempotency.key.encode()).hexdigest()[:32],
            "fingerprint": idempotency.fingerprint,
            "token": idempotency.token,
            "ttl": self.settings.idempotency_hours * 3600,
        }

    def get(self, tenant: str, job_id: str) -> JobRecord | None:
        """The tenant's job; None: there is none, or it is another's."""
        record = self.peek(job_id)
        return record if record is not None and record.tenant == tenant else None

    def peek(self, job_id: str) -> JobRecord | None:
        """The job, whichever tenant has it: for workers alone."""
        fields: Any = self.client.hgetall(self._key("job", job_id))
        return job_of(fields) if fields else None

    def exists(self, job_id: str) -> bool:
        """Whether the job is there, whichever tenant has it."""
        return bool(self.client.exists(self._key("job", job_id)))

    def list(
        self,
        tenant: str,
        *,
        kind: JobKind | None = None,
        state: JobState | None = None,
        concept: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[JobRecord]:
        """The tenant's jobs, newest first, at most ``limit``; concept: those that make or use it.

        cursor: ``next_cursor`` of the page before. Jobs made meanwhile do not shift the pages.
        """
        items: list[JobRecord] = []
        while True:
            next_cursor, *records = self._run(
                "list",
                tenant=tenant,
                kind=kind,
                state=state,
                concept=concept,
                before=cursor,
                limit=limit - len(items),
                scan=_SCAN,
            )
            items += [job_of(pairs(fields)) for fields in records]
            cursor = next_cursor or None
            if cursor is None or len(items) >= limit:
                return Page(items, cursor)

    def cancel(self, tenant: str, job_id: str) -> JobRecord | None:
        """Cancels a queued job at once and asks a running one to stop; a finished one stays.

        None: the tenant has no such job.
        """
        fields = self._run("cancel", tenant=tenant, id=job_id)
        return job_of(pairs(fields)) if fields else None

    def delete(self, tenant: str, job_id: str) -> bool:
        """Removes a finished job; its folder in the bucket is marked for deletion.

        False: the tenant has no such job.

        Raises:
            NotFinished: it is queued or running.
            InUse: unfinished jobs need an output of it.
        """
        folder = object_keys.job(tenant, job_id)
        answer = self._run("delete", tenant=tenant, id=job_id, prefix=folder)
        if answer == -1:
            raise NotFinished(f"{job_id} is not finished; cancel it first")
        if isinstance(answer, list):
            raise InUse(job_id, answer)
        return bool(answer)

    def restore(self, record: JobRecord, *, journaled: bool) -> bool:
        """Puts a job of the journal back; False: it was there. Unfinished ones are queued.

        journaled: ``record`` is what ``final.json`` says.
        """
        if not record.finished:
            unfinished = {"started_at", "lease_until", "worker"}
            record = record.model_copy(
                update=dict.fromkeys(unfinished) | {"state": "queued", "cancel_requested": False}
            )
        return bool(
            self._run(
                "restore",
                id=record.id,
                tenant=record.tenant,
                prefix=object_keys.job(record.tenant, record.id),
                kind=record.kind,
                body=body_of(record),
                cost=cost_of(record),
                uses=uses_of(record),
                fields=fields_of(record)
                | {k: v for k in ("webhook", "concept") if (v := getattr(record, k)) is not None},
                batch=record.batch,
                batch_place=record.batch_place,
                finished_at=record.finished_at if record.finished else None,
                journaled=journaled,
            )
        )


def made_of(record: JobRecord) -> dict[str, Any]:
    """What the scripts that make jobs need of one."""
    return {
        "id": record.id,
        "prefix": object_keys.job(record.tenant, record.id),
        "kind": record.kind,
        "body": body_of(record),
        "cost": cost_of(record),
        "uses": uses_of(record),
        "webhook": record.webhook,
        "concept": record.concept,
        "batch": record.batch,
        "batch_place": record.batch_place,
    }


def _raise(answer: list[Any], limit: int = 0) -> None:
    match answer[0]:
        case "conflict":
            raise IdempotencyConflict("the key was used with another body")
        case "in-flight":
            raise IdempotencyInFlight("a request with this key is being handled")
        case "full":
            raise QueueFull(limit)
        case "missing":
            raise Missing(answer[1])
        case "gone":
            raise Gone("the job is deleted")
