"""Turns at something scarce: bounded, shared between tenants, safe when callers go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from customedit.images.turns import Budget, Busy, Turns


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within_a_minute() -> None:
        await asyncio.wait_for(test(), 60)

    asyncio.run(within_a_minute())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Callers:
    """Calls that hold their turn until they are told to end."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.served = turns, list[str]()
        self.holding: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def call(self, name: str) -> asyncio.Task[None]:
        """A call of the tenant that ``name`` begins with."""

        async def hold() -> None:
            async with self.turns.take(name[0]):
                self.served.append(name)
                self.holding[name] = asyncio.Event()
                await self.holding[name].wait()

        self.tasks[name] = asyncio.create_task(hold())
        await settle()
        return self.tasks[name]

    async def end(self, *names: str) -> None:
        for name in names:
            self.holding[name].set()
            await self.tasks[name]
            await settle()


def test_a_tenant_leaves_room_for_others() -> None:
    async def test() -> None:
        callers = Callers(Turns(2, 1, 16))
        for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
            await callers.call(name)
        assert callers.served == ["a1", "b1"]
        await callers.end("a1")  # c was never served, a was
        assert callers.served == ["a1", "b1", "a2"] or callers.served == ["a1", "b1", "c1"]
        held = callers.served[-1]
        await callers.end("b1", held)
        assert set(callers.served[:4]) == {"a1", "b1", "a2", "c1"}

    run(test)


def test_tenants_are_served_by_turns_and_their_calls_in_order() -> None:
    async def test() -> None:
        callers = Callers(Turns(1, 1, 16))
        for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
            await callers.call(name)
        while len(callers.served) < 7:
            await callers.end(callers.served[-1])
        assert callers.served == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]

    run(test)


def test_too_many_waiting_calls_are_refused() -> None:
    async def test() -> None:
        callers = Callers(Turns(1, 1, 2))
        for name in ("a1", "a2", "a3"):
            await callers.call(name)
        with pytest.raises(Busy) as caught:
            await (await callers.call("a4"))
        assert caught.value.waiting == 2
        await callers.call("b1")  # another's calls are not refused for it
        await callers.end("a1", "a2")
        assert callers.served == ["a1", "a2", "b1"]

    run(test)


def test_callers_that_go_leave_no_turn_taken() -> None:
    async def test() -> None:
        turns = Turns(1, 1, 16)
        callers = Callers(turns)
        for name in ("a1", "a2", "b1", "a3"):
            await callers.call(name)
        callers.tasks["b1"].cancel()
        await settle()
        callers.tasks["a1"].cancel()
        callers.tasks["a2"].cancel()  # in the same moment as its turn comes
        await settle()
        assert callers.served == ["a1", "a3"]
        await callers.end("a3")
        await callers.call("c1")
        assert callers.served[-1] == "c1"

    run(test)


def test_a_budget_is_never_overdrawn_and_serves_in_order() -> None:
    async def test() -> None:
        budget, most, order = Budget(10), 0, list[int]()

        async def spend(number: int, amount: int) -> None:
            nonlocal most
            async with budget.hold(amount):
                order.append(number)
                most = max(most, budget.used)
                await asyncio.sleep(0.001)

        await asyncio.gather(*(spend(n, amount) for n, amount in enumerate([6, 5, 10, 1, 4, 4, 9])))
        assert order == list(range(7)) and most <= 10 and budget.used == 0

    run(test)


def test_a_budget_forgets_callers_that_go() -> None:
    async def test() -> None:
        budget = Budget(10)
        async with budget.hold(8):
            waiting = asyncio.create_task(budget.hold(5).__aenter__())
            await settle()
            waiting.cancel()
            await settle()
            async with budget.hold(2):
                assert budget.used == 10
        assert budget.used == 0

    run(test)
