"""Results are not overwritten unless asked to, and a second run leaves nothing of the first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from customedit.cli import app, outputs
from customedit.concepts.concept import Concept
from customedit.diffusion.base import Base
from customedit.errors import InputError
from customedit.mini import samples

PICTURE = str(samples.sources()[3].image)
PROMPTS = ["--source-prompt", "a cup", "--target-prompt", "a red cup", "--steps", "1"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def concept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A concept that changes the first layer."""
    base = Base.load("mini")
    layer = base.layers[0]
    key, value = (base.weights[f"{layer}.{part}.weight"] + 0.01 for part in ("to_k", "to_v"))
    made = Concept(
        {"<look>": torch.ones(base.width)}, {layer: key}, {layer: value}, "cup",
        prompts=("a photo of a <look> cup",),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("concept") / "look.safetensors"
    made.save(path)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def succeeded(*arguments: str) -> Result:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return done


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["edit", PICTURE, *PROMPTS, "-o", "there.png"],
        ["customize", PICTURE, "--noun", "cup", "-o", "there.safetensors"],
        ["concept", "import", "{concept}", "-o", "there.safetensors"],
        ["concept", "compress", "{concept}", "--rank", "2", "-o", "there.safetensors"],
        ["concept", "export", "{concept}", "--format", "adobe", "-o", "there.bin"],
        ["concept", "export", "{concept}", "-o", "full"],
        ["sweep", PICTURE, *PROMPTS, "-o", "full"],
        ["customize", PICTURE, "--noun", "cup", "--previews", "full"],
        ["concept", "merge", "{concept}", "{concept}", "-o", "there.safetensors"],
        ["replay", "recipe.json", "--picture", PICTURE, "-o", "there.png"],
        ["study", "-o", "full"],
        ["study", "--page", "there.md"],
    ],
    ids=lambda a: " ".join(a[:2])[:20] + " " + a[-1],
)
def test_what_exists_is_not_replaced(arguments: list[str], concept: Path, tmp_path: Path) -> None:
    for suffix in (".png", ".safetensors", ".bin", ".md"):
        (tmp_path / f"there{suffix}").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = run(*(a.format(concept=concept) for a in arguments))
    assert done.exit_code == 2 and done.stderr.count("\n") == 1, done.output
    assert done.stderr.startswith("error: ") and "--force" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_force_replaces_a_picture(tmp_path: Path) -> None:
    succeeded("edit", PICTURE, *PROMPTS, "-o", "out.png")
    first = (tmp_path / "out.png").read_bytes()
    (tmp_path / "out.png").write_text("mine")
    succeeded("edit", PICTURE, *PROMPTS, "-o", "out.png", "--force")
    assert (tmp_path / "out.png").read_bytes() == first


def test_a_second_sweep_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    sweep = ["sweep", PICTURE, *PROMPTS]
    succeeded(*sweep, "--strength", "0.2", "--strength", "0.8")
    (tmp_path / "sweep" / "notes.txt").write_text("mine")
    again = run(*sweep, "--strength", "0.5")
    assert again.exit_code == 2 and "notes.txt" in again.stderr
    assert "strength-0.2-seed-0.png" in names(tmp_path / "sweep")
    succeeded(*sweep, "--strength", "0.5", "--force")
    written = {"strength-0.5-seed-0.png", "sheet.png", "curve.svg", "sweep.json"}
    assert names(tmp_path / "sweep") == written | {"notes.txt"}


def test_an_export_leaves_no_twin_of_a_former_one(concept: Path, tmp_path: Path) -> None:
    """Programs prefer a .safetensors to a .bin beside it."""
    succeeded("concept", "export", str(concept), "-o", "there")
    assert any(name.endswith(".safetensors") for name in names(tmp_path / "there"))
    again = ["concept", "export", str(concept), "-o", "there", "--format", "diffusers-bin"]
    assert run(*again).exit_code == 2
    done = succeeded(*again, "--force", "--json")
    files = {Path(file).name for file in json.loads(done.stdout)["files"]}
    assert names(tmp_path / "there") == files and all(f.endswith(".bin") for f in files)


def test_a_concept_of_adobe_names_the_command_that_imports_it(
    concept: Path, tmp_path: Path
) -> None:
    succeeded("concept", "export", str(concept), "-o", "delta.bin", "--format", "adobe")
    done = run("edit", PICTURE, *PROMPTS, "--concept", "delta.bin")
    assert done.exit_code == 2 and "adobe's delta.bin" in done.stderr
    command = done.stderr.strip().partition("customedit ")[2].split()
    assert command[:3] == ["concept", "import", "delta.bin"]
    succeeded(*command)
    assert set(Concept.load(tmp_path / command[-1]).tokens) == {"<look>"}


def test_a_folder_may_be_new_or_empty(tmp_path: Path) -> None:
    outputs.check_folder(tmp_path / "new" / "deeper", force=False)
    outputs.check_folder(tmp_path, force=False)
    assert not (tmp_path / "new").exists()


def test_a_resumed_folder_may_hold_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    outputs.check_folder(tmp_path, force=False, ours=r"\w\.png", resumable=True)
    with pytest.raises(InputError, match=r"former run; .*--force"):
        outputs.check_folder(tmp_path, force=False, ours=r"\w\.png")
    (tmp_path / "b.txt").touch()
    with pytest.raises(InputError, match=r"such as b\.txt; .*--force"):
        outputs.check_folder(tmp_path, force=False, ours=r"\w\.png", resumable=True)
    outputs.check_folder(tmp_path, force=True, ours=r"\w\.png")
    outputs.remove_former(tmp_path, r"\w\.png")
    assert names(tmp_path) == {"b.txt"}


@pytest.mark.parametrize("path", ["file/out.png", "missing/out.png", ".", "out.gif"])
def test_a_file_that_cannot_be_written_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^out: "):
        outputs.check_file(Path(path), force=True, suffixes=[".png"])
