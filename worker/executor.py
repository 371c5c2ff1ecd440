"""Takes doorbells: claims a job, has it performed, and ends it in Redis, whatever happens.

A pulse thread renews the leases of all jobs under way, passes their progress on, and hears from
Redis when one was cancelled or its lease was lost.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from customedit.config import telemetry
from customedit.errors import Cancelled
from customedit.jobs.records import ConceptOutcome, ConceptRecord, EditOutcome, JobProgress
from customedit.jobs.store import Claim
from customedit.storage.store import StorageError
from worker import cleanup, customize_job, edit_job, import_job, problems
from worker.attempt import Stopped, Work
from worker.inputs import concept_record
from worker.problems import TransientError
from worker.runtime import Runtime

Outcome = EditOutcome | ConceptOutcome

PERFORM: Final[dict[str, Callable[[Work], Outcome]]] = {
    "edit": edit_job.perform,
    "customize": customize_job.perform,
    "import": import_job.perform,
}

PULSE_S: Final = 0.1
NEWS_S: Final = 0.25
"""Least time between two pieces of news of one job."""

QUIET_S: Final = 1.0
"""Longest until a job without news hears that it was cancelled."""

_log = logging.getLogger(__name__)


class Desk:
    """Runs the jobs of one worker. name: of the worker, as records show it; bell: rings (id, kind).

    Trainings take at most half of the slots, so that an edit always finds one (``Settings`` has at
    least two where a worker takes both); those that found none wait here and are taken up by the
    first training slot that is free.
    """

    def __init__(self, runtime: Runtime, name: str, bell: Callable[[str, str], None]) -> None:
        self.runtime, self.name, self._bell = runtime, name, bell
        self.under_way: dict[str, Work] = {}  # by stamp: a job may come again before it has gone
        self._lock = threading.Lock()
        self._training = 0
        self._most_trainings = max(1, runtime.settings.worker_concurrency // 2)
        self._waiting: deque[tuple[str, str]] = deque(maxlen=1000)  # id, kind
        self._draining = threading.Event()
        self._closed = threading.Event()
        self._pulse = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self._pulse.start()

    # doorbells

    def ring(self, job_id: str, kind: str) -> bool:
        """Take up the job if it is to be had. Blocks until it has ended here; never raises.

        Gives False if the worker goes, and another should be rung.
        """
        if self._draining.is_set():
            return False
        if kind == "edit":
            self._take(job_id)
        elif self._training_slot(job_id, kind):
            self._train(job_id)
        return True

    def _train(self, job_id: str) -> None:
        more: str | None = job_id
        while more is not None:
            try:
                self._take(more)
            except Exception:  # whatever it is: it must not keep the slot
                _log.exception("job %s could not be taken up", more)
            more = self._next_waiting()

    def _training_slot(self, job_id: str, kind: str) -> bool:
        with self._lock:
            if self._training < self._most_trainings:
                self._training += 1
                return True
            if (job_id, kind) not in self._waiting:
                self._waiting.append((job_id, kind))
            return False

    def _next_waiting(self) -> str | None:
        """Who may have the slot next; None: nobody waits, and the slot is given back.

        Both under one lock: whoever came in between would wait for a slot that nobody holds.
        """
        with self._lock:
            if self._waiting and not self._draining.is_set():
                return self._waiting.popleft()[0]
            self._training -= 1
            return None

    def _take(self, job_id: str) -> None:
        if self._draining.is_set():
            return
        try:
            claim = self.runtime.jobs.claim(job_id, self.name)
        except (RedisError, OSError) as error:  # the reconciler rings again
            _log.warning("job %s could not be claimed: %s", job_id, error)
            return
        if claim is None:
            return
        record = claim.record
        age = max(0.0, time.time() - record.queued_at)
        self.runtime.metrics.queue_age.labels(record.kind).observe(age)
        with (
            telemetry.bind(job=record.id, tenant=record.tenant, attempt=str(claim.attempt)),
            telemetry.span(record.kind, record.traceparent, attempt=claim.attempt),
        ):
            self._attempt(claim)

    # an attempt

    def _attempt(self, claim: Claim) -> None:
        folder = Path(tempfile.mkdtemp(dir=self.runtime.scratch, prefix="job-"))
        work = Work(claim, self.runtime, folder)
        kind = work.kind
        with self._lock:
            self.under_way[work.stamp] = work
        if self._draining.is_set():  # it began between the two looks
            work.stop("drain")
        self.runtime.metrics.running.labels(kind).inc()
        outcome = "internal"
        _log.info("began")
        try:
            outcome = self._run(work)
        except Exception:
            _log.exception("the attempt was given up; its lease will run out")
        finally:
            with self._lock:
                self.under_way.pop(work.stamp, None)
            self.runtime.metrics.running.labels(kind).dec()
            self.runtime.metrics.jobs.labels(kind, outcome).inc()
            shutil.rmtree(folder, ignore_errors=True)
            _log.info("ended: %s", outcome)

    def _run(self, work: Work) -> str:
        """Perform it and tell Redis; gives how it ended."""
        try:
            cleanup.mark(work)
            result = PERFORM[work.kind](work)
            return self._commit(work, result)
        except Stopped as stopped:
            return self._stopped(work, stopped.reason)
        except TransientError as error:
            _log.error("given up, S3 or Redis is away: %s", error)
            return "abandoned"
        except Cancelled:
            return self._stopped(work, work.reason or "lost")
        except Exception as error:
            if problems.device_lost(error):  # not the job's fault, and neighbours meet it as well
                self.runtime.engine.give_up(error)
                raise
            problem = problems.of_error(work.kind, error)
            if problem.type == "out-of-memory":
                self.runtime.make_room()
            cleanup.sweep_own(work)
            if not work.patiently(lambda: self.runtime.jobs.fail(work.claim, problem)):
                return "lost"
            self._settle()
            cleanup.after(work)
            return problem.type

    def _commit(self, work: Work, outcome: Outcome) -> str:
        """Make the outputs the job's result, if it is still ours."""
        result = json.loads(outcome.model_dump_json())
        work.keep("result.json", json.dumps(result).encode(), "application/json")
        concept = self._concept(work, outcome)
        committed = work.patiently(
            lambda: self.runtime.jobs.commit(work.claim, result, concept=concept)
        )
        if not committed:
            return self._stopped(work, "lost")
        self._settle()
        cleanup.after(work)
        return "succeeded"

    def _concept(self, work: Work, outcome: Outcome) -> ConceptRecord | None:
        if not isinstance(outcome, ConceptOutcome):
            return None
        held = concept_record(work, outcome.concept)
        if held is None:
            return None
        return held.ready(outcome, time.time())

    def _settle(self) -> None:
        """Write the journal's last word on what just ended; the reconciler makes up for it."""
        try:
            self.runtime.journal.settle(self.runtime.jobs, self.runtime.concept_records, limit=4)
        except (StorageError, RedisError, OSError) as error:
            _log.warning("left for the reconciler to journal: %s", error)

    def _stopped(self, work: Work, reason: str) -> str:
        if reason == "lost":
            self.runtime.metrics.lost.inc()
            cleanup.sweep_own(work)
        elif reason == "drain":
            cleanup.sweep_own(work)
            if work.patiently(lambda: self.runtime.jobs.hand_back(work.claim)):
                self._bell(work.id, work.kind)  # for a worker that stays
        else:
            cleanup.sweep_own(work)
            work.patiently(lambda: self.runtime.jobs.cancelled(work.claim))
            self._settle()
            cleanup.after(work)
        return {"lost": "lost", "drain": "handed-back"}.get(reason, "cancelled")

    # the pulse

    def _beat(self) -> None:
        """Until ``close``: without its pulse a worker would lose all that it works at."""
        last: dict[str, float] = {}
        quiet = min(QUIET_S, self.runtime.settings.heartbeat_seconds)
        while not self._closed.wait(PULSE_S):
            works = self._works()
            last = {w.stamp: last.get(w.stamp, 0.0) for w in works}
            for work in works:
                now = time.monotonic()
                if now - last[work.stamp] >= (NEWS_S if work.has_news else quiet):
                    last[work.stamp] = now
                    try:
                        self._tell(work)
                    except Exception:
                        _log.exception("no heartbeat of %s", work.id)

    def _tell(self, work: Work) -> None:
        news: JobProgress | None = work.news()
        try:
            answer = (
                self.runtime.jobs.renew(work.claim)
                if news is None
                else self.runtime.jobs.progress(work.claim, news)
            )
        except (RedisError, OSError) as error:
            _log.warning("no heartbeat: %s", error)
            return
        if answer == "cancel":
            work.stop("cancel")
        elif answer == "lost" and work.stamp in self.under_way:
            work.stop("lost")

    def _works(self) -> list[Work]:
        with self._lock:
            return list(self.under_way.values())

    # the end

    def drain(self, seconds: float) -> None:
        """Take no more; let those under way go on for ``seconds``, then hand them back.

        For trainings that wait here another worker is rung.
        """
        self._draining.set()
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        for job_id, kind in waiting:
            try:
                self._bell(job_id, kind)
            except Exception as error:  # the reconciler rings again
                _log.warning("job %s: no bell for another worker: %s", job_id, error)
        self.finish(seconds)
        for work in self._works():
            work.stop("drain")

    def finish(self, seconds: float) -> bool:
        """Wait until nothing is under way, ``seconds`` at most; gives whether it is so."""
        over = time.monotonic() + seconds
        while self._works() and time.monotonic() < over:
            time.sleep(0.02)
        return not self._works()

    def close(self) -> None:
        """Stop the pulse."""
        self._closed.set()
        self._pulse.join(5)
