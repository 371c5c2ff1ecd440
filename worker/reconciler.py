"""Mends what doorbells and killed workers leave behind. One worker at a time does it, under a lock.

Rings stale jobs again, sweeps the leavings of jobs that are final, writes what the journal lacks,
removes jobs that are too old and what belongs to nobody, and delivers webhooks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final, get_args

from customedit.jobs import notifications
from customedit.jobs.journal import REQUEST
from customedit.jobs.orphans import Orphans
from customedit.jobs.records import JobKind
from customedit.jobs.webhooks import Webhooks
from customedit.storage import object_keys
from worker import cleanup
from worker.runtime import Runtime

Ring = Callable[[str, str], None]

SWEEP_AT_ONCE: Final = 50
BELLS: Final = 100
"""Bells more than queued jobs of a kind that may hang unheard."""

_log = logging.getLogger(__name__)


class Reconciler:
    """Runs in its own threads from ``start`` to ``close``. ring: sends a doorbell (id, kind)."""

    def __init__(self, runtime: Runtime, ring: Ring, name: str) -> None:
        self._settings, self._redis, self._jobs = runtime.settings, runtime.redis, runtime.jobs
        self._storage, self._metrics = runtime.storage, runtime.metrics
        self._ring, self._name = ring, name
        self._measure_device = runtime.measure_device
        self._closed = threading.Event()
        self._lock = f"{self._settings.namespace}:reconciler"
        self._journal, self._concepts = runtime.journal, runtime.concept_records
        self._orphans = Orphans(self._redis, self._settings, self._storage, self._jobs)
        self._webhooks = Webhooks(self._redis, self._settings, self._jobs)
        self._threads = [
            threading.Thread(target=self._run, name="reconciler", daemon=True),
            threading.Thread(target=self._deliver, name="webhooks", daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop after the round that runs."""
        self._closed.set()
        for thread in self._threads:
            thread.join(5)

    def _run(self) -> None:
        while not self._closed.wait(self._settings.reconcile_seconds):
            self._try(self._measure)
            self._try(self._round)

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # Redis or S3 is away: the next round does it
            _log.warning("%s: %s: %s", step.__name__, type(error).__name__, error)

    def _measure(self) -> None:
        self._measure_device()
        depths = self._jobs.queue_depths()
        for kind in get_args(JobKind):
            self._metrics.depth.labels(kind).set(depths[kind])
            self._metrics.oldest.labels(kind).set(self._jobs.oldest_queued_age(kind))

    def _round(self) -> None:
        if not self._mine():
            return
        for step in (
            self.ring_stale,
            self.sweep,
            self.expire,
            self.settle,
            self.drop_uploads,
            self._orphans.look,
        ):
            self._try(step)  # by itself: what cannot be swept must not keep bells from ringing

    def _mine(self) -> bool:
        """Whether this worker is the one that reconciles now; the lock outlasts a few rounds."""
        hold_ms = int(self._settings.reconcile_seconds * 3000) + 1000
        if self._redis.set(self._lock, self._name, nx=True, px=hold_ms):
            return True
        if self._redis.get(self._lock) != self._name:
            return False
        self._redis.pexpire(self._lock, hold_ms)
        return True

    def ring_stale(self) -> int:
        """Ring again for jobs queued long ago and for leases that ran out; gives how many.

        Not where more bells hang unheard than there are jobs: nobody takes this kind at present,
        and its list must not grow for ever.
        """
        found, depths = self._jobs.stale(), self._jobs.queue_depths()
        unheard = {kind: self._bells(kind) for kind in {kind for _, kind in found}}
        rung = 0
        for job_id, kind in found:
            if unheard[kind] < BELLS + depths[kind]:
                self._ring(job_id, kind)
                self._metrics.rung.labels(kind).inc()
                unheard[kind] += 1
                rung += 1
        return rung

    def _bells(self, kind: JobKind) -> int:
        """How many bells for jobs of ``kind`` hang in Celery's list."""
        count: Any = self._redis.llen(notifications.queue(self._settings, kind))
        return int(count)

    def sweep(self) -> int:
        """Tidy up jobs that were marked and are final by now; gives how many."""
        key = cleanup.marks(self._settings)
        now = self._jobs.now()
        due: Any = self._redis.zrangebyscore(key, "-inf", now, start=0, num=SWEEP_AT_ONCE)
        done = 0
        for entry in due:
            # Put off before it is tried: one that cannot be tidied keeps no other waiting.
            self._redis.zadd(key, {entry: now + cleanup.again_s(self._settings)}, xx=True)
            try:
                tidied = self._tidy(*entry.split("/"))
            except Exception as error:
                _log.warning("%s cannot be swept: %s: %s", entry, type(error).__name__, error)
                continue
            if tidied:
                self._redis.zrem(key, entry)
                done += 1
        return done

    def _tidy(self, tenant: str, job_id: str) -> bool:
        """Whether there was nothing to wait for, such as the job's end."""
        record = self._jobs.peek(job_id)
        if record is None:
            self._sweep_deleted(tenant, job_id)
        elif record.finished:
            cleanup.tidy(self._storage, record)
        else:
            return False
        return True

    def _sweep_deleted(self, tenant: str, job_id: str) -> None:
        """What was written for a job after it was deleted: in the journal, it has no request."""
        if not self._storage.exists(object_keys.job(tenant, job_id, REQUEST)):
            self._storage.delete_prefix(object_keys.job(tenant, job_id))

    def expire(self) -> int:
        """Remove jobs that finished ``keep_jobs_days`` ago; gives how many."""
        return sum(self._jobs.delete(tenant, job_id) for tenant, job_id in self._jobs.expired())

    def drop_uploads(self) -> int:
        """Remove files that were sent to the store and never completed; gives how many."""
        found = self._jobs.overdue_uploads()
        for tenant, upload_id in found:
            self._storage.delete(object_keys.upload(tenant, upload_id))
            self._jobs.upload_gone(tenant, upload_id)
        return len(found)

    def settle(self) -> int:
        """Write what the journal lacks and remove the files of what was deleted."""
        return self._journal.settle(self._jobs, self._concepts)

    def _deliver(self) -> None:
        """Webhooks, in a thread of their own: a slow receiver must not keep bells from ringing."""
        while not self._closed.wait(min(1.0, self._settings.reconcile_seconds)):
            try:
                self._webhooks.deliver_due()
            except Exception as error:
                _log.warning("webhooks: %s: %s", type(error).__name__, error)
