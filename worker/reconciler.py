"""Does what notifications, killed workers and front ends left undone, and keeps house.

One worker at a time does it, under a lock: it notifies workers of jobs that wait too long, removes
files of attempts that did not count, writes what the journal lacks, removes jobs that are too old
and files that belong to nobody, and delivers webhooks. Every worker measures the stores and
publishes the facts of its base.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, get_args

from customedit.jobs import notifications
from customedit.jobs.bases import PUBLISH_EVERY_S, Bases
from customedit.jobs.journal import REQUEST
from customedit.jobs.orphans import Orphans
from customedit.jobs.redis import memory
from customedit.jobs.store import InUse
from customedit.jobs.webhooks import Webhooks
from customedit.schemas.answers import JobKind
from customedit.storage import object_keys
from customedit.storage.store import BROKEN_UPLOAD_DAYS
from worker import cleanup
from worker.runtime import Runtime

BATCH: Final = 16
"""Jobs that are cleaned up, removed or journaled before the lock is extended: few enough that it
does not run out meanwhile, or a second worker would begin the same."""

CLEANERS: Final = 8
"""Threads of ``clean_up``, which wait for S3."""

MOST_NOTIFICATIONS: Final = 100
"""Notifications of a kind that wait in its list after those of overdue jobs were added: a worker
that receives one goes on while there are jobs."""

PROBE_EVERY_S: Final = 30.0
"""How often it is tried whether the bucket can be written."""

ABORT_EVERY_S: Final = 3600.0
"""How often uploads that broke off are looked for."""

_log = logging.getLogger(__name__)


class Reconciler:
    """Runs in its own threads from ``start`` to ``close``. name: of the worker."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._settings, self._redis, self._jobs = runtime.settings, runtime.redis, runtime.jobs
        self._storage, self._metrics = runtime.storage, runtime.metrics
        self._runtime, self._name = runtime, name
        self._closed = threading.Event()
        self._journal, self._concepts = runtime.journal, runtime.concept_records
        self._orphans = Orphans(self._redis, self._settings, self._storage, self._jobs)
        self._bases = Bases(self._redis, self._settings, self._storage)
        self._webhooks = Webhooks(self._redis, self._settings, self._jobs)
        self._probe_at = self._abort_at = self._publish_at = 0.0
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
        self._try(self.publish_base)
        while not self._closed.wait(self._settings.reconcile_seconds):
            self._try(self.publish_base)
            self._try(self.measure)
            self._try(self._round)

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # Redis or S3 is away: the next round does it
            _log.warning("%s: %s: %s", step.__name__, type(error).__name__, error)

    def publish_base(self) -> None:
        """Name the base of this worker, for front ends, unless that was done a moment ago."""
        if time.monotonic() >= self._publish_at:
            self._bases.publish(self._runtime.facts)
            self._publish_at = time.monotonic() + PUBLISH_EVERY_S

    def measure(self) -> None:
        """Set the gauges of the device, the scratch folder, the queues and Redis."""
        self._runtime.measure_device()
        disk = shutil.disk_usage(self._runtime.scratch)
        self._metrics.scratch.labels("free").set(disk.free)
        self._metrics.scratch.labels("total").set(disk.total)
        depths = self._jobs.queue_depths()
        for kind in get_args(JobKind):
            self._metrics.depth.labels(kind).set(depths[kind])
            self._metrics.oldest.labels(kind).set(self._jobs.oldest_queued_age(kind))
        held = memory(self._redis)
        self._metrics.set_memory(held.used, held.most)
        self._metrics.webhooks.set(self._webhooks.waiting())
        self._metrics.webhook_age.set(self._webhooks.oldest_age())

    def _round(self) -> None:
        if not self._is_leader():
            self._metrics.storage_writable.set(1)  # the leader's to say
            return
        for step in (
            self.notify_overdue,
            self.clean_up_all,
            self.expire_all,
            self.settle_all,
            self.remove_uploads,
            self._orphans.look,
            self._probe_storage,
            self._abort_broken_uploads,
        ):
            if not self._is_leader():  # some steps take long: the lock goes on meanwhile
                return
            self._try(step)  # each by itself: what fails must not keep the others from their turn

    def clean_up_all(self) -> None:
        """``clean_up`` for about one round, while there is more."""
        self._repeat(self.clean_up)

    def expire_all(self) -> None:
        """``expire`` for about one round, while there is more."""
        self._repeat(self.expire)

    def settle_all(self) -> None:
        """``settle`` for about one round, while there is more."""
        self._repeat(self.settle)

    def _repeat(self, step: Callable[[], int]) -> None:
        """Again and again while ``step`` does a whole batch, for about the time of one round.

        One batch a round would be too few where many workers end more jobs than that.
        """
        end = time.monotonic() + self._settings.reconcile_seconds
        while step() >= BATCH and time.monotonic() < end and not self._closed.is_set():
            if not self._is_leader():
                return

    def _is_leader(self) -> bool:
        """Whether this worker is the one that reconciles now; the lock outlasts a few rounds."""
        return self._jobs.lock("reconciler", self._name, self._settings.reconcile_seconds * 3 + 1)

    def notify_overdue(self) -> int:
        """Notify workers of jobs queued long ago and of leases that are over; gives how many.

        Not where as many notifications wait as there are jobs, or ``MOST_NOTIFICATIONS``: no worker
        takes this kind at present, and its list must not grow for ever.
        """
        overdue: defaultdict[JobKind, list[str]] = defaultdict(list)
        for job_id, kind in self._jobs.overdue():
            overdue[kind].append(job_id)
        depths, notified = self._jobs.queue_depths(), 0
        for kind, names in overdue.items():
            # those whose lease is over are not among the queued
            wanted = min(MOST_NOTIFICATIONS, max(depths[kind], len(names)))
            names = names[: max(0, wanted - self._pending(kind))]
            notifications.send(self._redis, self._settings, kind, names)
            self._metrics.notified.labels(kind).inc(len(names))
            notified += len(names)
        return notified

    def _pending(self, kind: JobKind) -> int:
        """How many notifications of ``kind`` wait in Celery's list."""
        count: Any = self._redis.llen(notifications.queue(self._settings, kind))
        return int(count)

    def clean_up(self) -> int:
        """Remove files of attempts that did not count, of jobs that are final.

        Gives how many were looked at; one that is not final is put off.
        """
        due = self._jobs.due_cleanups(BATCH)
        with ThreadPoolExecutor(CLEANERS) as pool:
            list(pool.map(lambda entry: self._try_to_clean_up(*entry), due))
        return len(due)

    def _try_to_clean_up(self, tenant: str, job_id: str) -> None:
        try:
            if self._clean_up_job(tenant, job_id):
                self._jobs.cleaned_up(tenant, job_id)
        except Exception as error:
            name = type(error).__name__
            _log.warning("%s/%s cannot be cleaned up: %s: %s", tenant, job_id, name, error)

    def _clean_up_job(self, tenant: str, job_id: str) -> bool:
        """Whether there was nothing to wait for, such as the job's end."""
        record = self._jobs.peek(job_id)
        if record is None:
            self._remove_deleted(tenant, job_id)
        elif record.finished:
            cleanup.keep_result_only(self._storage, record)
        else:
            return False
        return True

    def _remove_deleted(self, tenant: str, job_id: str) -> None:
        """What was written for a job after it was deleted: in the journal, it has no request."""
        if not self._storage.exists(object_keys.job(tenant, job_id, REQUEST)):
            self._storage.delete_prefix(object_keys.job(tenant, job_id))

    def expire(self) -> int:
        """Remove jobs that finished ``keep_jobs_days`` ago; gives how many."""
        removed = 0
        for tenant, job_id in self._jobs.expired(BATCH):
            with contextlib.suppress(InUse):  # an output is edited at this moment: the next round
                removed += self._jobs.delete(tenant, job_id)
        return removed

    def remove_uploads(self) -> int:
        """Remove files that were sent to the store and never completed; gives how many."""
        overdue = self._jobs.overdue_uploads()
        for tenant, upload_id in overdue:
            self._storage.delete(object_keys.upload(tenant, upload_id))
            self._jobs.upload_gone(tenant, upload_id)
        return len(overdue)

    def settle(self) -> int:
        """Write what the journal lacks and remove the files of what was deleted."""
        return self._journal.settle(self._jobs, self._concepts, BATCH)

    def _probe_storage(self) -> None:
        if time.monotonic() >= self._probe_at:
            self._probe_at = time.monotonic() + PROBE_EVERY_S
            self._metrics.storage_writable.set(self._storage.writable())

    def _abort_broken_uploads(self) -> None:
        if time.monotonic() >= self._abort_at:
            self._abort_at = time.monotonic() + ABORT_EVERY_S
            before = self._jobs.now() - BROKEN_UPLOAD_DAYS * 86_400
            self._storage.abort_broken_uploads(before)

    def _deliver(self) -> None:
        """Webhooks, in a thread of their own: receivers must not delay the rest."""
        every_s = min(1.0, self._settings.reconcile_seconds)
        while not self._closed.is_set():
            try:
                self._webhooks.run(self._closed, every_s)
            except Exception:
                _log.exception("webhooks")
                self._closed.wait(every_s)
