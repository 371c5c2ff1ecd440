"""One attempt at one job: its request, its files, how it is stopped, its progress.

Two threads look at it: the job's own, which fetches, waits for the engine and uploads; and the
heartbeats' (``executor.py``), which sends progress to Redis and acts on what Redis answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from customedit.diffusion.engine import Ticket
from customedit.diffusion.method import Method, Progress
from customedit.errors import Cancelled, DeadlineExceeded
from customedit.jobs.records import JobProgress, JobRecord
from customedit.jobs.store import Claim
from customedit.storage.store import StorageError
from worker.problems import TransientError
from worker.runtime import Runtime

T = TypeVar("T")
Reason = Literal["cancel", "lost", "drain"]

PATIENCE: Final = 300.0
"""Seconds that an attempt waits for S3 or Redis to come back before it is given up."""

_log = logging.getLogger(__name__)


class Stopped(Exception):
    """The attempt must end: its owner cancelled it, its lease is lost, or the worker goes."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Attempt:
    """An attempt. folder: an empty folder of its own, gone at the end.

    alone: whether no other attempt ran in this worker beside it, which the executor notes; rested:
    seconds for which it ran nothing before; waited: seconds spent on waiting for the engine.
    """

    def __init__(self, claim: Claim, runtime: Runtime, folder: Path) -> None:
        self.claim, self.runtime, self.folder = claim, runtime, folder
        self.record: JobRecord = claim.record
        self.tenant, self.id, self.kind = self.record.tenant, self.record.id, self.record.kind
        self.number: int = claim.attempt
        self.storage, self.metrics = runtime.storage, runtime.metrics
        self.deadline = time.monotonic() + runtime.settings.job_timeout_seconds
        self._stopped = threading.Event()
        self._reason: Reason | None = None
        self._lock = threading.Lock()
        self._tickets: list[Ticket[Any]] = []
        self._latest, self._is_new = JobProgress(phase=""), False
        self._preview: str | None = None
        self._warnings: tuple[str, ...] = ()
        self._phase_began, self._first_step = time.monotonic(), 0
        self.began, self.accounted = time.monotonic(), runtime.speedometer.accounted
        self.alone, self.rested, self.waited = True, 0.0, 0.0

    # being stopped

    def stop(self, reason: Reason) -> None:
        """Ask it to end, from any thread; methods stop at their next yield.

        The first reason counts, but that a lost lease overrides the rest: there is nothing to hand
        back any more.
        """
        with self._lock:
            if self._reason is None or reason == "lost":
                self._reason = reason
            self._stopped.set()
            for ticket in self._tickets:
                ticket.cancel()

    @property
    def reason(self) -> Reason | None:
        """Why it must end, if it must."""
        return self._reason

    def check(self) -> None:
        """Raises Stopped or DeadlineExceeded if it must not go on."""
        if self._reason is not None:
            raise Stopped(self._reason)
        if time.monotonic() > self.deadline:
            raise DeadlineExceeded("the job took longer than it may")

    # the engine

    def submit(
        self,
        method: Method[T],
        priority: int,
        *,
        report: bool = True,
        phase: str = "",
        label: str = "",
    ) -> Ticket[T]:
        """Hand ``method`` to the engine.

        report: whether its progress is the job's; phase: of the job, in place of the method's own
        phases; label: under which its steps are measured.
        """

        def on_progress(progress: Progress) -> None:  # called by the engine: it only remembers
            self.report(phase or progress.phase, progress.step, progress.steps, progress.facts)

        ticket = self.runtime.engine.submit(
            method,
            priority=priority,
            timeout=max(0.0, self.deadline - time.monotonic()),
            on_progress=on_progress if report else None,
            share=(self.tenant, self.id),
            label=label,
        )
        with self._lock:
            self._tickets.append(ticket)
            if self._reason is not None:  # stopped a moment ago
                ticket.cancel()
        return ticket

    def wait(
        self, tickets: Sequence[Ticket[T]], meanwhile: Callable[[], None] | None = None
    ) -> list[T]:
        """The results, in order. meanwhile: called about ten times a second while it waits.

        If one fails, the others are stopped, and its error raised.
        """
        pending, began = list(tickets), time.monotonic()
        try:
            while pending:
                pending[0].wait(0.1)
                for ticket in pending:
                    if ticket.done:
                        ticket.result()  # raises what went wrong
                pending = [t for t in pending if not t.done]
                if meanwhile is not None:
                    meanwhile()
            return [ticket.result() for ticket in tickets]
        except Cancelled:
            self.check()
            raise
        finally:
            for ticket in tickets:
                ticket.cancel()
            for ticket in tickets:  # what they still write at their end is wanted, or in the way
                ticket.wait(self.runtime.settings.watchdog_seconds)
            self.waited += time.monotonic() - began

    def measure(self, pictures: int) -> None:
        """Take note of how long the job took beside calls and steps of the engine.

        From its submission, where it did not wait for other jobs: until a worker hears of it.
        """
        passed, speedometer = time.monotonic() - self.began, self.runtime.speedometer
        if self.number == 1 and self.record.started_at is not None:
            heard = self.record.started_at - self.record.queued_at
            passed += heard if 0 < heard < self.rested else 0.0
        engine = speedometer.accounted - self.accounted if self.alone else self.waited
        speedometer.job(self.kind, pictures, passed - engine, alone=self.alone)

    # progress

    def report(
        self, phase: str, step: int = 0, steps: int = 0, facts: dict[str, float] | None = None
    ) -> None:
        """Report how far it is; the next heartbeat passes the latest on.

        What is left of the phase is told by the steps since its first report: a training that is
        resumed begins in the middle.
        """
        now = time.monotonic()
        with self._lock:
            if phase != self._latest.phase or step < self._latest.step:
                self._phase_began, self._first_step = now, step
            left, made = None, step - self._first_step
            if made > 0 and step <= steps:
                left = round((now - self._phase_began) / made * (steps - step), 2)
            self._latest = JobProgress(
                phase=phase, step=step, steps=steps, facts=facts or {}, eta_s=left,
                warnings=list(self._warnings),
            )  # fmt: skip
            self._is_new = True

    def warn(self, texts: Sequence[str]) -> None:
        """Tell the job's owner while it runs: with the next progress, and all that follow."""
        if not texts:
            return
        with self._lock:
            self._warnings += tuple(texts)
            self._latest = self._latest.model_copy(update={"warnings": list(self._warnings)})
            self._is_new = True

    def show(self, key: str) -> None:
        """Report that there is a preview at ``key``: with the next progress, or the last again."""
        with self._lock:
            self._preview, self._is_new = key, True

    @property
    def has_progress(self) -> bool:
        """Whether there is progress that ``take_progress`` has not given yet."""
        return self._is_new

    def take_progress(self) -> JobProgress | None:
        """The latest progress, unless the last call gave it."""
        with self._lock:
            if not self._is_new:
                return None
            preview, self._preview, self._is_new = self._preview, None, False
            return self._latest.model_copy(update={"preview_key": preview} if preview else None)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase of the job, reported and timed."""
        self.check()
        self.report(name)
        with self.metrics.phase(self.kind, name):
            yield

    # its files

    def key(self, name: str) -> str:
        """Where the output ``name`` of this attempt lies."""
        return self.claim.key(name)

    @property
    def stamp(self) -> str:
        """What the names of this attempt's files begin with: no other attempt has it."""
        return self.claim.key().rstrip("/").rpartition("/")[2]

    def keep(self, name: str, body: bytes | Path, media_type: str) -> str:
        """Upload an output of this attempt; gives its key."""
        return self.put(self.key(name), body, media_type)

    def put(self, key: str, body: bytes | Path, media_type: str) -> str:
        """Upload ``body`` to ``key``, which it gives back; waits for an S3 that is away."""
        self.check()
        self.with_retries(lambda: self.storage.put(key, body, media_type))
        return key

    def get(self, key: str) -> bytes:
        """The bytes at ``key``; waits for an S3 that is away. Raises MissingObject."""
        self.check()
        return self.with_retries(lambda: self.storage.get(key))

    def try_put(self, key: str, body: bytes | Path, media_type: str) -> bool:
        """Upload what can wait or be left out; False if S3 is away."""
        try:
            self.storage.put(key, body, media_type)
        except StorageError as error:
            if not error.transient:
                raise
            _log.warning("left for later: %s", error)
            return False
        return True

    def with_retries(self, call: Callable[[], T]) -> T:
        """What ``call`` gives, tried again while S3 or Redis is away.

        Raises TransientError after PATIENCE, Stopped and DeadlineExceeded as ``check`` does.
        """
        over, wait = time.monotonic() + PATIENCE, 0.1
        while True:
            try:
                return call()
            except (StorageError, RedisError, OSError) as error:
                if not transient(error):
                    raise
                if time.monotonic() > over:
                    raise TransientError(str(error)) from error
                _log.warning("tried again in %.1f s: %s", wait, error)
            if not self._stopped.wait(wait):
                self.check()
            elif self._reason == "lost":
                raise Stopped("lost")
            else:  # what is left to do is little and must be done
                time.sleep(wait)
            wait = min(wait * 2, 2.0)


def transient(error: Exception) -> bool:
    """Whether the same call may work later."""
    if isinstance(error, StorageError):
        return error.transient
    return isinstance(error, RedisConnectionError | RedisError | ConnectionError | TimeoutError)
