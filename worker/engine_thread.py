"""The engine in its thread: every job of every tenant meets here, and only here, at the base."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine, Observer, Ticket
from customedit.diffusion.fair_queue import Share
from customedit.diffusion.method import Method, Progress
from worker.metrics import Metrics

T = TypeVar("T")
_log = logging.getLogger(__name__)

STUCK: Final = 70
"""Exit status of a worker whose engine stood still."""


class EngineThread:
    """Ticks ``engine`` while there is work.

    The base is touched by this thread alone: a text encoder with a hook on its table, say, is not
    safe in two. on_stuck: called by the watchdog when one tick takes longer than ``patience``
    seconds; by default the process ends, and its leases with it.
    """

    def __init__(
        self,
        base: Base,
        metrics: Metrics,
        *,
        max_rows: int,
        patience: float,
        on_stuck: Callable[[], None] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.engine = Engine(base, max_rows=max_rows, observer=observer)
        self._metrics, self._patience = metrics, patience
        self._on_stuck = on_stuck or _give_up
        self._fresh, self._stopping = threading.Event(), threading.Event()
        self._began: float | None = None
        self._threads = [
            threading.Thread(target=self._run, name="engine", daemon=True),
            threading.Thread(target=self._watch, name="watchdog", daemon=True),
        ]

    def start(self) -> None:
        """Begin to tick."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the tick that runs; methods under way stay where they are."""
        self._stopping.set()
        self._fresh.set()
        self._threads[0].join(self._patience)

    def submit(
        self,
        method: Method[T],
        *,
        priority: int = 0,
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        share: Share = ("",),
        label: str = "",
    ) -> Ticket[T]:
        """As ``Engine.submit``; what ``on_progress`` does must take no time."""
        ticket = self.engine.submit(
            method,
            priority=priority,
            timeout=timeout,
            on_progress=on_progress,
            share=share,
            label=label,
        )
        self._fresh.set()
        return ticket

    def give_up(self, error: Exception) -> None:
        """The device failed for good: this process can serve nobody any more."""
        _log.critical("the device is lost: %s", error)
        self._on_stuck()

    @property
    def alive(self) -> bool:
        """Whether the engine ticks, or would."""
        return self._threads[0].is_alive() and not self._stuck()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self.engine.idle:
                self._fresh.wait()
                self._fresh.clear()
                continue
            self._tick()

    def _tick(self) -> None:
        calls, rows = self.engine.calls, self.engine.rows
        self._began = began = time.monotonic()
        try:
            self.engine.tick()
        except Exception:  # what methods do is theirs; this is the engine's own
            _log.exception("the engine stumbled")
            time.sleep(0.1)
        finally:
            self._began = None
        self._metrics.ticks.observe(time.monotonic() - began)
        if made := self.engine.calls - calls:
            self._metrics.calls.inc(made)
            for _ in range(made):
                self._metrics.rows.observe((self.engine.rows - rows) / made)

    def _stuck(self) -> bool:
        began = self._began
        return began is not None and time.monotonic() - began > self._patience

    def _watch(self) -> None:
        while not self._stopping.wait(min(1.0, self._patience / 4)):
            if self._stuck():
                _log.critical("the engine has stood still for over %g s", self._patience)
                self._on_stuck()
                return


def _give_up() -> None:
    logging.shutdown()
    os._exit(STUCK)
