"""Claims jobs, has each run as an attempt, and ends it in Redis, whatever happens.

Which job comes next is Redis' choice (``Jobs.claim_next``): a fair share between tenants. A Celery
message only says that a job may be ready. A worker with free slots also looks by itself every
``POLL_S`` seconds: that is how long a job waits at most whose message was lost, or was received by
a worker that has no slot for it while another has.

The heartbeat thread renews the leases of all jobs under way, passes their progress on, and learns
from Redis when one was cancelled or its lease was lost.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from redis.exceptions import RedisError

from customedit.config import telemetry
from customedit.errors import Cancelled
from customedit.files import disk_full
from customedit.jobs.queued_requests import OtherVersionError
from customedit.jobs.records import ConceptOutcome, ConceptRecord, EditOutcome, JobProgress
from customedit.jobs.store import Claim
from customedit.schemas.answers import JobKind
from customedit.storage.store import StorageError
from worker import cleanup, customize_job, edit_job, import_job, problems
from worker.attempt import Attempt, Stopped
from worker.inputs import concept_record
from worker.problems import TransientError
from worker.runtime import Runtime

Outcome = EditOutcome | ConceptOutcome

PERFORM: Final[dict[str, Callable[[Attempt], Outcome]]] = {
    "edit": edit_job.perform,
    "customize": customize_job.perform,
    "import": import_job.perform,
}

POLL_S: Final = 1.0
"""How often a worker with free slots looks for jobs without being notified of any."""

HEARTBEAT_S: Final = 0.1
PROGRESS_S: Final = 0.25
"""Least time between two reports of one job's progress."""

QUIET_S: Final = 1.0
"""Longest until a job without progress learns that it was cancelled."""

SCRATCH_RESERVE: Final = 256 * 2**20
"""A worker takes no job while its scratch disk has fewer bytes free."""

RESERVE_FROM: Final = 4
"""From so many slots on the last free one is kept for tenants that have no job in this worker."""

_log = logging.getLogger(__name__)


class Executor:
    """Runs the jobs of one worker.

    name: of the worker, as records show it; notify: sends a notification (job id, kind).

    Of the slots (``worker_concurrency``) trainings and imports take at most half, so that an edit
    always finds one (``Settings`` has at least two where a worker takes both). The last free slot,
    of all and of those for trainings, is for tenants that have no job here: a tenant with long jobs
    does not keep all others waiting for the end of one.
    """

    def __init__(self, runtime: Runtime, name: str, notify: Callable[[str, str], None]) -> None:
        self.runtime, self.name, self._notify = runtime, name, notify
        self.under_way: dict[str, Attempt] = {}  # by stamp: a job may come again before it has gone
        settings = runtime.settings
        self._kinds = cast("list[JobKind]", settings.worker_queues.split(","))
        self._slots = settings.worker_concurrency
        self._training_slots = max(1, self._slots // 2)
        self._lock = threading.Lock()
        self._claiming = threading.Lock()  # one claim at a time, so that slots are counted right
        self._taken: Counter[tuple[JobKind, str]] = Counter()  # slots by kind and tenant
        self._idle_since = time.monotonic()
        self._slot_freed = threading.Condition(self._lock)
        self._had_scratch = True
        self._draining = threading.Event()
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True),
            threading.Thread(target=self._poll, name="poll", daemon=True),
        ]

    def start(self) -> None:
        """Begin to send heartbeats and to look for jobs."""
        for thread in self._threads:
            thread.start()

    # claims

    def wake(self) -> bool:
        """A job may be ready: run jobs while there are any and a slot is free; never raises.

        Waits for a slot where all are taken, so that further messages go to other workers. False:
        this worker is going, and another should be notified.
        """
        with self._slot_freed:
            while self._free() < 1 and not self._draining.is_set():
                self._slot_freed.wait()
        if self._draining.is_set():
            return False
        claim = self._claim()
        if claim is not None:
            self._run_from(claim)
        return True

    def trouble(self) -> str:
        """Why this worker takes no jobs for now; empty if it does."""
        return "" if self._has_scratch() else "the scratch disk is full"

    def _poll(self) -> None:
        while not self._closed.wait(POLL_S):
            while (claim := self._claim()) is not None:
                self._start_slot(claim)

    def _start_slot(self, claim: Claim) -> None:
        threading.Thread(target=self._run_from, args=[claim], name="slot", daemon=True).start()

    def _run_from(self, claim: Claim | None) -> None:
        """Run a claimed job, and then others as long as there are any."""
        while claim is not None:
            slot = claim.record.kind, claim.record.tenant
            try:
                self._run_claim(claim)
            except Exception:  # whatever it is: it must not keep the slot
                _log.exception("job %s could not be run", claim.id)
            finally:
                self._release(slot)
            claim = self._claim()

    def _claim(self) -> Claim | None:
        """The next job for which this worker has a slot, which is taken with it."""
        with self._claiming:
            if self._draining.is_set() or not self._has_scratch():
                return None
            for kinds, others_only in self._open_kinds():
                claim = self._claim_of(kinds, others_only)
                if claim is not None:
                    with self._lock:
                        self._taken[claim.record.kind, claim.record.tenant] += 1
                    return claim
        return None

    def _has_scratch(self) -> bool:
        """Whether a job would find room for its files; jobs wait for another worker otherwise."""
        enough = free_scratch(self.runtime.scratch) >= SCRATCH_RESERVE
        if enough != self._had_scratch:
            self._had_scratch = enough
            say = _log.info if enough else _log.error
            say("the disk of %s is %s", self.runtime.scratch, "usable" if enough else "full")
        return enough

    def _claim_of(self, kinds: list[JobKind], others_only: bool) -> Claim | None:
        with self._lock:
            busy = {tenant for _, tenant in self._taken} if others_only else set()
        try:
            return self.runtime.jobs.claim_next(kinds, self.name, except_tenants=sorted(busy))
        except (RedisError, OSError) as error:  # the next poll asks again
            self.runtime.metrics.store_errors.labels("redis").inc()
            _log.warning("no job could be claimed: %s", error)
        except Exception:  # such as a record that cannot be read
            _log.exception("a claimed job could not be read")
        return None

    def _open_kinds(self) -> list[tuple[list[JobKind], bool]]:
        """Kinds that have a free slot, and whether it is for tenants without a job here alone.

        Those of which fewest run here come first.
        """
        with self._lock:
            free = self._free()
            taken: Counter[str] = Counter()
            for (kind, _), count in self._taken.items():
                taken[_group(kind)] += count
        trainings = self._training_slots - taken["training"]
        open_kinds: list[tuple[list[JobKind], bool]] = []
        for group in sorted({_group(kind) for kind in self._kinds}, key=lambda g: (taken[g], g)):
            most = self._slots if group == "edit" else self._training_slots
            left = min(free, trainings) if group == "training" else free
            if left > 0:
                last = (free == 1 and self._slots >= RESERVE_FROM) or (
                    left == 1 and most >= RESERVE_FROM
                )
                open_kinds.append(([k for k in self._kinds if _group(k) == group], last))
        return open_kinds

    def _free(self) -> int:
        return self._slots - sum(self._taken.values())

    def _release(self, slot: tuple[JobKind, str]) -> None:
        with self._slot_freed:
            self._taken[slot] -= 1
            self._taken = +self._taken  # drops those at 0
            self._slot_freed.notify_all()  # one may find no job and leave the slot to another

    def _run_claim(self, claim: Claim) -> None:
        record = claim.record
        age = max(0.0, time.time() - record.queued_at)
        self.runtime.metrics.queue_age.labels(record.kind).observe(age)
        with (
            telemetry.bind(job=record.id, tenant=record.tenant, attempt=str(claim.attempt)),
            telemetry.span(record.kind, record.traceparent, attempt=claim.attempt),
        ):
            self._run_attempt(claim)

    # an attempt

    def _run_attempt(self, claim: Claim) -> None:
        folder = Path(tempfile.mkdtemp(dir=self.runtime.scratch, prefix="job-"))
        attempt = Attempt(claim, self.runtime, folder)
        kind = attempt.kind
        with self._lock:
            if not self.under_way:
                attempt.rested = attempt.began - self._idle_since
            self.under_way[attempt.stamp] = attempt
            if len(self.under_way) > 1:
                for other in self.under_way.values():
                    other.alone = False
        if self._draining.is_set():  # since the claim
            attempt.stop("drain")
        self.runtime.metrics.running.labels(kind).inc()
        outcome = "internal"
        _log.info("started")
        try:
            outcome = self._run(attempt)
        except Exception:
            _log.exception("the attempt was given up; its lease will run out")
        finally:
            with self._lock:
                self.under_way.pop(attempt.stamp, None)
                if not self.under_way:
                    self._idle_since = time.monotonic()
            self.runtime.metrics.running.labels(kind).dec()
            self.runtime.metrics.jobs.labels(kind, outcome).inc()
            shutil.rmtree(folder, ignore_errors=True)
            _log.info("ended: %s", outcome)

    def _run(self, attempt: Attempt) -> str:
        """Run it and end it in Redis; gives how it ended."""
        try:
            result = PERFORM[attempt.kind](attempt)
            return self._commit(attempt, result)
        except Stopped as stopped:
            return self._stopped(attempt, stopped.reason)
        except TransientError as error:
            _log.error("given up, S3 or Redis is away: %s", error)
            return "abandoned"
        except Cancelled:
            return self._stopped(attempt, attempt.reason or "lost")
        except Exception as error:
            if problems.device_lost(error):  # not the job's fault, and neighbours meet it as well
                self.runtime.engine.give_up(error)
                raise
            if disk_full(error):  # likewise: another worker takes the job after its lease
                _log.error("given up, the scratch disk is full: %s", error)
                return "abandoned"
            if isinstance(error, OtherVersionError) and not attempt.record.last_attempt:
                # its lease runs out, so that a worker that was upgraded can take it meanwhile
                _log.warning("left for a newer worker: %s", error)
                return "other-version"
            problem = problems.job_error(attempt.kind, error)
            if problem.type == "out-of-memory":
                self.runtime.make_room()
            cleanup.remove_outputs(attempt)
            if not attempt.with_retries(lambda: self.runtime.jobs.fail(attempt.claim, problem)):
                return "lost"
            self._settle(attempt.id)
            cleanup.after_end(attempt)
            return problem.type

    def _commit(self, attempt: Attempt, outcome: Outcome) -> str:
        """Make the outputs the job's result, if it is still ours."""
        result = json.loads(outcome.model_dump_json())
        attempt.keep("result.json", json.dumps(result).encode(), "application/json")
        concept = self._concept(attempt, outcome)
        committed = attempt.with_retries(
            lambda: self.runtime.jobs.commit(attempt.claim, result, concept=concept)
        )
        if not committed:
            return self._stopped(attempt, "lost")
        attempt.measure(len(outcome.outputs) if isinstance(outcome, EditOutcome) else 1)
        self._settle(attempt.id)
        cleanup.after_end(attempt)
        return "succeeded"

    def _concept(self, attempt: Attempt, outcome: Outcome) -> ConceptRecord | None:
        if not isinstance(outcome, ConceptOutcome):
            return None
        record = concept_record(attempt, outcome.concept)
        if record is None:
            return None
        return record.ready(outcome, time.time())

    def _settle(self, job_id: str) -> None:
        """Write the job's end to the journal; what fails here the reconciler does later.

        This job's alone: of others that end at the same time each worker writes its own.
        """
        runtime = self.runtime
        try:
            runtime.journal.settle_job(runtime.jobs, runtime.concept_records, job_id)
        except (StorageError, RedisError, OSError) as error:
            _log.warning("left for the reconciler to journal: %s", error)

    def _stopped(self, attempt: Attempt, reason: str) -> str:
        if reason == "lost":
            self.runtime.metrics.lost.inc()
            cleanup.remove_outputs(attempt)
        elif reason == "drain":
            cleanup.remove_outputs(attempt)
            if attempt.with_retries(lambda: self.runtime.jobs.hand_back(attempt.claim)):
                self._notify(attempt.id, attempt.kind)  # of a job for a worker that stays
        else:
            cleanup.remove_outputs(attempt)
            if attempt.with_retries(lambda: self.runtime.jobs.cancelled(attempt.claim)):
                self._settle(attempt.id)
            cleanup.after_end(attempt)
        return {"lost": "lost", "drain": "handed-back"}.get(reason, "cancelled")

    # heartbeats

    def _send_heartbeats(self) -> None:
        """Until ``close``: without heartbeats a worker would lose all jobs that it runs."""
        last: dict[str, float] = {}
        quiet = min(QUIET_S, self.runtime.settings.heartbeat_seconds)
        while not self._closed.wait(HEARTBEAT_S):
            attempts = self._attempts()
            last = {a.stamp: last.get(a.stamp, 0.0) for a in attempts}
            for attempt in attempts:
                now = time.monotonic()
                if now - last[attempt.stamp] >= (PROGRESS_S if attempt.has_progress else quiet):
                    last[attempt.stamp] = now
                    try:
                        self._send_heartbeat(attempt)
                    except Exception:
                        _log.exception("no heartbeat of %s", attempt.id)

    def _send_heartbeat(self, attempt: Attempt) -> None:
        progress: JobProgress | None = attempt.take_progress()
        try:
            answer = (
                self.runtime.jobs.renew(attempt.claim)
                if progress is None
                else self.runtime.jobs.progress(attempt.claim, progress)
            )
        except (RedisError, OSError) as error:
            self.runtime.metrics.store_errors.labels("redis").inc()
            _log.warning("no heartbeat: %s", error)
            return
        if answer == "cancel":
            attempt.stop("cancel")
        elif answer == "lost" and attempt.stamp in self.under_way:
            attempt.stop("lost")

    def _attempts(self) -> list[Attempt]:
        with self._lock:
            return list(self.under_way.values())

    # the end

    def drain(self, seconds: float) -> None:
        """Take no more; let those under way go on for ``seconds``, then hand them back."""
        self._draining.set()
        with self._slot_freed:
            self._slot_freed.notify_all()
        self.finish(seconds)
        for attempt in self._attempts():
            attempt.stop("drain")

    def finish(self, seconds: float) -> bool:
        """Wait until nothing is under way, ``seconds`` at most; gives whether it is so."""
        over = time.monotonic() + seconds
        while self._busy() and time.monotonic() < over:
            time.sleep(0.02)
        return not self._busy()

    def _busy(self) -> bool:
        with self._lock:
            return bool(self.under_way or self._taken)

    def close(self) -> None:
        """Stop the threads."""
        self._closed.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(5)


def free_scratch(folder: Path) -> int:
    """Bytes free on the disk of the scratch folder."""
    return shutil.disk_usage(folder).free


def _group(kind: JobKind) -> str:
    """Which slots a job of ``kind`` takes: those of edits, or those of trainings."""
    return "edit" if kind == "edit" else "training"
