"""Looks at the stores now and then, for metrics and for what ``/readyz`` warns of.

A store that is full still serves most calls, and serves every process alike: it is told, by gauges
that alerts watch, and makes no process unready.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

import anyio
import anyio.to_thread
import redis
from redis.exceptions import RedisError

from api.middleware.observability import Metrics
from customedit.jobs.redis import memory
from customedit.storage.store import Storage

EVERY_S: Final = 30.0
"""From one look to the next."""

MEMORY_WARNING: Final = 0.85
"""Share of Redis' ``maxmemory`` from which on it is nearly full, here and in the alerts."""

_log = logging.getLogger(__name__)


class StoreWatch:
    """The state of the stores as of the last look.

    warnings: by store, what it refuses or soon will; empty while there is nothing to say.
    """

    def __init__(self, client: redis.Redis, storage: Storage, metrics: Metrics) -> None:
        self._redis, self._storage, self._metrics = client, storage, metrics
        self.warnings: dict[str, str] = {}

    def measure(self) -> None:
        """Look at both stores and set the gauges; may take as long as their timeouts."""
        found = {"redis": self._memory(), "storage": self._writes()}
        self.warnings = {store: warning for store, warning in found.items() if warning}

    def _memory(self) -> str:
        try:
            held = memory(self._redis)
        except RedisError as error:
            self._metrics.store_errors.labels("redis").inc()
            _log.warning("memory of Redis: %s", type(error).__name__)
            return ""  # that it is away is what readiness says
        self._metrics.set_memory(held.used, held.most)
        if held.share is None or held.share < MEMORY_WARNING:
            return ""
        return (
            f"holds {held.share:.0%} of its maxmemory; at 100% submissions and uploads are refused"
        )

    def _writes(self) -> str:
        writable = self._storage.writable()
        self._metrics.storage_writable.set(writable)
        return "" if writable else "takes no writes, its disk may be full; submissions are refused"

    async def run(self) -> None:
        """Look every 30 s until cancelled; a look under way is not waited for then."""
        own_thread = anyio.CapacityLimiter(1)  # a store that hangs must hold up no request
        while True:
            try:
                await anyio.to_thread.run_sync(
                    self.measure, abandon_on_cancel=True, limiter=own_thread
                )
            except Exception:
                _log.exception("the stores could not be looked at")
            await anyio.sleep(EVERY_S)


@contextlib.asynccontextmanager
async def watching(watch: StoreWatch) -> AsyncIterator[None]:
    """``watch`` looks inside this context."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.run)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
