"""Runs processes together: started in order, watched, started again, stopped in reverse order.

Each runs as the child of ``child_process.py``, so that none outlives the process that wanted it,
however that one ends, and no log grows without bound.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from customedit.devserver import child_process

LOG_BYTES: Final = 16 * 2**20
"""How long a log may grow until it is rotated; the one before is kept."""

LONGEST_PAUSE_S: Final = 30.0
"""Longest wait before a process is started again that ends soon after each start."""

STEADY_S: Final = 60.0
"""A process that ran so long is started again without such a wait."""

Ended = Callable[[str, str], None]


class LocalError(RuntimeError):
    """A process did not start, or its folder is in use. One line, with what to do."""


@dataclass
class Process:
    """A process to run.

    healthy: whether it does its work by now; folder: its working directory, None for ours; grace_s:
    from SIGTERM to SIGKILL, in seconds; stage: later stages are stopped first; required: if it does
    not come up again, everything ends; keep_open: file descriptors that it inherits.
    """

    name: str
    command: Sequence[str]
    log: Path
    healthy: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    folder: Path | None = None
    grace_s: float = 15.0
    stage: int = 0
    required: bool = False
    keep_open: tuple[int, ...] = ()
    parent: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    restart_at: float | None = None

    def start(self, log_bytes: int) -> None:
        """Start it; its output is appended to its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file.unlink(missing_ok=True)
        how = [str(self.grace_s), str(self.log), str(log_bytes), str(self.pid_file)]
        with self.log.open("ab") as out:  # appended to, so that it can be emptied meanwhile
            self.parent = subprocess.Popen(
                [sys.executable, "-I", "-S", child_process.__file__, *how, *self.command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=os.environ | self.environment,
                pass_fds=self.keep_open,
                start_new_session=True,  # Ctrl-C reaches us alone, who end all in order
            )
        self.started, self.restart_at = time.monotonic(), None

    @property
    def pid_file(self) -> Path:
        """Where its process id is while it runs."""
        return self.log.with_suffix(".pid")

    @property
    def pid(self) -> int:
        """Its process id, which is there a moment after its start."""
        return int(self.pid_file.read_text())

    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self.parent is not None and self.parent.poll() is None

    def last_lines(self) -> str:
        """The last lines of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
        return ""


class Supervisor:
    """Processes that belong together. log_bytes: after how much a log is rotated."""

    def __init__(self, *, log_bytes: int = LOG_BYTES) -> None:
        self.processes: list[Process] = []
        self.log_bytes = log_bytes
        self._callbacks: list[Ended] = []
        self._stopping = threading.Event()

    def start(self, process: Process) -> None:
        """Start a process; the log of an earlier run is put aside."""
        self._stopping.clear()
        if process.log.exists():
            process.log.replace(child_process.rotated(str(process.log)))
        process.start(self.log_bytes)
        self.processes.append(process)
        self._watch(process)

    def wait_healthy(self, start_s: float, stop: threading.Event | None = None) -> None:
        """Wait until all are healthy.

        Raises:
            LocalError: one ends, or is not healthy after ``start_s`` seconds; or ``stop`` is set.
        """
        deadline = time.monotonic() + start_s
        waiting = list(self.processes)
        while waiting:
            for process in waiting:
                if not process.alive():
                    raise EarlyEnd(process)
            waiting = [p for p in waiting if not p.healthy()]
            if waiting and time.monotonic() > deadline:
                names = ", ".join(p.name for p in waiting)
                raise LocalError(f"{names} did not answer in {start_s:g} s; see {waiting[0].log}")
            if waiting:
                time.sleep(0.05)
            if stop is not None and stop.is_set():
                raise LocalError("stopped while starting")

    def process(self, name: str) -> Process:
        """The process of this name."""
        return next(p for p in self.processes if p.name == name)

    def alive(self) -> dict[str, bool]:
        """For each process that was started whether it still runs."""
        return {process.name: process.alive() for process in self.processes}

    def on_end(self, callback: Ended) -> None:
        """Call ``callback(name, last lines of its log)``, from a thread, when a process crashes."""
        self._callbacks.append(callback)

    def restart(self, name: str, start_s: float) -> None:
        """Start a process again that has ended, and wait until all are healthy.

        Raises:
            LocalError: it does not come up.
        """
        process = self.process(name)
        if process.alive():
            return
        process.start(self.log_bytes)
        self._watch(process)
        self.wait_healthy(start_s)

    def supervise(self, say: Callable[[str], None], end: threading.Event, start_s: float) -> None:
        """Until ``end``: start again what ends by itself, at once or after a pause that grows.

        say: is told what happens, one line a call.

        Raises:
            LocalError: a process that is required does not come up again.
        """
        while not end.wait(0.2):
            for process in self.processes:
                if not process.alive():
                    self._revive(process, say, start_s)

    def _revive(self, process: Process, say: Callable[[str], None], start_s: float) -> None:
        now = time.monotonic()
        if process.restart_at is None:
            steady = now - process.started > STEADY_S
            process.failures = 0 if steady else process.failures + 1
            pause = 0.0
            if not (process.required or steady):
                pause = min(LONGEST_PAUSE_S, 0.5 * 2**process.failures)
            process.restart_at = now + pause
            status = None if process.parent is None else process.parent.returncode
            say(
                f"{process.name} ended with status {status}, starting it again in {pause:g} s; "
                f"its last lines, from {process.log}: {process.last_lines() or 'none'}"
            )
        if now < process.restart_at:
            return
        process.start(self.log_bytes)
        self._watch(process)
        if process.required:
            self._wait_required(process, start_s)
            say(f"{process.name} is back")

    def _wait_required(self, process: Process, start_s: float) -> None:
        deadline = time.monotonic() + start_s
        while not process.healthy():
            if not process.alive():
                raise EarlyEnd(process)
            if time.monotonic() > deadline:
                raise LocalError(f"{process.name} did not answer in {start_s:g} s")
            time.sleep(0.05)

    def stop(self, stage: int = 0) -> None:
        """Stop the processes of ``stage`` and later ones, the latest first, each stage at once."""
        if stage == 0:
            self._stopping.set()
        for number in sorted({p.stage for p in self.processes if p.stage >= stage}, reverse=True):
            self._stop_all([p for p in self.processes if p.stage == number])
        self.processes = [p for p in self.processes if p.stage < stage]

    def _stop_all(self, processes: list[Process]) -> None:
        for process in processes:
            if process.parent is not None and process.parent.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.parent.stdin.close()
        deadline = time.monotonic() + max((p.grace_s for p in processes), default=0.0) + 5
        for process in processes:
            if process.parent is None:
                continue
            try:
                process.parent.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.parent.kill()
                process.parent.wait()

    def kill(self) -> None:
        """Let a ``stop`` under way kill all at once; safe in a signal handler."""
        for process in self.processes:
            if process.parent is not None and process.alive():
                process.parent.send_signal(signal.SIGQUIT)

    def _watch(self, process: Process) -> None:
        threading.Thread(
            target=self._wait_for_end, args=(process, process.parent),
            name=f"watch-{process.name}", daemon=True,
        ).start()  # fmt: skip

    def _wait_for_end(self, process: Process, parent: subprocess.Popen[bytes]) -> None:
        parent.wait()
        if not self._stopping.is_set():
            for callback in self._callbacks:
                callback(process.name, process.last_lines())


class EarlyEnd(LocalError):
    """A process ended while it was waited for."""

    def __init__(self, process: Process) -> None:
        super().__init__(f"{process.name} ended at its start: {process.last_lines()}")
        self.process = process


def answers(host: str, port: int, path: str) -> bool:
    """Whether an HTTP server answers 200 to a GET of ``path``."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
