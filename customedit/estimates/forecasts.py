"""How long a job will take, from the queue as it is and what the workers measured.

The queue is read once a second at most, for dry runs five times, and played on (``simulation``);
all that ask meanwhile get answers from that. One thread reads while the others answer from the
queue that was read before, and it does so for a tenth of the time at most.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from customedit.errors import InputError
from customedit.estimates.queue import KINDS, MOST_WAITING, Entry, Queue, QueueReader
from customedit.estimates.simulation import Machine, Span, Waiting, measured, play
from customedit.estimates.work import (
    Work,
    class_mark,
    customize_work,
    edit_work,
    import_work,
    inversion_mark,
    training_settings,
)
from customedit.estimates.workers import WorkerReport
from customedit.jobs.queued_requests import OtherVersionError, read_request
from customedit.jobs.records import JobRecord
from customedit.schemas.concepts import CustomizeRequest
from customedit.schemas.requests import EditRequest

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings

FRESH_S: Final = 1.0
"""How long the queue that was read is good for, in seconds; longer where reading it takes long."""

FRESH_DRY_S: Final = 0.2
"""The same for jobs that are not in it: theirs would be the last that was submitted."""

AWAY_S: Final = 2.0
"""After a call of Redis that failed it is not asked again for so long: with a Redis that says
nothing, each of all who wait would wait as long as the first, one after the other."""

CLOCKS_APART_S: Final = 1.0
"""Clocks of front ends may differ by so much where a job's age is told."""

NO_WORKER: Final = "No worker is running."
NO_WORKER_OF_KIND: Final = "No worker that is running takes such jobs."
NOT_MEASURED: Final = "No job of this kind has been measured yet."
JUST_QUEUED: Final = "It was queued a moment ago; its time is told within seconds."
JUST_BEGUN: Final = "It began a moment ago; its time is told within seconds."
ENDING: Final = "Its worker takes no more jobs; it ends this one, or another worker takes it over."
TOO_FAR: Final = "Too many jobs are before it, or one whose time is not known."
_INVERTED_S: Final = 7 * 86_400
Mark: TypeAlias = tuple[str, str, str]
"""An inversion: tenant, picture and ``work.inversion_mark``."""


@dataclass(frozen=True)
class Forecast:
    """When a job will be done, seen from now.

    position: how many jobs are claimed before it, None once it runs; wait_s: seconds until it
    starts; run_s: from then to its end; workers: how many live that take its kind, for a running
    job at least its own while its lease lasts; unknown: why there are no seconds.
    """

    position: int | None
    workers: int
    wait_s: float | None = None
    run_s: float | None = None
    unknown: str | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds from now to its end."""
        return None if self.wait_s is None or self.run_s is None else self.wait_s + self.run_s


@dataclass(frozen=True)
class _Asked:
    """A job with its request as the schemas read it.

    request: None: it cannot be read, or it is an import, of which nothing is asked; mark: the
    inversion that an edit needs.
    """

    record: JobRecord
    request: EditRequest | CustomizeRequest | None
    mark: Mark | None = None

    @classmethod
    def of(cls, record: JobRecord) -> _Asked:
        """The job of ``record``."""
        try:
            if record.kind == "edit":
                edit = read_request(record, EditRequest)
                return cls(record, edit, (record.tenant, edit.image, inversion_mark(edit)))
            if record.kind == "customize":
                return cls(record, read_request(record, CustomizeRequest))
        except (OtherVersionError, InputError):
            pass
        return cls(record, None)


class Forecasts:
    """Answers for one front end; safe from many threads. Calls raise RedisError."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self.reader = QueueReader(client, settings)
        self.inverted = Inverted(client, settings)
        self._reading = threading.Lock()
        self._queue: Queue | None = None
        self._failed_at = -math.inf

    def base(self) -> WorkerReport | None:
        """A worker whose base decides plans; None: none lives."""
        alive = self.queue().workers
        return alive[0] if alive else None

    def of(self, record: JobRecord) -> Forecast | None:
        """The forecast of a job of the queue; None: it is finished, or not there any more."""
        if record.finished:
            return None
        queue = self.queue()
        position, span = queue.places.get(record.id), queue.spans.get(record.id)
        if _runs(record):
            if position is not None and span is not None:  # claimed since the queue was read
                span = _begun_since(record, span, queue)
            position = None
        elif record.state == "queued" and position is None:
            # since it was read, or far behind; what was told of one that ran then holds no more
            position, span = queue.counts[record.kind], None
        return self._answer(queue, record, position, span)

    def would_be(self, record: JobRecord) -> Forecast:
        """The forecast of a job that is not in the queue, as if it were submitted now."""
        queue = self.queue(FRESH_DRY_S)
        start = queue.next_start.get((record.kind, record.tenant), queue.virtual[record.kind])
        waiting = list(queue.waiting[record.kind])
        turn = start, record.tenant
        later = (k for k, e in enumerate(waiting) if (e.start, e.record.tenant) > turn)
        place = next(later, None)
        if place is None and len(waiting) < queue.counts[record.kind]:  # behind all that were read
            return self._answer(queue, record, queue.counts[record.kind], None, begun=False)
        place = len(waiting) if place is None else place
        waiting.insert(place, Entry(record, start))
        spans = self._play(replace(queue, waiting=queue.waiting | {record.kind: waiting}))
        return self._answer(queue, record, place, spans.get(record.id), begun=False)

    def _answer(
        self,
        queue: Queue,
        record: JobRecord,
        position: int | None,
        span: Span | None,
        *,
        begun: bool = True,
    ) -> Forecast:
        """begun: whether the job goes on while the queue that was read grows old."""
        takers = [w for w in queue.workers if record.kind in w.kinds]
        if not takers:
            # a worker that drains is in no report any more, and its jobs' leases last
            if _runs(record):
                return Forecast(position, 1, unknown=ENDING)
            why = NO_WORKER_OF_KIND if queue.workers else NO_WORKER
            return Forecast(position, 0, unknown=why)
        if span is None:
            # whether its inversion is kept would decide between two messages, and Redis be asked
            work = _work(_Asked.of(record), takers[0], inverted=False)
            if work is None or not measured(work, queue.speed):
                return Forecast(position, len(takers), unknown=NOT_MEASURED)
            why = _why_not_told(queue, record) if begun else TOO_FAR
            return Forecast(position, len(takers), unknown=why)
        passed = time.monotonic() - queue.read_at
        wait = max(0.0, span.starts - passed)
        run = max(0.0, span.ends - (max(span.starts, passed) if begun else span.starts))
        return Forecast(position, len(takers), round(wait, 2), round(run, 2))

    # the queue

    def queue(self, fresh_s: float = FRESH_S) -> Queue:
        """The queue as it was a moment ago, played to its end.

        At most ``fresh_s``, or ``REST`` times as long as that took and at most ``OLD_S``; while
        another thread reads it anew, twice ``OLD_S``.
        """
        queue = self._queue
        if queue is not None and queue.good(fresh_s):
            return queue
        wait = queue is None or queue.old
        if not self._reading.acquire(blocking=wait):
            assert queue is not None
            return queue
        try:
            queue = self._queue  # another thread may have read it meanwhile
            if queue is None or not queue.good(fresh_s):
                queue = self._queue = self._read_and_play()
            return queue
        finally:
            self._reading.release()

    def _read_and_play(self) -> Queue:
        began = time.monotonic()
        if began - self._failed_at < AWAY_S:
            raise RedisConnectionError("the queue could not be read a moment ago")
        try:
            queue = self.reader.read()
            queue.spans = self._play(queue)
        except RedisError:
            self._failed_at = time.monotonic()
            raise
        queue.played_at = time.monotonic()
        queue.took_s = queue.played_at - began
        return queue

    # the simulation

    def _play(self, queue: Queue) -> dict[str, Span]:
        if not queue.workers:
            return {}
        machines = [
            Machine(w.slots, w.base, w.kinds, queue.speeds[w.base.machine]) for w in queue.workers
        ]
        numbers = {worker.name: number for number, worker in enumerate(queue.workers)}
        # one whose lease is over waits for the next worker, and is in its queue already
        running = [_Asked.of(r) for r in queue.running if r.id not in queue.places]
        waiting = {
            kind: [_Asked.of(entry.record) for entry in queue.waiting[kind][:MOST_WAITING]]
            for kind in KINDS
        }
        kept = self._kept([*running, *itertools.chain.from_iterable(waiting.values())])
        begun = set[Mark | None]()
        under_way, queued = [], list[list[Waiting]]()
        for asked in running:
            name = asked.record.worker or ""
            if name not in numbers:  # it goes, or is gone: its jobs take nobody else's slots
                numbers[name] = len(machines)
                machines.append(Machine(0, queue.workers[0].base, (), queue.speed))
            number = numbers[name]
            worker = queue.workers[number if number < len(queue.workers) else 0]
            work = _work(asked, worker, inverted=asked.mark in kept)
            begun.add(asked.mark)
            if work is not None:
                rest = Waiting(asked.record.id, work.rest(asked.record.progress))
                under_way.append((number, rest))
        for kind in KINDS:
            takers = [n for n, worker in enumerate(queue.workers) if kind in worker.kinds]
            if not takers:
                continue
            taken = sum(number in takers for number, _ in under_way)
            free = sum(machines[number].slots for number in takers) - taken
            jobs = []
            for place, asked in enumerate(waiting[kind]):
                # those that begin at once make their own, though another makes the same
                there = asked.mark in kept or (place >= free and asked.mark in begun)
                work = _work(asked, queue.workers[takers[0]], inverted=there)
                begun.add(asked.mark)
                if work is not None:
                    jobs.append(Waiting(asked.record.id, work))
            queued.append(jobs)
        return play(machines, queued, under_way)

    def _kept(self, jobs: Sequence[_Asked]) -> set[Mark]:
        """Of the inversions that ``jobs`` need those that are kept."""
        return self.inverted.known({asked.mark for asked in jobs if asked.mark is not None})


def _runs(record: JobRecord) -> bool:
    """Whether a worker has the job, as far as is known: its lease is not over."""
    return record.state == "running" and (record.lease_until or 0) > time.time()


def _begun_since(record: JobRecord, span: Span, queue: Queue) -> Span:
    """The span of a job that waited when ``queue`` was read, and runs by now.

    It takes as long as was expected, from its start or, where that was an earlier attempt's, from
    when the queue was read.
    """
    passed = time.monotonic() - queue.read_at
    ran = min(passed, max(0.0, time.time() - (record.started_at or 0.0)))
    return Span(passed - ran, passed - ran + span.ends - span.starts)


def _why_not_told(queue: Queue, record: JobRecord) -> str:
    """Why nothing is known of when a job will end whose work is measured."""
    if _runs(record):
        known = any(record.id == running.id for running in queue.running)
        return TOO_FAR if known else JUST_BEGUN
    new = record.id not in queue.places and _queued_since(record, queue)
    return JUST_QUEUED if new else TOO_FAR


def _queued_since(record: JobRecord, queue: Queue) -> bool:
    """Whether a job was queued after ``queue`` was read, or at about that time."""
    return time.time() - record.queued_at < time.monotonic() - queue.read_at + CLOCKS_APART_S


def _work(asked: _Asked, worker: WorkerReport, *, inverted: bool) -> Work | None:
    """The work of a job on the base of ``worker``; None: its request cannot be read or done there.

    inverted: whether the inversion that an edit needs is there when it starts.
    """
    record, request = asked.record, asked.request
    try:
        if isinstance(request, EditRequest):
            cells = worker.base.latent_cells(record.picture)
            return edit_work(request, cells, inverted=inverted)
        if isinstance(request, CustomizeRequest):
            training = training_settings(worker.base, request)
            drawn = class_mark(record.tenant, request.noun, training) in worker.classes
            cells = worker.base.latent_cells(None)
            return customize_work(request, training, cells, class_images=drawn)
    except InputError:
        return None
    return import_work(worker.base.latent_cells(None)) if record.kind == "import" else None


class Inverted:
    """Which inversions of a picture are kept, by ``work.inversion_mark``; for estimates alone."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self.client, self._namespace = client, settings.namespace

    def _key(self, tenant: str, picture: str) -> str:
        return f"{self._namespace}:inverted:{tenant}:{picture}"

    def add(self, tenant: str, picture: str, mark: str) -> None:
        """Note that an inversion is kept."""
        key = self._key(tenant, picture)
        self.client.sadd(key, mark)
        self.client.expire(key, _INVERTED_S)

    def known(self, marks: Collection[Mark]) -> set[Mark]:
        """Those of ``marks`` that are kept, in one round trip."""
        if not marks:
            return set()
        asked = list(marks)
        with self.client.pipeline(transaction=False) as pipe:
            for tenant, picture, mark in asked:
                pipe.sismember(self._key(tenant, picture), mark)
            answers = pipe.execute()
        return {mark for mark, answer in zip(asked, answers, strict=True) if answer}
