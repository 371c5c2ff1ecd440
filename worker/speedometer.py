"""What this worker measures of its own speed, for estimates of how long jobs will take."""

from __future__ import annotations

import threading
from typing import Final

from customedit.estimates import speed
from customedit.estimates.speed import Line, Speed

SETTLED: Final = 50
"""From so many measurements on a line is one that a machine can be held against."""

_MOST_PACE: Final = 4.0


class Speedometer:
    """Decaying averages of seconds, from the engine's thread and those of jobs.

    How seconds grow with rows is learned from a thousand calls. How fast the machine is changes
    more quickly, with what else it does: the pace, seconds taken by seconds expected of the last
    hundred calls and steps, scales the lines that are told.

    accounted: seconds of all calls and steps so far; what a job takes beyond them is its own.
    """

    def __init__(self) -> None:
        self._lines: Speed = {}
        self._pace = Line()
        self._lock = threading.Lock()
        self.accounted = 0.0

    def begin(self, before: Speed) -> None:
        """Go on from what a worker on the same base and device measured ``before``."""
        with self._lock:
            self._lines = {name: line.model_copy() for name, line in before.items()}

    def call(self, rows: int, cells: int, seconds: float) -> None:
        """As of ``engine.Observer``."""
        self._step(speed.call(cells), rows, seconds)

    def turn(self, label: str, seconds: float) -> None:
        """As of ``engine.Observer``; steps without a label are the job's own, such as previews."""
        if label:
            self._step(speed.turn(label), 1, seconds)

    def job(self, kind: str, pictures: int, seconds: float, *, alone: bool) -> None:
        """What a job of ``pictures`` took beside calls and steps.

        alone: whether nothing else ran. Seconds beside other jobs hold some of theirs, so they
        count only until the first job that ran alone.
        """
        with self._lock:
            if alone or kind not in self._lines:
                self._line(kind).add(pictures, seconds, speed.JOBS)

    def _step(self, name: str, amount: float, seconds: float) -> None:
        with self._lock:
            line = self._line(name)
            expected = line.seconds(amount) if line.n >= SETTLED else None
            if expected:
                self._pace.add(expected, seconds, speed.PACE)
            line.add(amount, seconds, speed.STEPS)
            self.accounted += seconds

    def _line(self, name: str) -> Line:
        return self._lines.setdefault(name, Line())

    def pace(self) -> float:
        """How long calls and steps take now, by how long they took on the whole: 1 is as long."""
        if not self._pace.x:
            return 1.0
        return min(_MOST_PACE, max(1 / _MOST_PACE, self._pace.y / self._pace.x))

    def lines(self) -> Speed:
        """All that was measured, as a copy, calls and steps at the present pace."""
        with self._lock:
            pace = self.pace()
            return {
                name: line.scaled(pace) if name.startswith(speed.STEPPED) else line.model_copy()
                for name, line in self._lines.items()
            }
