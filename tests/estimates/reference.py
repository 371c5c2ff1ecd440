"""The queue played on in the plainest way: at each event time passes on all jobs everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from customedit.estimates import speed
from customedit.estimates.simulation import Machine, Span, Waiting, measured
from customedit.estimates.speed import Line, Speed
from customedit.estimates.work import Stage

LITTLE = 1e-6


class Job:
    """A job in a slot. left: its stages that have rounds left, each with how many."""

    def __init__(self, waiting: Waiting, now: float, lines: Speed) -> None:
        work = waiting.work
        self.id, self.kind, self.starts = waiting.id, work.kind, now
        self.left: list[tuple[Stage, float]] = []
        self.fixed = math.inf
        if measured(work, lines):
            self.left = [(stage, stage.rounds) for stage in work.stages]
            self.fixed = lines.get(work.kind, Line()).seconds(work.pictures) or 0.0
        self.drop()

    def drop(self) -> None:
        """Enter the next stage that has anything left."""
        while self.left and self.left[0][1] <= LITTLE:
            self.left.pop(0)

    def work_on(self, rounds: float) -> None:
        stage, left = self.left[0]
        self.left[0] = stage, left - rounds
        self.drop()


@dataclass
class Slots:
    machine: Machine
    jobs: list[Job]

    def free(self, kind: str) -> int:
        machine = self.machine
        if kind not in machine.kinds:
            return 0
        left = machine.slots - len(self.jobs)
        if kind == "edit":
            return left
        long = [job for job in self.jobs if job.kind != "edit"]
        return min(left, max(1, machine.slots // 2) - len(long))

    def speeds(self) -> list[tuple[Job, float]]:
        """Rounds a second of each job that has any left."""
        base, lines = self.machine.base, self.machine.lines
        calls = [job for job in self.jobs if job.left and job.left[0][0].rows]
        turns = [job for job in self.jobs if job.left and not job.left[0][0].rows]
        rows: dict[int, float] = {}
        for job in calls:
            stage = job.left[0][0]
            rows[stage.cells] = rows.get(stage.cells, 0.0) + stage.rows
        most = {cells: max(base.most_rows(cells), 1) for cells in rows}
        costs = [lines[speed.call(c)].seconds(min(n, most[c])) or 0.0 for c, n in rows.items()]
        steps = [lines[speed.turn(job.left[0][0].label)].seconds(1) or 0.0 for job in turns]
        tick = sum(sum(part) / len(part) for part in (costs, steps) if part)
        tick = max(tick, LITTLE)
        found = [(job, 1 / len(turns) / tick) for job in turns]
        for job in calls:
            cells = job.left[0][0].cells
            found.append((job, min(1.0, most[cells] / rows[cells]) / len(rows) / tick))
        return found


def play(
    machines: Sequence[Machine],
    queues: Sequence[Sequence[Waiting]],
    running: Sequence[tuple[int, Waiting]],
) -> dict[str, Span]:
    """As ``simulation.play``."""
    now, spans = 0.0, dict[str, Span]()
    everywhere = [Slots(machine, []) for machine in machines]
    for number, waiting in running:
        everywhere[number].jobs.append(Job(waiting, 0.0, machines[number].lines))
    left = [list(queue) for queue in queues]
    while True:
        for queue in left:
            while queue:
                kind = queue[0].work.kind
                free = [slots for slots in everywhere if slots.free(kind) > 0]
                if not free:
                    break
                slots = min(free, key=lambda s: len(s.jobs))
                slots.jobs.append(Job(queue.pop(0), now, slots.machine.lines))
        speeds = [pair for slots in everywhere for pair in slots.speeds()]
        ending = [job for slots in everywhere for job in slots.jobs if not job.left]
        times = [job.left[0][1] / rate for job, rate in speeds] + [job.fixed for job in ending]
        passed = min(times, default=math.inf)
        if passed == math.inf:
            return spans
        passed = max(passed, LITTLE)
        now += passed
        for job, rate in speeds:
            job.work_on(passed * rate)
        for job in ending:
            job.fixed -= passed
        for slots in everywhere:
            for job in [job for job in slots.jobs if not job.left and job.fixed <= LITTLE]:
                slots.jobs.remove(job)
                spans[job.id] = Span(job.starts, now)
