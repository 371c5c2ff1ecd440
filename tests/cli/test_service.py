"""The commands of those who run the service, against real servers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import httpx
import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from customedit.cli import app
from customedit.config.settings import Settings
from customedit.jobs.journal import Journal
from customedit.jobs.records import JobRecord
from customedit.jobs.store import Jobs
from customedit.schemas import ids
from customedit.storage.store import Storage
from customedit.tenants.access import ApiKeys

from .. import web


def run(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


def told(*args: str) -> dict[str, object]:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_a_key_is_made_listed_and_revoked(
    redis_client: Redis, settings: Settings, storage: Storage
) -> None:
    made = told("keys", "create", "acme", "--name", "app", "--scope", "read", "--days", "7")
    text = str(made["key"])
    keys = ApiKeys(redis_client, settings)
    found = keys.verify(text)
    assert found is not None and (found.tenant, found.scopes) == ("acme", ["read"])
    assert storage.exists(f"api-keys/{found.id}.json")
    listed = run("keys", "list", "acme")
    assert found.id in listed.stdout and "valid" in listed.stdout
    assert text not in listed.stdout and found.hash not in listed.stdout
    assert run("keys", "revoke", found.id).exit_code == 0
    assert keys.verify(text) is None
    assert "revoked" in run("keys", "list").stdout
    plain = run("keys", "create", "acme").stdout.splitlines()
    assert keys.verify(plain[0]) is not None


def test_what_cannot_be_is_one_line(storage: Storage) -> None:
    for args in (
        ("keys", "create", "Acme"),
        ("keys", "create", "acme", "--scope", "write"),
        ("keys", "create", "acme", "--days", "-1"),
        ("keys", "revoke", "key_none"),
    ):
        result = run(*args)
        assert result.exit_code == 2, args
        assert result.output.startswith("error:") and len(result.output.splitlines()) == 1


def test_recover_puts_a_wiped_redis_back(
    redis_client: Redis, settings: Settings, storage: Storage
) -> None:
    key = str(told("keys", "create", "acme")["key"])
    record = JobRecord(
        id=ids.new("job"), tenant="acme", kind="edit", request={},
        created_at=time.time(), queued_at=time.time(),
    )  # fmt: skip
    jobs = Jobs(redis_client, settings)
    Journal(storage).request(record)
    jobs.submit(record)
    redis_client.delete(*redis_client.scan_iter(f"{settings.namespace}:*"))
    done = told("recover")
    assert (done["keys"], done["queued"], done["unreadable"]) == (1, 1, [])
    assert jobs.peek(record.id) is not None
    assert ApiKeys(redis_client, settings).verify(key) is not None
    storage.put(f"tenants/acme/images/{ids.of_image(b'')}/1/image.json", b"{")
    result = run("recover")
    assert result.exit_code == 1 and "unreadable" in result.stdout


def test_servers_that_do_not_answer_are_named(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("customedit.jobs.redis.RETRIES", 0)
    monkeypatch.setenv("CUSTOMEDIT_REDIS_URL", "redis://user:hidden@127.0.0.1:1/0")
    result = run("keys", "list")
    assert result.exit_code == 2 and "CUSTOMEDIT_REDIS_URL" in result.output
    assert "hidden" not in result.output and "Traceback" not in result.output


def test_a_program_of_the_service_runs_in_the_process(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("CUSTOMEDIT_API_PORT", str(port))
    started = subprocess.Popen(
        [sys.executable, "-m", "customedit.cli", "api"], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                assert web.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
                break
            except httpx.TransportError:
                assert started.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
        started.terminate()
        assert started.wait(120) == 0
    finally:
        started.kill()


@pytest.mark.parametrize("program", ["api", "worker"])
def test_a_program_says_which_setting_is_wrong(
    program: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUSTOMEDIT_REDIS_URL", "nowhere")
    done = subprocess.run(
        [sys.executable, "-m", "customedit.cli", program], capture_output=True, text=True
    )
    assert done.returncode != 0 and "REDIS_URL" in done.stderr and "Traceback" not in done.stderr
    assert "CUSTOMEDIT_*" in run(program, "--help").stdout


def test_the_command_line_starts_without_redis_or_s3() -> None:
    code = "import sys, customedit.cli; print({'redis', 'boto3', 'torch'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert found.stdout.strip() == "set()"
