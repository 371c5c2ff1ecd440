"""Whose request is served next: by priority, then by what each share was served so far.

A share says for whom a method works, from the outside in, such as (tenant, job). The one that was
served least is next, first among the outermost names and then among those below, so that sixteen
methods of one job weigh as much as the single method of another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from customedit.diffusion.engine import Ticket

Share: TypeAlias = tuple[str, ...]
_Line: TypeAlias = tuple[int, Share]  # a priority, and a share or the beginning of one

AGED: Final = 8
"""Rounds after which who waits is served whatever the priority."""


class FairQueue:
    """Rounds of requests: ``fill`` it, iterate over it, and ``charge`` what is served.

    A share that comes anew begins with what the least served one beside it has: it is owed nothing
    for the time when it asked for nothing. What nobody waits in any more is forgotten.
    """

    def __init__(self) -> None:
        self._served: dict[_Line, int] = {}
        self._passed_over: dict[_Line, int] = {}
        self._waiting: dict[_Line, deque[tuple[int, Ticket[Any]]]] = {}

    def fill(self, tickets: Iterable[Ticket[Any]]) -> None:
        """Begin a round with ``tickets``, those of one share and priority in this order."""
        self._waiting = {}
        for place, ticket in enumerate(tickets):
            line = (ticket.priority, ticket.share)
            self._waiting.setdefault(line, deque()).append((place, ticket))
        present = {outer: 0 for line in self._waiting for outer in _outer(line)}
        before = {line: cost for line, cost in self._served.items() if line in present}
        least: dict[_Line, int] = {}
        for line, cost in before.items():
            around = _around(line)
            least[around] = min(cost, least.get(around, cost))
        self._served = {line: before.get(line, least.get(_around(line), 0)) for line in present}
        rounds = self._passed_over
        self._passed_over = {line: rounds.get(line, 0) for line in map(_first, self._waiting)}

    def __iter__(self) -> Iterator[Ticket[Any]]:
        """All tickets of the round, the next one first; what is charged meanwhile counts."""
        self._passed_over = {line: rounds + 1 for line, rounds in self._passed_over.items()}
        while self._waiting:
            line = min(self._waiting, key=self._rank)
            _, ticket = self._waiting[line].popleft()
            if not self._waiting[line]:
                del self._waiting[line]
            yield ticket

    def charge(self, ticket: Ticket[Any], cost: int) -> None:
        """Note that ``ticket`` is served in this round, at ``cost``."""
        line = (ticket.priority, ticket.share)
        for outer in _outer(line):
            self._served[outer] += cost
        self._passed_over[_first(line)] = 0

    def _rank(self, line: _Line) -> tuple[float, tuple[int, ...], int]:
        place, _ = self._waiting[line][0]
        rounds = self._passed_over[_first(line)]
        if rounds > AGED:
            return float("-inf"), (-rounds,), place
        return line[0], tuple(self._served[outer] for outer in _outer(line)), place


def _outer(line: _Line) -> list[_Line]:
    """The line and those around it, the outermost first."""
    priority, share = line
    return [(priority, share[: k + 1]) for k in range(len(share))]


def _around(line: _Line) -> _Line:
    return line[0], line[1][:-1]


def _first(line: _Line) -> _Line:
    return line[0], line[1][:1]
