"""Commands that talk to a service: what they print, what they write, how they fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from customedit.cli import app
from customedit.client import CustomEdit

from .conftest import LOOK, SOURCE, Service

pytestmark = pytest.mark.timeout(600)  # the first test starts the service

RUNNER = CliRunner()


class Shell:
    def __init__(self, service: Service) -> None:
        self.environment = {"CUSTOMEDIT_SERVER": service.url, "CUSTOMEDIT_KEY": service.key}

    def __call__(self, *words: object, **environment: str | None) -> Result:
        env: Any = self.environment | environment
        return RUNNER.invoke(app, list(map(str, words)), env=env)

    def json(self, *words: object) -> dict[str, Any]:
        done = self(*words, "--json")
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout))


@pytest.fixture
def shell(service: Service) -> Shell:
    return Shell(service)


def test_from_upload_to_files(shell: Shell, client: CustomEdit, tmp_path: Path) -> None:
    uploaded = shell.json("images", "upload", SOURCE.image, LOOK.images[0])["items"]
    names = [image["id"] for image in uploaded]
    assert names[0] in shell("images", "list").stdout
    page = shell("images", "list", "--limit", 1).stdout
    cursor = page.partition("(more: --cursor ")[2].partition(")")[0]
    following = shell("images", "list", "--cursor", cursor, "--limit", 100).stdout
    assert page.split()[0] not in following
    assert all(name in page + following for name in names)
    for kind in ("concepts", "jobs", "batches"):
        assert shell(kind, "list", "--cursor", "0").exit_code == 0, kind
    assert "128 x 128" in shell("images", "show", names[0]).stdout
    (file,) = shell.json("images", "download", names[0], "-o", tmp_path)["files"]
    assert Path(file).read_bytes() == SOURCE.image.read_bytes()
    again = shell("images", "download", names[0], "-o", tmp_path)
    assert again.exit_code == 2 and "exists" in again.output

    batch = client.edit_batch(
        images=names, source_prompt=SOURCE.prompt, target_prompt="a red cup", steps=2,
        method="sdedit",
    )  # fmt: skip
    waited = shell.json("batches", "wait", batch.id, "--timeout", 90)
    assert waited["state"] == "finished" and waited["counts"]["succeeded"] == 2
    assert batch.id in shell("batches", "list").stdout
    assert "2 succeeded" in shell("batches", "show", batch.id).stdout
    files = shell.json("batches", "download", batch.id, "-o", tmp_path / "all")["files"]
    assert len(files) == 2 and all(Path(file).stat().st_size for file in files)
    job = batch.jobs[0].id
    assert "succeeded" in shell("jobs", "wait", job).stdout
    assert job in shell("jobs", "list", "--kind", "edit", "--state", "succeeded").stdout
    assert shell.json("jobs", "show", job)["result"]["outputs"][0]["width"] == 128
    (one,) = shell.json("jobs", "download", job, "-o", tmp_path / "one")["files"]
    assert Path(one).name == f"out_{job[4:]}_0.png"
    assert "succeeded" in shell("jobs", "cancel", job).stdout  # it was finished
    assert shell("jobs", "delete", job).exit_code == 0
    assert shell("batches", "delete", batch.id).exit_code == 0
    gone = shell("batches", "show", batch.id)
    assert gone.exit_code == 1 and "you have no batch" in gone.output
    assert shell("images", "delete", *names).exit_code == 0


def test_concepts(shell: Shell, concept: str, tmp_path: Path) -> None:
    assert LOOK.token in shell("concepts", "list").stdout
    assert shell.json("concepts", "show", concept)["state"] == "ready"
    (file,) = shell.json("concepts", "download", concept, "-o", tmp_path)["files"]
    assert Path(file).suffix == ".safetensors"


def test_how_they_fail(shell: Shell, service: Service) -> None:
    missing = shell("jobs", "list", CUSTOMEDIT_KEY=None)
    assert missing.exit_code == 2 and "CUSTOMEDIT_KEY" in missing.output
    away = shell("jobs", "list", "--url", "http://127.0.0.1:9")
    assert away.exit_code == 2 and "does not answer" in away.output
    wrong = shell("jobs", "list", "--key", "ce_wrong")
    assert wrong.exit_code == 1 and "No valid API key" in wrong.output
    odd = shell("jobs", "list", "--state", "odd", "--json")
    assert odd.exit_code == 1 and "error" in json.loads(odd.stdout)


def test_keys_of_a_local_service(service: Service, tmp_path: Path) -> None:
    data = service.folder
    made = RUNNER.invoke(app, ["keys", "create", "guest", "--data", str(data), "--json"])
    assert made.exit_code == 0, made.output
    key = json.loads(made.stdout)
    with CustomEdit(service.url, key["key"]) as client:
        assert client.limits().tenant == "guest"
    listed = RUNNER.invoke(app, ["keys", "list", "guest", "--data", str(data)])
    assert key["id"] in listed.stdout
    ended = RUNNER.invoke(app, ["keys", "revoke", key["id"], "--data", str(data)])
    assert ended.exit_code == 0
    other = RUNNER.invoke(app, ["keys", "list", "--data", str(tmp_path)])
    assert other.exit_code == 2 and "not the data folder" in other.output


def test_keys_over_rest(shell: Shell, service: Service) -> None:
    there = ("--url", service.url)
    made = shell.json("keys", "create", *there, "--name", "web", "--scope", "read", "--days", 3)
    with CustomEdit(service.url, made["key"]) as client:
        assert client.limits().scopes == ["read"]
    listed = shell("keys", "list", *there).stdout
    assert f"{made['id']}  valid" in listed and "*" in listed and made["key"] not in listed
    assert "is revoked" in shell("keys", "revoke", made["id"], *there).stdout
    own = next(k for k in shell.json("keys", "list", *there)["keys"] if k["current"])
    refused = shell("keys", "revoke", own["id"], *there)
    assert refused.exit_code == 1 and "does not revoke itself" in refused.output
    for words in (("guest",), ("--data", service.folder), ("--scope", "write")):
        odd = shell("keys", "create", *words, *there)
        assert odd.exit_code == 2, odd.output


@pytest.mark.parametrize(
    ("option", "value", "field"),
    [("--device", "tpu", "device"), ("--dtype", "int8", "dtype")],
)
def test_what_serve_cannot_use(tmp_path: Path, option: str, value: str, field: str) -> None:
    done = RUNNER.invoke(app, ["serve", "--data", str(tmp_path / "d"), option, value])
    assert done.exit_code == 2 and field in done.output
    assert not (tmp_path / "d").exists()
