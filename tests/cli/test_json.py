"""``--json``: one document on standard output, for results, warnings and errors alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from customedit.cli import app, console
from customedit.cli.command_errors import failure_of
from customedit.errors import InputError
from customedit.mini import samples

PICTURE = str(samples.sources()[3].image)
PROMPTS = ["--source-prompt", "a cup", "--target-prompt", "a red cup", "--steps", "1"]

SERVICE = ("jobs", "concepts", "images", "batches")

ERRORS: dict[str, tuple[list[str], str]] = {
    "edit": (["missing.png", *PROMPTS], "picture"),
    "sweep": ([PICTURE, *PROMPTS, "--concept", "missing"], "concept"),
    "customize": ([PICTURE, "--noun", "cup", "--token", "look"], "token"),
    "replay": (["missing.json", "--picture", PICTURE], "recipe"),
    "study": (["--page", "missing/page.md"], "page"),
    "doctor": (["--no-such-option"], ""),
    "recover": (["--no-such-option"], ""),
    "concept show": (["missing"], "concept"),
    "concept import": (["missing", "-o", "x.safetensors"], "concept"),
    "concept export": (["missing", "-o", "x"], "concept"),
    "concept compress": (["missing", "-o", "x.safetensors"], "concept"),
    "concept merge": (["missing", "missing", "-o", "x.safetensors"], "concept"),
    "models list": (["too-many"], ""),
    "models fetch": (["mini"], "base"),
    "models check": (["./missing"], "base"),
    "keys create": ([], "tenant"),
    "keys list": (["a", "b"], ""),
    "keys revoke": ([], "id"),
    "lookbench export": (["x", "--size", "huge"], "size"),
    "lookbench score": (["missing"], "folder"),
    "lookbench run": (["--method", "magic"], "method"),
    **{f"{group} list": ([], "url") for group in SERVICE},
    **{f"{group} show": ([], "id") for group in SERVICE},
    **{f"{group} delete": ([], "ids") for group in SERVICE},
    **{f"{group} wait": ([], "id") for group in ("jobs", "batches")},
    "jobs cancel": ([], "ids"),
    "batches cancel": ([], "id"),
    "jobs download": ([], "id"),
    "concepts download": ([], "id"),
    "batches download": ([], "id"),
    "images download": ([], "ids"),
    "images upload": (["missing.png"], "files"),
}
"""For each command that has ``--json``: arguments that it refuses, and the field of the error."""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def commands(group: Any, path: str = "") -> dict[str, Any]:
    """Every command below ``group`` by its words."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        below = f"{path} {name}".strip()
        found |= commands(command, below) if hasattr(command, "commands") else {below: command}
    return found


def test_every_command_with_json_is_in_the_table() -> None:
    having = {
        name
        for name, command in commands(get_command(app)).items()
        if any("--json" in option.opts for option in command.params)
    }
    assert having == ERRORS.keys()


@pytest.mark.parametrize("command", ERRORS)
def test_an_error_is_json(command: str) -> None:
    arguments, field = ERRORS[command]
    done = CliRunner().invoke(app, [*command.split(), *arguments, "--json"])
    assert done.exit_code == 2 and done.stderr == "", done.output
    document = json.loads(done.stdout)
    assert document.keys() == {"error"} and "\n" not in document["error"]["message"]
    assert document["error"].get("field", "") == field


def test_warnings_are_in_the_document(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jpg"
    Image.open(PICTURE).save(cut)
    cut.write_bytes(cut.read_bytes()[:-2])
    edit = ["edit", str(cut), *PROMPTS, "-o", "out.jpg"]
    done = CliRunner().invoke(app, [*edit, "--json"])
    assert done.exit_code == 0 and done.stderr == "", done.output
    document = json.loads(done.stdout)
    first, second = document["warnings"]
    assert "cut.jpg ends without its end mark" in first and "out.jpg is lossy" in second
    plain = CliRunner().invoke(app, [*edit, "--force"])
    assert plain.stderr.count("warning: ") == 2 and "warning" not in plain.stdout
    refused = CliRunner().invoke(app, [*edit, "--mask", "missing.png", "--force", "--json"])
    document = json.loads(refused.stdout)
    assert refused.exit_code == 2 and refused.stderr == ""
    assert document["error"]["field"] == "mask" and document["warnings"] == [first]
    clean = CliRunner().invoke(app, ["models", "list", "--json"])
    assert "warnings" not in json.loads(clean.stdout)


def test_ctrl_c_is_json_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(console, "load_base", interrupted)
    done = CliRunner().invoke(app, ["models", "check", "--json"])
    assert done.exit_code == 130 and done.stderr == ""
    assert json.loads(done.stdout) == {"error": {"message": "stopped"}}
    assert CliRunner().invoke(app, ["models", "check"]).stderr == "error: stopped\n"


def test_a_download_shows_no_bars_with_json() -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    from customedit.cli.models import _download_bars

    with _download_bars(quiet=True):
        assert are_progress_bars_disabled()
    with _download_bars(quiet=False):
        assert not are_progress_bars_disabled()


def test_remedies_name_the_options_of_the_command_line() -> None:
    failure = failure_of(InputError("concept", "fits in part", "`allow_unused` takes what fits"))
    assert failure is not None
    assert failure.line == "concept: fits in part; --allow-unused takes what fits"
    assert failure.remedy == "--allow-unused takes what fits"
