"""The queue as it is in Redis, as far as forecasts need it: read often, so in little.

Of waiting jobs so many are read as come next, each once; of running ones what changes in them.
"""

from __future__ import annotations

import json
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from customedit.estimates.simulation import Span
from customedit.estimates.speed import Speed
from customedit.estimates.workers import (
    GONE_S,
    WorkerReport,
    Workers,
    joined,
    joined_by_machine,
)
from customedit.jobs.records import JobProgress, JobRecord, cost_of

if TYPE_CHECKING:
    from redis import Redis

    from customedit.config.settings import Settings

KINDS: Final = ("edit", "customize", "import")

REST: Final = 10
"""The queue is not read again for so many times as long as reading and playing it took."""

OLD_S: Final = GONE_S
"""But for that many seconds at most; and after twice as many it is no answer any more: all wait
until it is read anew."""

MOST_WAITING: Final = 300
"""Waiting jobs of a kind that are played; those behind them have a place and no time."""

READ_AHEAD: Final = 4
"""So many times ``MOST_WAITING`` jobs of a kind are read, shared among its tenants: enough to find
those that are claimed first. As many records at least are kept from one time to the next."""

LEAST_READ: Final = 8
"""Waiting jobs of each tenant that are read at least."""


@dataclass(frozen=True)
class Entry:
    """A waiting job."""

    record: JobRecord
    start: float
    """Virtual start time in the fair queue, by which waiting jobs are claimed."""


@dataclass
class Queue:
    """What Redis had at ``read_at``: workers, waiting jobs by kind in their order, running ones.

    speed: what all workers measured; speeds: by machine (``joined_by_machine``); waiting: those
    that were read; counts: how many there are; virtual, next_start: virtual times of the fair
    queue, by kind, and of the next job of a tenant.
    """

    read_at: float
    workers: list[WorkerReport]
    speed: Speed
    speeds: dict[str, Speed]
    waiting: dict[str, list[Entry]]
    counts: dict[str, int]
    running: list[JobRecord]
    virtual: dict[str, float]
    next_start: dict[tuple[str, str], float]
    spans: dict[str, Span]
    places: dict[str, int]
    """Of each waiting job that was read: how many of its kind are before it."""
    took_s: float = 0.0
    """How long it took to read and to play it."""
    played_at: float = -math.inf

    def good(self, fresh_s: float) -> bool:
        """Whether it need not be read again yet."""
        return self._age() <= max(fresh_s, min(REST * self.took_s, OLD_S))

    @property
    def old(self) -> bool:
        """Whether it is no answer any more."""
        return self._age() > 2 * OLD_S

    def _age(self) -> float:
        return time.monotonic() - self.played_at


class QueueReader:
    """Reads the queue for one front end, by one thread at a time. Calls raise RedisError."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self.client, self._namespace = client, settings.namespace
        self.workers = Workers(client, settings)
        self._records: OrderedDict[str, JobRecord] = OrderedDict()
        self._used = set[str]()  # of the records, by the reading that is under way

    def _key(self, *parts: str) -> str:
        return ":".join((self._namespace, *parts))

    def read(self) -> Queue:
        """The queue as it is now, not played yet."""
        self._used.clear()
        alive = self.workers.alive()
        with self.client.pipeline(transaction=False) as pipe:
            pipe.smembers(self._key("running"))
            pipe.hgetall(self._key("virtual-time"))
            for kind in KINDS:
                pipe.zrange(self._key("turns", kind), 0, -1, withscores=True)
                pipe.zrange(self._key("shares", kind), 0, -1, withscores=True)
            running, virtual, *by_kind = pipe.execute()
        waiting: dict[str, list[Entry]] = {}
        counts: dict[str, int] = {}
        following: dict[tuple[str, str], float] = {}
        virtual = {kind: float(virtual.get(kind, 0.0)) for kind in KINDS}
        for number, kind in enumerate(KINDS):
            turns, shares = by_kind[2 * number : 2 * number + 2]
            starts = {tenant: max(virtual[kind], finish) for tenant, finish in shares}
            waiting[kind], counts[kind] = self._waiting(kind, turns, starts)
            following |= {(kind, tenant): start for tenant, start in starts.items()}
        records = self._load(running)
        self._forget()
        return Queue(
            read_at=time.monotonic(),
            workers=alive,
            speed=joined(alive),
            speeds=joined_by_machine(alive),
            waiting=waiting,
            counts=counts,
            running=list(records.values()),
            virtual=virtual,
            next_start=following,
            spans={},
            places={e.record.id: k for order in waiting.values() for k, e in enumerate(order)},
        )

    def _waiting(
        self, kind: str, turns: Sequence[tuple[str, float]], following: dict[str, float]
    ) -> tuple[list[Entry], int]:
        """Waiting jobs of a kind in the order of start-time fair queueing (``common.lua``).

        The first ones of those tenants whose turns come first, and how many there are in all.
        following: start of each tenant's next job, to which those of waiting tenants are added.
        """
        asked = turns[:MOST_WAITING]  # a job of any other has as many tenants' first jobs before it
        share = READ_AHEAD * MOST_WAITING // max(1, len(asked))
        most = min(MOST_WAITING + 1, max(LEAST_READ, share))
        with self.client.pipeline(transaction=False) as pipe:
            for tenant, _ in turns:
                pipe.zcard(self._key("claimable", kind, tenant))
            for tenant, _ in asked:
                pipe.zrange(self._key("claimable", kind, tenant), 0, most - 1)
            answers = pipe.execute()
        counts, names = answers[: len(turns)], answers[len(turns) :]
        names_of = {tenant: part for (tenant, _), part in zip(asked, names, strict=True)}
        records = self._use([name for part in names for name in part])
        order: list[tuple[float, str, int, JobRecord]] = []
        known_until: tuple[float, str] = math.inf, ""
        for (tenant, first), count in zip(turns, counts, strict=True):
            part = names_of.get(tenant, [])
            own = [records[name] for name in part if name in records]
            start = first
            for place, record in enumerate(own):
                order.append((start, tenant, place, record))
                start += cost_of(record)
            if count > len(part):  # the others are taken to cost as much on average
                known_until = min(known_until, (start, tenant))
                start += (count - len(part)) * ((start - first) / len(own) if own else 1.0)
            following[tenant] = start
        order.sort(key=lambda entry: entry[:3])
        known = (entry for entry in order if entry[:2] < known_until)  # others may come between
        return [Entry(record, start) for start, _, _, record in known], sum(counts)

    def _use(self, names: Sequence[str]) -> dict[str, JobRecord]:
        """The records of jobs as they were submitted, each read once; of those that are there.

        A waiting job has no more to it, but for the time at which it was queued.
        """
        self._read_bodies([name for name in names if name not in self._records])
        found = {name: self._records[name] for name in names if name in self._records}
        self._used.update(found)
        return found

    def _load(self, names: Sequence[str]) -> dict[str, JobRecord]:
        """The records of running jobs by id, in this order, with what changes in them."""
        submitted = self._use(names)
        with self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(self._key("job", name), "progress", "worker", "state")
            rows = pipe.execute()
        loaded: dict[str, JobRecord] = {}
        for name, (progress, worker, state) in zip(names, rows, strict=True):
            if state is None or name not in submitted:
                continue
            loaded[name] = submitted[name].model_copy(
                update={
                    "state": state,
                    "worker": worker,
                    "progress": JobProgress.model_validate_json(progress) if progress else None,
                }
            )
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

    def _forget(self) -> None:
        """Let go of the records that were not used for longest; those of this reading all stay."""
        for name in self._used:
            self._records.move_to_end(name)
        while len(self._records) > max(READ_AHEAD * MOST_WAITING, len(self._used)):
            self._records.popitem(last=False)
