"""How long a job will take, from the queue as it is and what the workers measured.

The queue is read once a second at most, for dry runs five times, and played on (``simulation``);
all that ask meanwhile get answers from that.
"""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from customedit.errors import InputError
from customedit.estimates.simulation import Machine, Span, Waiting, measured, play
from customedit.estimates.speed import Speed
from customedit.estimates.work import (
    Work,
    class_mark,
    customize_work,
    edit_work,
    inversion_mark,
    training_settings,
)
from customedit.estimates.workers import WorkerReport, Workers, joined
from customedit.jobs.queued_requests import OtherVersionError, read_request
from customedit.jobs.records import JobProgress, JobRecord, cost_of
from customedit.schemas.concepts import CustomizeRequest
from customedit.schemas.requests import EditRequest

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings

FRESH_S: Final = 1.0
"""How long the queue that was read is good for, in seconds."""

AWAY_S: Final = 2.0
"""After a call of Redis that failed it is not asked again for so long: with a Redis that says
nothing, each of all who wait would wait as long as the first, one after the other."""

FRESH_DRY_S: Final = 0.2
"""The same for jobs that are not in it: theirs would be the last that was submitted."""

MOST_WAITING: Final = 300
"""Waiting jobs of a kind that are played; those behind them have a place and no time."""

NO_WORKER: Final = "No worker is running."
NO_WORKER_OF_KIND: Final = "No worker that is running takes such jobs."
NOT_MEASURED: Final = "No job of this kind has been measured yet."
TOO_FAR: Final = "Too many jobs are before it, or one whose time is not known."
KINDS: Final = ("edit", "customize", "import")
_INVERTED_S: Final = 7 * 86_400
Mark: TypeAlias = tuple[str, str, str]
"""An inversion: tenant, picture and ``work.inversion_mark``."""


@dataclass(frozen=True)
class Forecast:
    """When a job will be done, seen from now.

    position: how many jobs are claimed before it, None once it runs; wait_s: seconds until it
    starts; run_s: from then to its end; workers: how many live that take its kind; unknown: why
    there are no seconds.
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
class _Entry:
    record: JobRecord
    start: float
    """Virtual start time in the fair queue, by which waiting jobs are claimed."""


@dataclass
class _Queue:
    """What Redis had at ``read_at``: workers, waiting jobs by kind in their order, running ones.

    virtual, next_start: virtual times of the fair queue, by kind, and of the next job of a tenant.
    """

    read_at: float
    workers: list[WorkerReport]
    speed: Speed
    waiting: dict[str, list[_Entry]]
    running: list[JobRecord]
    virtual: dict[str, float]
    next_start: dict[tuple[str, str], float]
    spans: dict[str, Span]
    places: dict[str, int]
    """Of each waiting job: how many of its kind are before it."""


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
        self.client, self._namespace = client, settings.namespace
        self.workers = Workers(client, settings)
        self.inverted = Inverted(client, settings)
        self._lock = threading.Lock()
        self._queue: _Queue | None = None
        self._failed_at = -math.inf
        self._records: OrderedDict[str, JobRecord] = OrderedDict()

    def base(self) -> WorkerReport | None:
        """A worker whose base decides plans; None: none lives."""
        alive = self.queue().workers
        return alive[0] if alive else None

    def of(self, record: JobRecord) -> Forecast | None:
        """The forecast of a job of the queue; None: it is finished, or not there any more."""
        if record.finished:
            return None
        queue = self.queue()
        position = queue.places.get(record.id)
        if position is None and record.state == "queued":
            position = len(queue.waiting[record.kind])  # since it was read
        return self._answer(queue, record, position, queue.spans.get(record.id))

    def would_be(self, record: JobRecord) -> Forecast:
        """The forecast of a job that is not in the queue, as if it were submitted now."""
        queue = self.queue(FRESH_DRY_S)
        start = queue.next_start.get((record.kind, record.tenant), queue.virtual[record.kind])
        waiting = list(queue.waiting[record.kind])
        turn = start, record.tenant
        later = (k for k, e in enumerate(waiting) if (e.start, e.record.tenant) > turn)
        place = next(later, len(waiting))
        waiting.insert(place, _Entry(record, start))
        spans = self._play(replace(queue, waiting=queue.waiting | {record.kind: waiting}))
        return self._answer(queue, record, place, spans.get(record.id), begun=False)

    def _answer(
        self,
        queue: _Queue,
        record: JobRecord,
        position: int | None,
        span: Span | None,
        *,
        begun: bool = True,
    ) -> Forecast:
        """begun: whether the job goes on while the queue that was read grows old."""
        takers = [w for w in queue.workers if record.kind in w.kinds]
        if not takers:
            why = NO_WORKER_OF_KIND if queue.workers else NO_WORKER
            return Forecast(position, 0, unknown=why)
        if span is None:
            asked = _Asked.of(record)
            work = _work(asked, takers[0], inverted=asked.mark in self._kept([asked]))
            known = work is not None and measured(work, queue.speed)
            return Forecast(position, len(takers), unknown=TOO_FAR if known else NOT_MEASURED)
        passed = time.monotonic() - queue.read_at
        wait = max(0.0, span.starts - passed)
        run = max(0.0, span.ends - (max(span.starts, passed) if begun else span.starts))
        return Forecast(position, len(takers), round(wait, 2), round(run, 2))

    # the queue

    def queue(self, fresh_s: float = FRESH_S) -> _Queue:
        """The queue as it was at most ``fresh_s`` ago, played to its end."""
        with self._lock:
            if self._queue is None or time.monotonic() - self._queue.read_at > fresh_s:
                if time.monotonic() - self._failed_at < AWAY_S:
                    raise RedisConnectionError("the queue could not be read a moment ago")
                try:
                    queue = self._read()
                    queue.spans = self._play(queue)
                except RedisError:
                    self._failed_at = time.monotonic()
                    raise
                self._queue = queue
            return self._queue

    def _key(self, *parts: str) -> str:
        return ":".join((self._namespace, *parts))

    def _read(self) -> _Queue:
        alive = self.workers.alive()
        with self.client.pipeline(transaction=False) as pipe:
            pipe.smembers(self._key("running"))
            pipe.hgetall(self._key("virtual-time"))
            for kind in KINDS:
                pipe.zrange(self._key("turns", kind), 0, -1, withscores=True)
                pipe.zrange(self._key("shares", kind), 0, -1, withscores=True)
            running, virtual, *by_kind = pipe.execute()
        waiting: dict[str, list[_Entry]] = {}
        following: dict[tuple[str, str], float] = {}
        virtual = {kind: float(virtual.get(kind, 0.0)) for kind in KINDS}
        for number, kind in enumerate(KINDS):
            turns, shares = by_kind[2 * number : 2 * number + 2]
            starts = {tenant: max(virtual[kind], finish) for tenant, finish in shares}
            waiting[kind] = self._waiting(kind, turns, starts)
            following |= {(kind, tenant): start for tenant, start in starts.items()}
        records = self._load(running)
        return _Queue(
            read_at=time.monotonic(),
            workers=alive,
            speed=joined(alive),
            waiting=waiting,
            running=list(records.values()),
            virtual=virtual,
            next_start=following,
            spans={},
            places={e.record.id: k for order in waiting.values() for k, e in enumerate(order)},
        )

    def _waiting(
        self, kind: str, turns: Sequence[tuple[str, float]], following: dict[str, float]
    ) -> list[_Entry]:
        """Waiting jobs of a kind in the order of start-time fair queueing (``common.lua``)."""
        with self.client.pipeline(transaction=False) as pipe:
            for tenant, _ in turns:
                pipe.zrange(self._key("claimable", kind, tenant), 0, MOST_WAITING)
            names = pipe.execute()
        records = self._claimable([name for part in names for name in part])
        order: list[tuple[float, str, int, JobRecord]] = []
        for (tenant, start), part in zip(turns, names, strict=True):
            for place, record in enumerate(records[name] for name in part if name in records):
                order.append((start, tenant, place, record))
                start += cost_of(record)
            following[tenant] = start
        order.sort(key=lambda entry: entry[:3])
        return [_Entry(record, start) for start, _, _, record in order]

    def _claimable(self, names: Sequence[str]) -> dict[str, JobRecord]:
        """The records of waiting jobs: nothing of them changes, so each is read once."""
        missing = [name for name in names if name not in self._records]
        self._read_bodies(missing)
        found = {name: self._records[name] for name in names if name in self._records}
        self._forget(found)
        return found

    def _load(self, names: Sequence[str]) -> dict[str, JobRecord]:
        """The records of running jobs by id, in this order, with what changes in them."""
        self._read_bodies([name for name in names if name not in self._records])
        with self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(self._key("job", name), "progress", "worker", "state")
            rows = pipe.execute()
        loaded: dict[str, JobRecord] = {}
        for name, (progress, worker, state) in zip(names, rows, strict=True):
            if state is None or name not in self._records:
                continue
            loaded[name] = self._records[name].model_copy(
                update={
                    "state": state,
                    "worker": worker,
                    "progress": JobProgress.model_validate_json(progress) if progress else None,
                }
            )
        self._forget(loaded)
        return loaded

    def _read_bodies(self, names: Sequence[str]) -> None:
        """Keep the records of jobs that are new, as they were submitted."""
        if not names:
            return
        with self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(self._key("job", name), "body")
            bodies = pipe.execute()
        for name, body in zip(names, bodies, strict=True):
            if body is not None:
                document = json.loads(body) | {"queued_at": 0.0}
                self._records[name] = JobRecord.model_validate(document)

    def _forget(self, used: Collection[str]) -> None:
        """Let go of the records that were not used for longest, beyond so many."""
        for name in used:
            self._records.move_to_end(name)
        while len(self._records) > 4 * MOST_WAITING:
            self._records.popitem(last=False)

    # the simulation

    def _play(self, queue: _Queue) -> dict[str, Span]:
        if not queue.workers:
            return {}
        machines = [Machine(w.slots, w.base, w.kinds) for w in queue.workers]
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
                machines.append(Machine(0, queue.workers[0].base, ()))
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
        return play(machines, queued, queue.speed, under_way)

    def _kept(self, jobs: Sequence[_Asked]) -> set[Mark]:
        """Of the inversions that ``jobs`` need those that are kept."""
        return self.inverted.known({asked.mark for asked in jobs if asked.mark is not None})


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
    return Work("import", ()) if record.kind == "import" else None


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
