"""The whole service on one machine: local servers, the front end, workers; ended together.

The front end and the workers are processes of their own, the same as in production
(``python -m api``, ``python -m worker``). Whatever ends by itself is told of and started again: a
process after a wait that grows, a local server at once, and if that fails everything stops.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from customedit.config.settings import PREFIX, Settings
from customedit.devserver import child_process
from customedit.devserver.local_servers import LOG_BYTES, LOOPBACK, LocalError, LocalServers
from customedit.devserver.process import Part
from customedit.storage.store import Storage

Say = Callable[[str], None]

START_S: Final = 180.0
"""Until the front end and the workers must be ready; a base from a hub takes long to load."""

LONGEST_WAIT_S: Final = 30.0
STEADY_S: Final = 60.0
"""A process that ran so long is started again at once when it ends."""


@dataclass
class Stack:
    """Everything of the service with its data in ``folder``; a context manager.

    host, port: of the front end; port 0 takes any free one. workers: how many; say: where what
    happens is told, one line a call. Redis and S3 are local servers in ``folder`` unless the
    environment names both (``CUSTOMEDIT_REDIS_URL``, ``CUSTOMEDIT_S3_ENDPOINT``).
    """

    folder: Path
    host: str = LOOPBACK
    port: int = 8000
    workers: int = 1
    say: Say = print
    local: LocalServers | None = None
    parts: list[Part] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    _fallen: queue.SimpleQueue[tuple[str, str]] = field(default_factory=queue.SimpleQueue)
    _grace: float = 15.0
    _wake: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where the front end answers."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{'127.0.0.1' if shown in ('0.0.0.0', '[::]') else shown}:{self.port}"

    def start(self) -> Self:
        """Start everything and wait until all of it is ready.

        Raises:
            LocalError: something does not come up; what it last said is in the message.
            InputError: a setting in the environment is not usable.
        """
        self._grace = self.settings().drain_seconds + 15  # and refuses what is not usable
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start_servers()
            self._start_parts()
        except BaseException:
            self.stop()
            raise
        return self

    def settings(self) -> Settings:
        """The settings that the parts run with."""
        own = {n.removeprefix(PREFIX).lower(): v for n, v in self.environment.items()}
        return Settings.of_environment(**own)

    def run(self) -> None:
        """Watch over everything until ``end``; starts again what ends by itself.

        Raises:
            LocalError: a local server ended and does not start again.
        """
        while not self._wake.wait(0.5):
            while not self._fallen.empty():
                self._raise_up(*self._fallen.get())
            for part in self.parts:
                self._mend(part)
                child_process.turn_over(str(part.log), LOG_BYTES)

    def end(self) -> None:
        """Let ``run`` return; safe in a signal handler and from any thread."""
        self._wake.set()

    def stop(self) -> None:
        """Stop front end and workers, who hand back what they cannot end; then the servers.

        SIGINT or SIGTERM meanwhile ends all at once; what was begun goes on at the next start.
        """
        self._wake.set()
        with self._hurried():
            self._stop()

    def _stop(self) -> None:
        if any(part.alive() for part in self.parts):
            self.say(
                f"stopping: jobs end or are handed back, in {self._grace:g} s at the most; "
                "Ctrl-C once more: at once"
            )
        for part in self.parts:
            if part.process is not None and part.alive():
                part.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        for part in self.parts:
            if part.process is None:
                continue
            try:
                part.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                part.process.kill()
                part.process.wait()
        self.parts = []
        if self.local is not None:
            self.local.stop()
            self.local = None

    @contextmanager
    def _hurried(self) -> Iterator[None]:
        """Has SIGINT and SIGTERM kill what is still to be stopped, and not this process instead."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, lambda *_: self._kill()) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _kill(self) -> None:
        for part in self.parts:
            if part.process is not None and part.alive():
                part.process.kill()
        if self.local is not None:
            self.local.hurry()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # Starting

    def _start_servers(self) -> None:
        given = [n for n in ("REDIS_URL", "S3_ENDPOINT") if os.environ.get(PREFIX + n)]
        if len(given) == 1:
            raise LocalError(
                f"{PREFIX}{given[0]} alone is set: name both {PREFIX}REDIS_URL and "
                f"{PREFIX}S3_ENDPOINT, or neither for servers of its own"
            )
        self.environment = {
            PREFIX + "SCRATCH_DIR": str(_made(self.folder / "scratch")),
            PREFIX + "LOG_FORMAT": os.environ.get(PREFIX + "LOG_FORMAT", "json"),
        }
        if not given:
            self.say("starting valkey and SeaweedFS")
            self.local = LocalServers(self.folder / "servers").start()
            self.environment |= self.local.environment()
            self.local.watch(self._server_ended)
            Storage(self.settings()).bucket()

    def _start_parts(self) -> None:
        self.port = self.port if self.port and _free(self.host, self.port) else _any_port()
        logs = self.folder / "logs"
        api = {PREFIX + "API_HOST": self.host, PREFIX + "API_PORT": str(self.port)}
        reached = LOOPBACK if self.host in ("0.0.0.0", "::") else self.host
        self.parts = [self._part("api", api, logs, (reached, self.port, "/readyz"))]
        for number in range(self.workers):
            port = _any_port()
            own = {PREFIX + "METRICS_HOST": LOOPBACK, PREFIX + "METRICS_PORT": str(port)}
            name = "worker" if self.workers == 1 else f"worker-{number + 1}"
            self.parts.append(self._part(name, own, logs, (LOOPBACK, port, "/readyz")))
        self.say(
            f"starting the front end and {self.workers} worker(s); the base takes some seconds"
        )
        for part in self.parts:
            part.start()
        self._wait_until_ready()

    def _part(
        self, name: str, own: dict[str, str], logs: Path, health: tuple[str, int, str]
    ) -> Part:
        module = "api" if name == "api" else "worker"
        environment = os.environ | self.environment | own
        return Part(name, [sys.executable, "-m", module], environment, logs / f"{name}.log", health)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        waiting = list(self.parts)
        while waiting:
            for part in waiting:
                if not part.alive():
                    raise LocalError(f"{part.name} ended at its start: {part.said()}")
                if time.monotonic() > deadline:
                    raise LocalError(
                        f"{part.name} is not ready after {START_S:g} s; see {part.log}"
                    )
            waiting = [p for p in waiting if not p.ready()]
            if waiting and self._wake.wait(0.1):
                raise LocalError("stopped while starting")

    # Watching

    def _server_ended(self, name: str, said: str) -> None:
        self._fallen.put((name, said))

    def _raise_up(self, name: str, said: str) -> None:
        self.say(f"{name} ended, starting it again; it last said: {said or 'nothing'}")
        if self.local is not None:
            self.local.restart(name)
            self.say(f"{name} is back")

    def _mend(self, part: Part) -> None:
        if part.alive():
            return
        now = time.monotonic()
        if part.again is None:
            part.ended = 0 if now - part.started > STEADY_S else part.ended + 1
            wait = min(LONGEST_WAIT_S, 0.5 * 2**part.ended)
            status = None if part.process is None else part.process.returncode
            self.say(
                f"{part.name} ended with status {status}; again in {wait:g} s (see {part.log})"
            )
            part.again = now + wait
        elif now >= part.again:
            part.start()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
