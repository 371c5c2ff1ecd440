"""Turns at something scarce, shared fairly between tenants. For one event loop."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Busy(RuntimeError):
    """A tenant has as many calls waiting as it may have. waiting: that number."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        super().__init__(f"{waiting} calls of this tenant wait already")


class Turns:
    """At most ``total`` callers at once, and ``per_tenant`` of each tenant.

    The others wait: tenants take turns, and within a tenant who came first. ``waiting``: how many
    of a tenant may wait.
    """

    def __init__(self, total: int, per_tenant: int, waiting: int) -> None:
        if min(total, per_tenant) < 1 or waiting < 0:
            raise ValueError(f"turns of {total}, {per_tenant} each, {waiting} waiting")
        self.total, self.per_tenant, self.waiting = total, per_tenant, waiting
        self._held: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def take(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it for the block.

        Raises:
            Busy: ``waiting`` calls of the tenant wait already.
        """
        await self._acquire(tenant)
        try:
            yield
        finally:
            self._release(tenant)

    async def _acquire(self, tenant: str) -> None:
        queue = self._queues.get(tenant)
        if not queue and self._has_room(tenant):
            self._held[tenant] += 1
            return
        if len(queue or ()) >= self.waiting:
            raise Busy(self.waiting)
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(tenant, deque()).append(ready)
        try:
            await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():
                self._release(tenant)  # the turn came while the caller went
            else:
                self._forget(tenant, ready)
            raise

    def _has_room(self, tenant: str) -> bool:
        return self._held.total() < self.total and self._held[tenant] < self.per_tenant

    def _release(self, tenant: str) -> None:
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._hand_on()

    def _hand_on(self) -> None:
        """Give free turns to tenants that wait, the one first that was served longest ago."""
        for tenant in list(self._queues):
            if not self._has_room(tenant):
                continue
            queue = self._queues[tenant]
            while queue and queue[0].cancelled():  # its caller has not noticed yet
                queue.popleft()
            if queue:
                self._held[tenant] += 1
                queue.popleft().set_result(None)
                self._queues.move_to_end(tenant)
            if not queue:
                del self._queues[tenant]

    def _forget(self, tenant: str, ready: asyncio.Future[None]) -> None:
        queue = self._queues.get(tenant, deque())
        if ready in queue:
            queue.remove(ready)
        if not queue:
            self._queues.pop(tenant, None)


class Budget:
    """An amount, such as bytes, that callers hold parts of; who came first is served first."""

    def __init__(self, total: int) -> None:
        self.total, self.used = total, 0
        self._first = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """Wait until ``amount``, at most the total, is free, and hold it for the block."""
        if amount > self.total:
            raise ValueError(f"{amount} is more than the budget of {self.total}")
        async with self._first:
            while self.used + amount > self.total:
                self._freed.clear()
                await self._freed.wait()
            self.used += amount
        try:
            yield
        finally:
            self.used -= amount
            self._freed.set()
