"""Plays the queue on: who runs beside whom, and when each job ends.

A worker's engine serves all of its jobs in rounds. A round is one merged call of the UNet with the
rows of all jobs that want one, and one step with gradients of one training. So jobs slow each other
down by what their rows add to a call, and a waiting job starts when one before it has ended.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from customedit.estimates import speed
from customedit.estimates.speed import Line, Speed
from customedit.estimates.work import Stage, Work
from customedit.estimates.workers import WorkerBase
from customedit.schemas.answers import JobKind

MOST_EVENTS: Final = 5000
"""A simulation that has not ended by then is given up: those jobs have no estimate."""

_LITTLE: Final = 1e-6


@dataclass(frozen=True)
class Waiting:
    """A job and the work that is left of it."""

    id: str
    work: Work


@dataclass(frozen=True)
class Span:
    """When a job starts and ends, in seconds from now; a running job started at 0."""

    starts: float
    ends: float


@dataclass
class _Running:
    job: Waiting
    starts: float
    fixed: float
    stage: int = 0
    left: float = 0.0

    @property
    def current(self) -> Stage | None:
        stages = self.job.work.stages
        return stages[self.stage] if self.stage < len(stages) else None

    def settle(self) -> None:
        """Enter the next stage that has anything left."""
        stages = self.job.work.stages
        while self.stage < len(stages) and self.left <= _LITTLE:
            self.stage += 1
            self.left = stages[self.stage].rounds if self.stage < len(stages) else 0.0


@dataclass
class Machine:
    """A worker: its slots, the kinds of jobs that it takes, and what runs in them.

    kinds: none for a worker that takes no more jobs and ends those that it has.
    """

    slots: int
    base: WorkerBase
    kinds: Collection[JobKind]
    running: list[_Running] = field(default_factory=list)

    def free(self, kind: str) -> int:
        """Free slots for jobs of ``kind``; trainings and imports take half of all at most."""
        if kind not in self.kinds:
            return 0
        free = self.slots - len(self.running)
        if kind == "edit":
            return free
        trainings = sum(r.job.work.kind != "edit" for r in self.running)
        return min(free, max(1, self.slots // 2) - trainings)


def measured(work: Work, lines: Speed) -> bool:
    """Whether it is known how long ``work`` takes."""
    names = [speed.call(s.cells) if s.rows else speed.turn(s.label) for s in work.stages]
    if work.kind == "import":  # it has nothing but its own seconds
        names.append(work.kind)
    return all(name in lines and lines[name].n > 0 for name in names)


def play(
    machines: Sequence[Machine],
    queues: Sequence[Sequence[Waiting]],
    lines: Speed,
    running: Sequence[tuple[int, Waiting]] = (),
) -> dict[str, Span]:
    """When each job starts and ends, by id, as far as it is known.

    A job with work that has not been measured yet keeps its slot for ever, so that those that wait
    for this slot are left out as well. queues: waiting jobs in the order in which they are claimed,
    by group of kinds; running: those under way, with the number of their machine.
    """
    now, spans = 0.0, dict[str, Span]()
    for number, job in running:
        machines[number].running.append(_begin(job, 0.0, lines))
    waiting = [list(queue) for queue in queues]
    for _ in range(MOST_EVENTS):
        _fill(machines, waiting, now, lines)
        steps = [_next_event(machine, lines) for machine in machines if machine.running]
        passed = min((seconds for seconds, _ in steps), default=math.inf)
        if passed == math.inf:
            break
        now += passed
        for _, advance in steps:
            advance(passed)
        for machine in machines:
            for done in [r for r in machine.running if r.current is None and r.fixed <= _LITTLE]:
                machine.running.remove(done)
                spans[done.job.id] = Span(done.starts, now)
    return spans


def _begin(job: Waiting, now: float, lines: Speed) -> _Running:
    work = job.work
    if not measured(work, lines):
        return _Running(Waiting(job.id, replace(work, stages=())), now, math.inf)
    fixed = lines.get(work.kind, Line()).seconds(work.pictures) or 0.0
    begun = _Running(job, now, fixed, left=work.stages[0].rounds if work.stages else 0.0)
    begun.settle()
    return begun


def _seconds(lines: Speed, name: str, amount: float) -> float:
    found = lines[name].seconds(amount)
    assert found is not None, "jobs with unmeasured work do not get so far"
    return found


def _fill(
    machines: Sequence[Machine], waiting: list[list[Waiting]], now: float, lines: Speed
) -> None:
    """Start waiting jobs while a slot is free, where least runs first."""
    for queue in waiting:
        while queue:
            free = [m for m in machines if m.free(queue[0].work.kind) > 0]
            if not free:
                break
            machine = min(free, key=lambda m: len(m.running))
            machine.running.append(_begin(queue.pop(0), now, lines))


def _next_event(machine: Machine, lines: Speed) -> tuple[float, Callable[[float], None]]:
    """Seconds until a job of the machine changes its stage, and how to let time pass on it."""
    calls = [r for r in machine.running if r.current is not None and r.current.rows]
    turns = [r for r in machine.running if r.current is not None and not r.current.rows]
    ended = [r for r in machine.running if r.current is None]
    tick = 0.0
    rates: list[tuple[_Running, float]] = []
    if calls:
        rows: defaultdict[int, float] = defaultdict(float)
        for entry in calls:
            assert entry.current is not None
            rows[entry.current.cells] += entry.current.rows
        costs = []
        for cells, count in rows.items():  # one shape a tick, by turns
            most = max(machine.base.most_rows(cells), 1)
            costs.append(_seconds(lines, speed.call(cells), min(count, most)))
        tick = sum(costs) / len(costs)
        for entry in calls:
            assert entry.current is not None
            cells = entry.current.cells
            most = max(machine.base.most_rows(cells), 1)
            rates.append((entry, min(1.0, most / rows[cells]) / len(rows)))
    if turns:
        costs = [_seconds(lines, speed.turn(r.current.label), 1) for r in turns if r.current]
        tick += sum(costs) / len(costs)
        rates += [(entry, 1 / len(turns)) for entry in turns]
    tick = max(tick, _LITTLE)
    times = [entry.left / rate * tick for entry, rate in rates] + [r.fixed for r in ended]

    def advance(passed: float) -> None:
        for entry, rate in rates:
            entry.left -= passed / tick * rate
            entry.settle()
        for entry in ended:
            entry.fixed -= passed

    return max(min(times), _LITTLE), advance
