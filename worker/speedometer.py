"""What this worker measures of its own speed, for estimates of how long jobs will take."""

from __future__ import annotations

import threading

from customedit.estimates import speed
from customedit.estimates.speed import Line, Speed


class Speedometer:
    """Decaying averages of seconds, from the engine's thread and those of jobs.

    accounted: seconds of all calls and steps so far; what a job takes beyond them is its own.
    """

    def __init__(self) -> None:
        self._lines: Speed = {}
        self._lock = threading.Lock()
        self.accounted = 0.0

    def begin(self, before: Speed) -> None:
        """Go on from what a worker on the same base and device measured ``before``."""
        with self._lock:
            self._lines = {name: line.model_copy() for name, line in before.items()}

    def call(self, rows: int, cells: int, seconds: float) -> None:
        """As of ``engine.Observer``."""
        self._add(speed.call(cells), rows, seconds, speed.STEPS)
        self.accounted += seconds

    def turn(self, label: str, seconds: float) -> None:
        """As of ``engine.Observer``; steps without a label are the job's own, such as previews."""
        if not label:
            return
        self._add(speed.turn(label), 1, seconds, speed.STEPS)
        self.accounted += seconds

    def job(self, kind: str, pictures: int, seconds: float, *, alone: bool) -> None:
        """What a job of ``pictures`` took beside calls and steps.

        alone: whether nothing else ran. Seconds beside other jobs hold some of theirs, so they
        count only until the first job that ran alone.
        """
        with self._lock:
            known = kind in self._lines
        if alone or not known:
            self._add(kind, pictures, seconds, speed.JOBS)

    def _add(self, name: str, amount: float, seconds: float, keep: float) -> None:
        with self._lock:
            self._lines.setdefault(name, Line()).add(amount, seconds, keep)

    def lines(self) -> Speed:
        """All that was measured, as a copy."""
        with self._lock:
            return {name: line.model_copy() for name, line in self._lines.items()}
