"""Plays the queue on: who runs beside whom, and when each job ends.

A worker's engine serves all of its jobs in rounds. A round is one merged call of the UNet with the
rows of all jobs that want one, and one step with gradients of one training. So jobs slow each other
down by what their rows add to a call, and a waiting job starts when one before it has ended.

Between two events of a machine (a job of it changes its stage, ends or starts) its jobs go on at
constant rates. So an event costs the work of its own machine, however many others there are.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
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

    kinds: none for a worker that takes no more jobs and ends those that it has; lines: how fast it
    is.
    """

    slots: int
    base: WorkerBase
    kinds: Collection[JobKind]
    lines: Speed
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
    if work.kind == "import":  # most of it is its own seconds
        names.append(work.kind)
    return all(name in lines and lines[name].n > 0 for name in names)


def play(
    machines: Sequence[Machine],
    queues: Sequence[Sequence[Waiting]],
    running: Sequence[tuple[int, Waiting]] = (),
) -> dict[str, Span]:
    """When each job starts and ends, by id, as far as it is known.

    A job with work that its machine has no line for keeps its slot for ever, so that those that
    wait for this slot are left out as well. queues: waiting jobs in the order in which they are
    claimed, by group of kinds; running: those under way, with the number of their machine.
    """
    return _Simulation(machines, queues, running).play()


@dataclass
class _Course:
    """How the jobs of a machine go on until the next event there.

    until: the time for which their work is accounted; next_at: when that event is, inf if there is
    none; advance: lets so many seconds pass on them.
    """

    machine: Machine
    until: float = 0.0
    next_at: float = math.inf
    advance: Callable[[float], None] | None = None

    def go_on(self, now: float) -> None:
        """Let time pass until ``now``."""
        if self.advance is not None:
            self.advance(now - self.until)
        self.until = now

    def plan(self) -> None:
        """Find the next event, after a change of what runs."""
        self.next_at, self.advance = math.inf, None
        if self.machine.running:
            seconds, self.advance = _next_event(self.machine)
            self.next_at = self.until + seconds


class _Simulation:
    """The state of ``play``, with its arguments."""

    def __init__(
        self,
        machines: Sequence[Machine],
        queues: Sequence[Sequence[Waiting]],
        running: Sequence[tuple[int, Waiting]],
    ) -> None:
        self._machines = machines
        self._waiting = [deque(queue) for queue in queues]
        for number, job in running:
            machines[number].running.append(_begin(job, 0.0, machines[number].lines))
        self._courses = [_Course(machine) for machine in machines]
        kinds = {job.work.kind for queue in queues for job in queue}
        self._open: dict[str, set[int]] = {kind: set() for kind in kinds}
        """Numbers of the machines with a free slot, by kind."""
        self._events: list[tuple[float, int]] = []
        """When the next event of a machine is, with its number; a heap, with some that are past."""

    def play(self) -> dict[str, Span]:
        """When each job starts and ends."""
        now, spans = 0.0, dict[str, Span]()
        changed = set(range(len(self._machines)))
        for number in changed:
            self._update_slots(number)
        for _ in range(MOST_EVENTS):
            changed |= self._fill(now)
            for number in changed:
                self._plan(number)
            changed = self._pop_next()
            if not changed:
                break
            now = min(self._courses[number].next_at for number in changed)
            for number in changed:
                self._courses[number].go_on(now)
                spans |= self._end_jobs(number, now)
        return spans

    def _plan(self, number: int) -> None:
        course = self._courses[number]
        course.plan()
        if course.next_at < math.inf:
            heapq.heappush(self._events, (course.next_at, number))

    def _pop_next(self) -> set[int]:
        """The machines of the next event; those of events at the same time are taken together."""
        events, found, over = self._events, set[int](), math.inf
        while events and events[0][0] <= over:
            at, number = heapq.heappop(events)
            if at == self._courses[number].next_at:  # else it was planned anew since
                over = min(over, at + _LITTLE)
                found.add(number)
        return found

    def _end_jobs(self, number: int, now: float) -> dict[str, Span]:
        """Take the jobs of a machine that are done out of their slots."""
        machine, spans = self._machines[number], dict[str, Span]()
        for done in [r for r in machine.running if r.current is None and r.fixed <= _LITTLE]:
            machine.running.remove(done)
            spans[done.job.id] = Span(done.starts, now)
        if spans:
            self._update_slots(number)
        return spans

    def _fill(self, now: float) -> set[int]:
        """Start waiting jobs while a slot is free, where least runs first; gives where."""
        begun = set[int]()
        for queue in self._waiting:
            while queue and (numbers := self._open[queue[0].work.kind]):
                number = min(numbers, key=lambda n: (len(self._machines[n].running), n))
                self._courses[number].go_on(now)
                begun.add(number)
                machine = self._machines[number]
                machine.running.append(_begin(queue.popleft(), now, machine.lines))
                self._update_slots(number)
        return begun

    def _update_slots(self, number: int) -> None:
        for kind, numbers in self._open.items():
            if self._machines[number].free(kind) > 0:
                numbers.add(number)
            else:
                numbers.discard(number)


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


def _next_event(machine: Machine) -> tuple[float, Callable[[float], None]]:
    """Seconds until a job of the machine changes its stage, and how to let time pass on it."""
    lines = machine.lines
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
