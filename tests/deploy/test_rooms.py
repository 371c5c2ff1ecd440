"""The images' packages: each room imports no more than its lock lists; what the API serves."""

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from customedit.config.settings import Settings
from customedit.jobs import notifications

ROOT = Path(__file__).resolve().parents[2]

# Puts the interpreter into an image: whatever its lock does not list is not there.
INSIDE = """
import importlib.machinery, importlib.metadata, pkgutil, re, sys

lock = "".join(open(f"requirements/{name}").read() for name in sys.argv.pop(1).split(","))
def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()
listed = {plain(name) for name in re.findall("^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)}
listed.add("customedit")
owners = importlib.metadata.packages_distributions()
hidden = {top for top, names in owners.items() if listed.isdisjoint(map(plain, names))}

class Image:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            return None  # as if it were not on the disk
        return importlib.machinery.PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(*context):
        found = importlib.metadata.MetadataPathFinder.find_distributions(*context)
        return (d for d in found if plain(d.metadata["Name"]) in listed)

at = sys.meta_path.index(importlib.machinery.PathFinder)
sys.meta_path[at] = Image
"""
IMPORTS = """
import importlib
for room in sys.argv[1:]:
    package = importlib.import_module(room)
    for found in pkgutil.walk_packages(package.__path__, room + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print(*{name.partition(".")[0] for name in sys.modules})
"""
COMMANDS = """
import customedit.cli
for command in sys.argv[1:]:
    try:
        customedit.cli.app([*command.split(), "--help"])
    except SystemExit as end:
        if end.code:
            sys.exit(f"{command} ends with {end.code}")
"""
ROOMS = (
    "api",
    "customedit.schemas",
    "customedit.jobs",
    "customedit.storage",
    "customedit.tenants",
    "customedit.config",
    "customedit.devserver",
)
"""What the front end's image holds."""


NOTIFY = """
from customedit.config import telemetry
from customedit.config.settings import Settings
from customedit.jobs import notifications
from customedit.jobs.records import JobRecord
from customedit.jobs.redis import connect
from customedit.jobs.store import Jobs
from customedit.schemas import ids

settings = Settings.of_environment()
telemetry.set_up_tracing(settings, "api")
when = {"created_at": 1.0, "queued_at": 1.0}
job = JobRecord(id=ids.new("job"), tenant="acme", kind="edit", request={}, **when)
message = notifications.message(settings, job.id, job.kind, telemetry.traceparent())
sys.exit(not Jobs(connect(settings), settings).submit(job, message=message).notified)
"""


def inside(lock: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", INSIDE + code, lock, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_every_module_imports_in_the_image() -> None:
    run = inside("api.txt", IMPORTS, *ROOMS)
    assert run.returncode == 0, run.stderr
    assert {"torch", "diffusers", "transformers"}.isdisjoint(run.stdout.split())


def test_every_module_of_the_worker_imports_in_its_image() -> None:
    run = inside("worker.txt,torch.txt", IMPORTS, "worker")
    assert run.returncode == 0, run.stderr
    assert "torch" in run.stdout.split()


def test_what_is_imported_late_is_in_the_image(
    settings: Settings, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter of traces is imported when needed."""
    monkeypatch.setenv("CUSTOMEDIT_OTEL_ENDPOINT", "http://127.0.0.1:9")
    run = inside("api.txt", NOTIFY)
    assert run.returncode == 0, run.stderr
    assert redis_client.llen(notifications.queue(settings, "edit")) == 1


@pytest.mark.parametrize(
    ("lock", "code"),
    [
        ("api.txt", "import torch"),
        ("api.txt", "import safetensors"),
        ("worker.txt", "import pytest"),
    ],
)
def test_what_is_not_in_the_image_cannot_be_imported(lock: str, code: str) -> None:
    run = inside(lock, code)
    assert run.returncode != 0
    assert f"No module named '{code.removeprefix('import ')}'" in run.stderr


def test_every_command_that_operations_tell_works_in_the_image() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    told = set(re.findall(r"\bcustomedit (keys [a-z]+|recover)\b", page))
    assert told == {"keys create", "keys list", "keys revoke", "recover"}
    run = inside("api.txt", COMMANDS, *told)
    assert run.returncode == 0, run.stderr
    assert all(f" {command} [OPTIONS]" in run.stdout for command in told)


def test_ingress_lets_through_what_the_api_serves(production: list[Any]) -> None:
    from api.app import create_app

    page = {"/", "/page/main.js", "/docs"}
    served = {"/openapi.json", *page, *create_app(Settings()).openapi()["paths"]}
    (ingress,) = [item for item in production if item["kind"] == "Ingress"]
    paths = {p["path"] for p in ingress["spec"]["rules"][0]["http"]["paths"]}
    inside_only = {"/healthz", "/readyz", "/metrics"}
    let_through = {s for s in served if any(s == p or s.startswith(p + "/") for p in paths)}
    assert let_through == served - inside_only
    assert inside_only <= served
    assert all(any(s.startswith(p) for s in served) for p in paths)


def test_setup_makes_bucket_and_key_once(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from customedit.jobs.journal import Journal
    from customedit.jobs.redis import connect
    from customedit.storage.store import Storage
    from customedit.tenants.access import ApiKeys

    bucket = f"setup-{secrets.token_hex(6)}"
    monkeypatch.setenv("CUSTOMEDIT_S3_BUCKET", bucket)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    script = tmp_path / "setup.sh"
    text = (ROOT / "deploy" / "compose" / "setup.sh").read_text()
    script.write_text(text.replace("/keys/", f"{tmp_path}/"))
    kept = tmp_path / "default"
    seen = set()
    for _ in range(2):
        run = subprocess.run(["sh", script], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert kept.read_text().strip() not in run.stdout + run.stderr
        seen.add(kept.read_text())
    assert len(seen) == 1
    assert kept.stat().st_mode & 0o777 == 0o600
    own = Settings.of_environment()
    storage = Storage(own)
    assert storage.reachable()
    with connect(own) as client:
        keys = ApiKeys(client, own, Journal(storage))
        assert [key.tenant for key in keys.list()] == ["default"]
        found = keys.verify(kept.read_text().strip())
    assert found is not None and found.tenant == "default"
