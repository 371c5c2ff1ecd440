"""A Redis (Valkey) and an S3 (SeaweedFS) of one's own, from wheels, for one machine.

Both listen on loopback alone and keep everything in one folder: ``valkey/`` and ``seaweedfs/``
hold the data, ``logs/`` what they say, ``local.json`` ports and passwords (read by the owner
alone). They end when the process that started them ends, however it ends; a later start finds the
data.

The password of Valkey, the keys of S3 and a signing key for SeaweedFS's inner HTTP ports keep other
users of the machine out. Its inner gRPC ports know no password: on a machine shared with people one
does not trust, use servers of one's own by ``CUSTOMEDIT_REDIS_URL`` and ``CUSTOMEDIT_S3_ENDPOINT``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from customedit.devserver import child_process
from customedit.devserver import programs as parts
from customedit.devserver.data_folder import LocalFolder
from customedit.devserver.programs import LOOPBACK, LocalError

__all__ = ["LOOPBACK", "LocalError", "LocalServers"]

# Seconds from SIGTERM to SIGKILL. SeaweedFS always waits 15 s for its filer's own subscriptions and
# does nothing meanwhile; what it has acknowledged is with the system already, and survives.
GRACE_S: Final = {"valkey": 20.0, "seaweedfs": 1.0}
LOG_BYTES: Final = 16 * 2**20
"""How long a log may grow until it is turned over; the one before is kept."""


@dataclass
class Server:
    """A server that runs: its child_process, its log and how it is told that it is healthy."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    healthy: Callable[[], bool]

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def said(self) -> str:
        """The last lines of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
        return ""


class LocalServers:
    """Valkey and SeaweedFS with their data in ``folder``; a context manager.

    usual_ports: try 6379 and 8333 first; taken or not asked for, free ones are found and kept for
    the next start. start_s, stop_s: how long starting and stopping may take, in seconds;
    log_bytes: after how much a log is turned over.
    """

    def __init__(
        self,
        folder: Path,
        *,
        usual_ports: bool = True,
        start_s: float = 60.0,
        stop_s: float = max(GRACE_S.values()) + 5,
        log_bytes: int = LOG_BYTES,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.usual_ports, self.start_s, self.stop_s = usual_ports, start_s, stop_s
        self.log_bytes = log_bytes
        self.servers: list[Server] = []
        self._held = LocalFolder(self.folder)
        self._programs = Path(), Path()
        self._callbacks: list[Callable[[str, str], None]] = []
        self._stopping = threading.Event()

    def start(self) -> Self:
        """Start both and wait until they answer.

        Raises:
            LocalError: a program is missing, the folder is in use, or a server does not come up.
        """
        self._programs = parts.valkey_program(), parts.weed_program()
        for name in ("valkey", "seaweedfs", "logs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._stopping.clear()
        self._held.hold(self.stop_s)
        try:
            for last in (False, False, True):
                try:
                    self._start_once()
                    return self
                except _PortTaken as error:  # between our look and the server's bind
                    self._end_servers()
                    if last:
                        raise LocalError(str(error)) from error
        except BaseException:
            self.stop()
            raise
        raise AssertionError("not reached")

    def stop(self) -> None:
        """Stop both, data written; does nothing if they do not run."""
        self._stopping.set()
        self._end_servers()
        self._held.release()

    def hurry(self) -> None:
        """Let a ``stop`` under way kill them at once; safe in a signal handler.

        What they have acknowledged survives: Valkey's is in its file, SeaweedFS's with the system.
        """
        for server in self.servers:
            if server.alive():
                server.process.send_signal(signal.SIGQUIT)

    def restart(self, name: str) -> None:
        """Start ``valkey`` or ``seaweedfs`` again where it was, if it has ended, and wait for it.

        Raises:
            LocalError: it does not come up.
        """
        if self.alive()[name]:
            return
        self.servers = [server for server in self.servers if server.name != name]
        {"valkey": self._start_valkey, "seaweedfs": self._start_weed}[name]()
        self._wait_until_healthy()
        self._watch(self.servers[-1])

    def pid(self, name: str) -> int:
        """The process id of ``valkey`` or ``seaweedfs``."""
        return int((self.folder / name / child_process.PID).read_text())

    def alive(self) -> dict[str, bool]:
        """For each server that was started whether it still runs."""
        return {server.name: server.alive() for server in self.servers}

    def watch(self, callback: Callable[[str, str], None]) -> None:
        """Call ``callback(name, last lines of its log)``, from a thread, if a server crashes.

        Also one that is restarted later.
        """
        self._callbacks.append(callback)
        for server in self.servers:
            self._watch(server)

    @property
    def ports(self) -> dict[str, int]:
        """The ports: ``valkey`` and ``s3``, and SeaweedFS's inner ones."""
        return dict(self._held.ports)

    def read_environment(self) -> dict[str, str]:
        """``environment()`` of servers that another process has started in this folder.

        Raises:
            LocalError: none was ever started there.
        """
        if not (self.folder / "local.json").exists():
            raise LocalError(f"{self.folder} holds no local servers; start them first")
        self._held.read()
        return self.environment()

    def environment(self) -> dict[str, str]:
        """The ``CUSTOMEDIT_*`` variables by which settings find these servers; has secrets."""
        return self._held.environment()

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

    def _start_once(self) -> None:
        self._held.read()
        self._held.choose_ports(self.usual_ports)
        self._held.write()
        self._start_valkey()
        self._start_weed()
        self._wait_until_healthy()

    def _start_valkey(self) -> None:
        program = self._programs[0]
        port, password = self._held.ports["valkey"], self._held.secrets["valkey"]
        config = self.folder / "valkey" / "valkey.conf"
        parts.write_private(config, parts.valkey_config(port, password, config.parent))
        self._spawn(
            "valkey", [str(program), str(config)], lambda: parts.valkey_answers(port, password)
        )

    def _start_weed(self) -> None:
        program = self._programs[1]
        data = self.folder / "seaweedfs"
        keys = self._held.secrets
        identities = data / "s3.json"
        parts.write_private(identities, parts.s3_identities(keys["s3_access"], keys["s3_secret"]))
        ports = self._held.ports
        options = parts.weed_options(ports, data, identities)
        # Its inner HTTP ports take nothing that its own parts did not sign, and show no listings.
        inner = {
            "WEED_JWT_SIGNING_KEY": keys["inner"],
            "WEED_JWT_FILER_SIGNING_KEY": keys["inner"],
            "WEED_JWT_FILER_SIGNING_READ_KEY": keys["inner"],
            "WEED_FILER_EXPOSE_DIRECTORY_METADATA_ENABLED": "false",
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "2",  # volumes made at once, instead of 7
        }
        self._spawn("seaweedfs", [str(program), *options], lambda: parts.weed_answers(ports), inner)

    def _spawn(
        self,
        name: str,
        command: list[str],
        healthy: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        log = self.folder / "logs" / f"{name}.log"
        if log.exists():
            log.replace(child_process.former(str(log)))  # the last start's is kept, no more
        how = [str(GRACE_S[name]), str(log), str(self.log_bytes)]
        with log.open("ab") as out:  # appended to, so that it can be emptied meanwhile
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", child_process.__file__, *how, *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder / name,
                env=os.environ | dict(environment or {}),
                pass_fds=(self._held.lock,),
                start_new_session=True,
            )
        self.servers.append(Server(name, process, log, healthy))

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + self.start_s
        waiting = list(self.servers)
        while waiting:
            for server in waiting:
                if not server.alive():
                    error = _PortTaken if parts.says_port_taken(server.log) else LocalError
                    raise error(f"{server.name} ended at its start: {server.said()}")
            waiting = [server for server in waiting if not server.healthy()]
            if waiting and time.monotonic() > deadline:
                names = ", ".join(server.name for server in waiting)
                raise LocalError(
                    f"{names} did not answer in {self.start_s:g} s; see {self.folder / 'logs'}"
                )
            if waiting:
                time.sleep(0.05)

    # Ending

    def _end_servers(self) -> None:
        for server in self.servers:
            if server.process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    server.process.stdin.close()
        deadline = time.monotonic() + self.stop_s
        for server in self.servers:
            try:
                server.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()
        self.servers = []
        parts.sweep_sockets(self._held.ports)

    def _watch(self, server: Server) -> None:
        threading.Thread(
            target=self._tell_of_end, args=(server,), name=f"watch-{server.name}", daemon=True
        ).start()

    def _tell_of_end(self, server: Server) -> None:
        server.process.wait()
        if not self._stopping.is_set():
            for callback in self._callbacks:
                callback(server.name, server.said())


class _PortTaken(LocalError):
    """A server could not listen; another port may do."""
