"""``customedit lookbench``: what a user of another editor does, and our own run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from customedit.cli import app
from customedit.metrics.lookbench.dataset import opened
from customedit.metrics.lookbench.folder import export
from customedit.schemas.concepts import TrainingOptions

SMALL = ["--size", "small", "--sources", "2"]


@pytest.fixture
def run() -> CliRunner:
    return CliRunner()


def test_another_editor_is_scored_from_files_alone(run: CliRunner, tmp_path: Path) -> None:
    files, edits = tmp_path / "bench", tmp_path / "edits"
    done = run.invoke(app, ["lookbench", "export", str(files), *SMALL, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["pairs"] == 4
    one = ["lookbench", "export", str(files), "--size", "small", "--sources", "1"]
    refused = run.invoke(app, one)
    assert refused.exit_code == 2 and "holds the results of a former run" in refused.stderr
    itself = run.invoke(app, [*one, "--bench", str(files), "--force"])
    assert itself.exit_code == 2 and "is the set itself" in itself.stderr
    assert run.invoke(app, [*one, "--force"]).exit_code == 0
    assert len(list((files / "sources").iterdir())) < 2 * (2 + 3)  # nothing of the former ones
    assert run.invoke(app, ["lookbench", "export", str(files), *SMALL, "--force"]).exit_code == 0
    shutil.copytree(files / "answers", edits)  # an editor that is always right
    shutil.copytree(files / "answers", edits / "copies")
    refused = run.invoke(
        app, ["lookbench", "score", str(edits), "--bench", str(files), "--base", "mini"]
    )
    assert refused.exit_code == 2 and "base: is of no use" in refused.stderr
    done = run.invoke(app, ["lookbench", "score", str(edits), "--bench", str(files), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["figures"]["exact"]["edit"]["value"] == 1
    assert told["counts"] == {"looks": 2, "sources": 2, "seeds": 1}
    assert (edits / "report" / "worst.png").is_file()
    assert told["figures"]["gap"]["edit"]["value"] == 1  # its own copies are exact
    shutil.rmtree(edits / "copies")
    (edits / "report" / "another-look.png").touch()
    again = ["lookbench", "score", str(edits), *SMALL]
    refused = run.invoke(app, again)
    assert refused.exit_code == 2 and "holds the results of a former run" in refused.stderr
    plain = run.invoke(app, [*again, "--force"])
    assert not (edits / "report" / "another-look.png").exists()
    assert plain.exit_code == 0, plain.output
    assert json.loads((edits / "report" / "scores.json").read_text())["rows"]
    assert "| gap closed inside the mask" in plain.stdout and "| plaid |" in plain.stdout


def test_our_own_editor_runs_and_is_scored(run: CliRunner, tmp_path: Path) -> None:
    done = run.invoke(
        app,
        ["lookbench", "run", "-o", str(tmp_path), "--size", "small", "--sources", "1", "--look",
         "waves", "--steps", "2", "--change", "0.7", "--training-steps", "1", "--recipe",
         "contained", "--crops", "2", "--no-words", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["figures"]["gap"]["copy"]["value"] == 1
    report = Path(told["report"])
    editor = json.loads((report / "scores.json").read_text())["about"]["editor"]
    assert editor["recipe"]["steps"] == 2 and editor["recipe"]["change"] == 0.7
    assert editor["recipe"]["training"] == {
        "way": "custom-diffusion", "steps": 1, "recipe": "contained", "crops": 2,
    }  # fmt: skip
    assert editor["training"]["columns"] == "token" and editor["training"]["steps"] == 1


def test_a_run_has_the_options_of_edits_and_trainings() -> None:
    run = get_command(app).commands["lookbench"].commands["run"]  # type: ignore[attr-defined]  # of groups
    options = {option for parameter in run.params for option in parameter.opts}
    seeds = {"--seed", "--preview-every", "--checkpoint-every"}  # a run has --seeds
    trainings = {f"--{name.replace('_', '-')}" for name in TrainingOptions.model_fields}
    assert trainings - seeds - {"--steps"} < options and "--training-steps" in options
    edits = {"--method", "--change", "--guidance", "--guidance-start", "--inversion", "--feather"}
    assert edits < options


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "out", "--size", "huge"], "size: 'huge' is unknown"),
        (["export", "out", "--look", "tartan"], "look: 'tartan' is unknown"),
        (["export", "full"], "folder: full holds other files, such as notes.txt"),
        (["score", "none"], "folder: none is not a folder"),
        (["score", "full"], "folder: full lacks plaid/00-vase.png and 191 more pictures of 192"),
        (["score", "full", "--bench", "none.json"], "bench: none.json does not exist"),
        (["score", "edits", "--size", "small", "--sources", "2"], "out: edits/report holds"),
        (["run", "-o", "full"], "out: full holds other files, such as notes.txt"),
        (
            ["run", "--method", "magic"],
            "method: is not one of 'p2p', 'sdedit', 'masactrl', 'pnp', 'ddpm', 'directedit' or "
            "'flowedit'",
        ),
        (["run", "--no-preserve", "--feather", "2"], "feather: has no effect"),
        (["run", "--inversion", "magic"], "inversion: is not one of 'direct', 'null-text'"),
        (["run", "--method", "pnp", "--inversion", "ddim"], "inversion: has no effect on pnp"),
        (["run", "--change", "auto"], "change: has to be a number here"),
        (["run", "--change", "0.5", "--strength", "0.5"], "change: is given with strengths"),
        (["run", "--recipe", "magic"], "recipe: is not one of 'paper'"),
        (["run", "--columns", "token", "--class-images", "9"], "class_images: has no effect"),
        (["run", "--strength", "2"], "strength: is 2.0; at most 1"),
        (["run", "--guidance", "-1"], "guidance: is -1.0; at least 0"),
        (["run", "--training-steps", "0"], "training-steps: is 0; at least 1"),
        (["run", "--base", "./none"], "base: there is no folder ./none"),
    ],
)
def test_errors_are_one_line_and_come_before_any_work(
    arguments: list[str], says: str, run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    if arguments[1:2] == ["edits"]:
        report = tmp_path / "edits" / "report"
        export(opened("small").select((), 2), tmp_path / "set")
        shutil.copytree(tmp_path / "set" / "answers", report.parent)
        report.mkdir()
        (report / "scores.json").touch()
    done = run.invoke(app, ["lookbench", *arguments])
    assert done.exit_code == 2, done.output
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists() and not (tmp_path / "out").exists()
