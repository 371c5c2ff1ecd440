"""Events of all jobs that this process watches, read over one connection to Redis.

Each stream or wait of its own would hold a connection of its own, and a process has about a
hundred of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from redis.exceptions import RedisError

from customedit.jobs.events import AsyncEvents, Event

BLOCK_S: Final = 0.1
"""Longest wait in one call: so long a job that is watched anew waits for its first events."""

_GATHER_S: Final = 0.01  # pause between two calls, in which events gather
_RETRY_S: Final = 1.0
_MAX_WAITING: Final = 2000  # events that a slow watcher may leave unread; then they are read again

_log = logging.getLogger(__name__)


class Watch:
    """The events of one job for one watcher, in order and each once."""

    def __init__(self, reader: EventReader, job_id: str, after: str) -> None:
        self.job_id = job_id
        self.position = after
        """The last event that was taken in."""

        self.reading = False
        """Whether the reader has begun at ``position``: what comes before that may have gaps."""

        self._reader = reader
        self._given = after
        self._events: list[Event] = []
        self._ready = asyncio.Event()

    async def wait(self, timeout_s: float) -> list[Event]:
        """Events that were not given yet; empty after ``timeout_s`` seconds without any."""
        if not self._events:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), timeout_s)
        events, self._events = self._events, []
        self._ready.clear()
        if events:
            self._given = events[-1].id
        if not self.reading:
            self.position = self._given
            self._reader.join(self)
        return events

    def push(self, events: Sequence[Event]) -> None:
        """Take in those of ``events`` that are new to this watcher."""
        if not self.reading:
            return
        fresh = [event for event in events if _order(event.id) > _order(self.position)]
        if not fresh:
            return
        if self._events and len(self._events) + len(fresh) > _MAX_WAITING:
            self.reading = False  # what is left out is read again once these are given
        else:
            self._events += fresh
            self.position = fresh[-1].id
        self._ready.set()


class EventReader:
    """Reads events for all watchers of this process; ``run`` must be running."""

    def __init__(self, events: AsyncEvents) -> None:
        self._events = events
        self._watches: defaultdict[str, set[Watch]] = defaultdict(set)
        self._positions: dict[str, str] = {}
        self._joining: set[Watch] = set()
        self._watched = asyncio.Event()

    @contextlib.contextmanager
    def watch(self, job_id: str, after: str = "0") -> Iterator[Watch]:
        """Watch a job from the event after id ``after`` on.

        The caller has made sure that the job is its tenant's.
        """
        watch = Watch(self, job_id, after)
        self._watches[job_id].add(watch)
        self.join(watch)
        self._watched.set()
        try:
            yield watch
        finally:
            self._joining.discard(watch)
            self._watches[job_id].discard(watch)
            if not self._watches[job_id]:
                del self._watches[job_id]
                self._positions.pop(job_id, None)

    def join(self, watch: Watch) -> None:
        """Read for ``watch`` from its position on, from the next call to Redis on."""
        self._joining.add(watch)

    async def run(self) -> None:
        """Read until it is cancelled. While Redis is away nothing comes, and nothing is lost."""
        failed = False
        while True:
            if not self._watches:
                self._watched.clear()
                await self._watched.wait()
            self._begin_at_positions()
            try:
                news = await self._events.read(self._positions, BLOCK_S)
            except RedisError as error:
                if not failed:
                    _log.error("events cannot be read: %s", type(error).__name__)
                failed = True
                await asyncio.sleep(_RETRY_S)
                continue
            failed = False
            for job_id, events in news.items():
                if job_id in self._positions:
                    self._positions[job_id] = events[-1].id
                for watch in tuple(self._watches.get(job_id, ())):
                    watch.push(events)
            await asyncio.sleep(_GATHER_S)

    def _begin_at_positions(self) -> None:
        """Between two calls alone: the answer of one under way knows nothing of new watchers."""
        for watch in self._joining:
            position = self._positions.get(watch.job_id, watch.position)
            self._positions[watch.job_id] = min(position, watch.position, key=_order)
            watch.reading = True
        self._joining.clear()


@contextlib.asynccontextmanager
async def running(reader: EventReader) -> AsyncIterator[None]:
    """``reader`` reads inside this context."""
    task = asyncio.create_task(reader.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _order(event_id: str) -> tuple[int, int]:
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number or 0)
