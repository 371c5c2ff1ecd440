"""A worker's side of a job: claim it, hold it, end it. Every call says if the job is lost."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from customedit.jobs.records import ConceptRecord, JobError, JobProgress, JobRecord, job_of
from customedit.jobs.redis import Scripts, pairs
from customedit.schemas.answers import JobKind
from customedit.storage import object_keys

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings

Standing = Literal["held", "cancel", "lost"]

EXHAUSTED: Final = JobError(
    type="attempts-exhausted",
    title="The job was begun too often without coming to an end",
    detail="Each of its workers went away in the middle. Ask again, or for less at once.",
)


@dataclass(frozen=True)
class Claim:
    """A worker's right to a job. token: what tells it from every other claim of the same job."""

    record: JobRecord
    attempt: int
    token: str

    @property
    def id(self) -> str:
        """The job's id."""
        return self.record.id

    def key(self, name: str = "") -> str:
        """The key of output ``name`` of this attempt, or the attempt's folder.

        The folder carries the token too: should Redis lose its last second and count an attempt
        again, its twin still writes elsewhere.
        """
        folder = object_keys.attempts(self.record.tenant, self.record.id)
        return f"{folder}{self.attempt}-{self.token[:8]}/{name}"


class Claims:
    """The scripts of workers."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self.client, self.settings = client, settings
        self._run = Scripts(client, settings)

    def _key(self, *parts: str) -> str:
        return ":".join((self.settings.namespace, *parts))

    def claim_next(
        self, kinds: Sequence[JobKind], worker: str, *, except_tenants: Sequence[str] = ()
    ) -> Claim | None:
        """The next job of the first of ``kinds`` that has any; None: there is nothing to do.

        Jobs of a tenant are taken in the order of their making; between tenants the next is the one
        whose claims cost least so far (``cost_of``), counted from when it last had nothing to do.
        Jobs that run under a lease that is over are taken like queued ones. A job that was to be
        cancelled, or that was begun ``max_attempts`` times (hand-backs not counted), ends here
        instead. except_tenants: these are passed over.
        """
        return self._claim(worker, kinds=list(kinds), **{"except": list(except_tenants)})

    def claim(self, job_id: str, worker: str) -> Claim | None:
        """This very job, out of turn, if it is queued or its lease is over."""
        return self._claim(worker, id=job_id)

    def _claim(self, worker: str, **which: Any) -> Claim | None:
        token = secrets.token_hex(16)
        fields = self._run(
            "claim",
            worker=worker,
            token=token,
            lease=self.settings.lease_seconds,
            cleanup=cleanup_delay_s(self.settings),
            exhausted=EXHAUSTED.model_dump_json(),
            **which,
        )
        if not fields:
            return None
        record = job_of(pairs(fields))
        return Claim(record, record.attempt, token)

    def renew(self, claim: Claim) -> Standing:
        """Holds the job for another ``lease_seconds``."""
        return self._hold(claim)

    def progress(self, claim: Claim, progress: JobProgress) -> Standing:
        """As ``renew``; the progress goes into the record and becomes an event.

        The event is a ``preview`` when the progress has a ``preview_key``.
        """
        kind = "progress" if progress.preview_key is None else "preview"
        return self._hold(claim, progress=progress.model_dump_json(), event=kind)

    def _hold(self, claim: Claim, **more: str) -> Standing:
        lease = self.settings.lease_seconds
        answer: Standing = self._run("hold", **_who(claim), lease=lease, **more)
        return answer

    def commit(
        self, claim: Claim, result: dict[str, Any], *, concept: ConceptRecord | None = None
    ) -> bool:
        """Ends the job with ``result``; ``concept`` becomes ready with it.

        False: another attempt has the job by now, and what this one wrote is to be removed.
        """
        if concept is not None:
            if concept.id != claim.record.concept or concept.tenant != claim.record.tenant:
                raise ValueError(f"{concept.id} is not the concept of {claim.id}")
            concept = concept.model_copy(update={"state": "ready"})
        return self._finish(
            claim,
            "succeeded",
            result=json.dumps(result),
            concept_record=None if concept is None else concept.model_dump_json(),
        )

    def fail(self, claim: Claim, error: JobError) -> bool:
        """Ends the job with ``error``; its concept in training fails. False: it is another's."""
        return self._finish(claim, "failed", error=error.model_dump_json())

    def cancelled(self, claim: Claim) -> bool:
        """Ends the job as its owner asked; its concept in training fails. False: another's."""
        return self._finish(claim, "cancelled")

    def _finish(self, claim: Claim, state: str, **more: str | None) -> bool:
        return bool(self._run("finish", **_who(claim), state=state, **more))

    def hand_back(self, claim: Claim) -> bool:
        """Returns the job to the queue; the attempt does not count. False: it is another's.

        A job that is to be cancelled becomes cancelled instead.
        """
        return bool(self._run("hand_back", **_who(claim)))


def cleanup_delay_s(settings: Settings) -> float:
    """Seconds from a claim until its job is looked at for files of attempts that did not count.

    By then a worker that lost its lease knows it.
    """
    return max(5.0, 2 * settings.lease_seconds)


def _who(claim: Claim) -> dict[str, Any]:
    return {"id": claim.id, "attempt": claim.attempt, "token": claim.token}
