"""The whole service on one machine: local servers, the front end, workers; ended together.

The front end and the workers are processes of their own, the same as in production
(``customedit.programs``). One supervisor runs them and the local servers.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from customedit import programs
from customedit.config.settings import PREFIX, Settings
from customedit.devserver.local_servers import LOOPBACK, LocalServers
from customedit.devserver.supervisor import LocalError, Process, Supervisor, answers
from customedit.programs import Program
from customedit.storage.store import Storage

START_S: Final = 180.0
"""Until the front end and the workers must be ready; a base from a hub takes long to load."""

SERVICE: Final = 1
"""The stage of the front end and the workers: they are stopped before the servers, stage 0."""


@dataclass
class Stack:
    """Everything of the service with its data in ``folder``; a context manager.

    host, port: of the front end; port 0 takes any free one. workers: how many; apis: how many
    processes of the front end, each of which takes any request; those after the first listen on
    free ports. say: is told what happens, one line a call. Redis and S3 are local servers in
    ``folder`` unless the environment names both (``CUSTOMEDIT_REDIS_URL``,
    ``CUSTOMEDIT_S3_ENDPOINT``). given: settings of all programs by their names, such as ``base``,
    before those of the environment.
    """

    folder: Path
    host: str = LOOPBACK
    port: int = 8000
    workers: int = 1
    apis: int = 1
    say: Callable[[str], None] = print
    given: Mapping[str, str] = field(default_factory=dict)
    local: LocalServers | None = None
    supervisor: Supervisor = field(default_factory=Supervisor)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    _more_ports: list[int] = field(default_factory=list)
    _grace_s: float = 15.0
    _end: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Where the front end answers."""
        return self._url(self.port)

    @property
    def urls(self) -> list[str]:
        """Where each process of the front end answers, ``url`` first."""
        return [self._url(port) for port in (self.port, *self._more_ports)]

    def _url(self, port: int) -> str:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{'127.0.0.1' if shown in ('0.0.0.0', '[::]') else shown}:{port}"

    def start(self) -> Self:
        """Start everything and wait until all of it is ready.

        Raises:
            LocalError: something does not come up; the last lines of its log are in the message.
            InputError: a setting in the environment is not usable.
        """
        self.environment = {PREFIX + name.upper(): value for name, value in self.given.items()}
        self._grace_s = self.settings().drain_seconds + 15  # and refuses what is not usable
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start_servers()
            self._start_service()
        except BaseException:
            self.stop()
            raise
        return self

    def settings(self) -> Settings:
        """The settings that front end and workers run with."""
        given = {n.removeprefix(PREFIX).lower(): v for n, v in self.environment.items()}
        return Settings.of_environment(**given)

    def run(self) -> None:
        """Watch over everything until ``end``; starts again what ends by itself.

        Raises:
            LocalError: a local server ended and does not start again.
        """
        self.supervisor.supervise(self.say, self._end, START_S)

    def end(self) -> None:
        """Let ``run`` return; safe in a signal handler and from any thread."""
        self._end.set()

    def stop(self) -> None:
        """Stop front end and workers, who hand back what they cannot end; then the servers.

        SIGINT or SIGTERM meanwhile ends all at once; what was begun goes on at the next start.
        """
        self._end.set()
        with self._signals_kill():
            if any(p.stage == SERVICE and p.alive() for p in self.supervisor.processes):
                self.say(
                    f"stopping: jobs end or are handed back, in {self._grace_s:g} s at the most; "
                    "Ctrl-C once more: at once"
                )
            self.supervisor.stop(SERVICE)
            if self.local is not None:
                self.local.stop()
                self.local = None

    @contextmanager
    def _signals_kill(self) -> Iterator[None]:
        """Has SIGINT and SIGTERM kill what is still to be stopped, and not this process instead."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, lambda *_: self.supervisor.kill()) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

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
        scratch = self.folder / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        self.environment |= {
            PREFIX + "SCRATCH_DIR": str(scratch.resolve()),
            PREFIX + "LOG_FORMAT": os.environ.get(PREFIX + "LOG_FORMAT", "json"),
        }
        if not given:
            self.say("starting valkey and SeaweedFS")
            self.local = LocalServers(self.folder / "servers", supervisor=self.supervisor)
            self.local.start()
            self.environment |= self.local.environment()
            Storage(self.settings()).bucket()

    def _start_service(self) -> None:
        self.port = self.port if self.port and _free(self.host, self.port) else _any_port()
        self._more_ports = [_any_port() for _ in range(self.apis - 1)]
        self.say(
            f"starting the front end and {self.workers} worker(s); the base takes some seconds"
        )
        reached = LOOPBACK if self.host in ("0.0.0.0", "::") else self.host
        for number, port in enumerate((self.port, *self._more_ports)):
            settings = {"API_HOST": self.host, "API_PORT": str(port)}
            name = "api" if self.apis == 1 else f"api-{number + 1}"
            self._start(name, "api", settings, (reached, port))
        for number in range(self.workers):
            port = _any_port()
            settings = {"METRICS_HOST": LOOPBACK, "METRICS_PORT": str(port)}
            name = "worker" if self.workers == 1 else f"worker-{number + 1}"
            self._start(name, "worker", settings, (LOOPBACK, port))
        self.supervisor.wait_healthy(START_S, self._end)

    def _start(
        self, name: str, program: Program, settings: dict[str, str], address: tuple[str, int]
    ) -> None:
        environment = self.environment | {PREFIX + n: v for n, v in settings.items()}
        self.supervisor.start(
            Process(
                name,
                programs.command(program),
                self.folder.resolve() / "logs" / f"{name}.log",
                partial(answers, *address, "/readyz"),
                environment=environment,
                grace_s=self._grace_s,
                stage=SERVICE,
            )
        )


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
