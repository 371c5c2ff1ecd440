"""Every command with every kind of bad input: one line, exit status 2, no traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from customedit.cli import app
from customedit.concepts.concept import Concept
from customedit.diffusion.base import Base
from customedit.mini import samples

PICTURE = str(samples.sources()[0].image)
PROMPTS = ["--source-prompt", "a cup", "--target-prompt", "a red cup", "--steps", "1"]

CUSTOMIZE = ["customize", PICTURE, "--noun", "cup"]

COMMANDS: dict[str, list[str]] = {
    "edit picture": ["edit", "{bad}", *PROMPTS],
    "edit concept": ["edit", PICTURE, *PROMPTS, "--concept", "{bad}"],
    "edit concept weight": ["edit", PICTURE, *PROMPTS, "--concept", "{bad}:0.5"],
    "edit mask": ["edit", PICTURE, *PROMPTS, "--mask", "{bad}"],
    "edit reference": ["edit", PICTURE, *PROMPTS, "--reference", "{bad}"],
    "edit lpips": ["edit", PICTURE, *PROMPTS, "--lpips", "{bad}"],
    "edit clip": ["edit", PICTURE, *PROMPTS, "--clip", "{bad}"],
    "edit dino": ["edit", PICTURE, *PROMPTS, "--reference", PICTURE, "--dino", "{bad}"],
    "edit base": ["edit", PICTURE, *PROMPTS, "--base", "{bad}"],
    "sweep picture": ["sweep", "{bad}", *PROMPTS],
    "sweep concept": ["sweep", PICTURE, *PROMPTS, "--concept", "{bad}"],
    "sweep mask": ["sweep", PICTURE, *PROMPTS, "--mask", "{bad}"],
    "sweep reference": ["sweep", PICTURE, *PROMPTS, "--reference", "{bad}"],
    "sweep clip": ["sweep", PICTURE, *PROMPTS, "--clip", "{bad}"],
    "sweep base": ["sweep", PICTURE, *PROMPTS, "--base", "{bad}"],
    "customize references": ["customize", "{bad}", "--noun", "cup"],
    "customize also": [*CUSTOMIZE, "--also", "{bad}:jug:<second>"],
    "customize base": ["customize", PICTURE, "--noun", "cup", "--base", "{bad}"],
    "concept show": ["concept", "show", "{bad}"],
    "concept import": ["concept", "import", "{bad}", "-o", "{out}"],
    "concept export": ["concept", "export", "{bad}", "-o", "{out}"],
    "concept compress": ["concept", "compress", "{bad}", "-o", "{out}"],
    "concept merge": ["concept", "merge", "{bad}", "{bad}", "-o", "{out}"],
    "concept import base": ["concept", "import", "{concept}", "-o", "{out}", "--base", "{bad}"],
    "concept show base": ["concept", "show", "{concept}", "--base", "{bad}"],
    "models check": ["models", "check", "{bad}"],
    "models fetch": ["models", "fetch", "{bad}"],
    "replay": ["replay", "{bad}", "--picture", PICTURE],
    "replay picture": ["replay", "{recipe}", "--picture", "{bad}"],
    "replay concept": ["replay", "{recipe}", "--picture", PICTURE, "--concept", "{bad}"],
    "replay mask": ["replay", "{recipe}", "--picture", PICTURE, "--mask", "{bad}"],
    "replay base": ["replay", "{recipe}", "--picture", PICTURE, "--base", "{bad}"],
}
"""A command line for each file that a command reads.

{bad}: that file; {out}: a file to write; {concept}, {recipe}: good ones.
"""


def empty(folder: Path) -> Path:
    (folder / "empty.png").touch()
    return folder / "empty.png"


def text(folder: Path) -> Path:
    (folder / "words.txt").write_text("no picture, no concept, no base\n")
    return folder / "words.txt"


def noise(folder: Path) -> Path:
    (folder / "noise.safetensors").write_bytes(bytes(range(256)) * 40)
    return folder / "noise.safetensors"


def stranger(folder: Path) -> Path:
    """A safetensors file that is no concept."""
    save_file({"weight": torch.ones(3, 3)}, folder / "other.safetensors")
    return folder / "other.safetensors"


def cut_picture(folder: Path) -> Path:
    (folder / "cut.png").write_bytes(Path(PICTURE).read_bytes()[:200])
    return folder / "cut.png"


def page(folder: Path) -> Path:
    (folder / "page.bin").write_text("<!DOCTYPE html><html><body>404 not found</body></html>")
    return folder / "page.bin"


def a_folder(folder: Path) -> Path:
    (folder / "folder").mkdir()
    return folder / "folder"


def a_base_without_parts(folder: Path) -> Path:
    (folder / "base").mkdir()
    (folder / "base" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return folder / "base"


def a_broken_index(folder: Path) -> Path:
    (folder / "base").mkdir()
    (folder / "base" / "model_index.json").write_text("{")
    return folder / "base"


def unreadable(folder: Path) -> Path:
    """A link that leads to itself: no one, not even root, can open it."""
    os.symlink(folder / "loop", folder / "loop")
    return folder / "loop"


BAD: list[Callable[[Path], Path]] = [
    lambda folder: folder / "missing.png",
    lambda folder: folder / "no" / "such" / "folder" / "x.safetensors",
    lambda folder: folder / ("x" * 300),
    empty, text, noise, stranger, cut_picture, page, a_folder, a_base_without_parts,
    a_broken_index, unreadable,
]  # fmt: skip
NAMES = ["missing", "missing folder", "long name", *(f.__name__ for f in BAD[3:])]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CUSTOMEDIT_TRACEBACK", raising=False)
    # The hub's client has read HF_HUB_OFFLINE when it was imported, perhaps by an earlier test.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def no_work(good: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals come before any work: neither UNet nor training is run."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(Base, "output", forbidden)
    monkeypatch.setattr("customedit.concepts.training.build_datasets", forbidden)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A concept of one layer, and the recipe of an edit."""
    folder = tmp_path_factory.mktemp("good")
    base = Base.load("mini")
    layer = base.layers[0]
    weights = [base.weights[f"{layer}.{part}.weight"] for part in ("to_k", "to_v")]
    key, value = (w + 0.01 * torch.ones_like(w) for w in weights)
    concept = Concept({"<look>": torch.ones(base.width)}, {layer: key}, {layer: value}, "cup")
    concept.save(folder / "look.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUSTOMEDIT_CACHE", str(folder / "cache"))
        edited = CliRunner().invoke(
            app, ["edit", PICTURE, *PROMPTS, "-o", str(folder / "edited.png"), "--json"]
        )
    assert edited.exit_code == 0, edited.output
    (folder / "recipe.json").write_text(edited.stdout)
    return {"concept": folder / "look.safetensors", "recipe": folder / "recipe.json"}


def refused(result: Result) -> None:
    """One line that says what is wrong, and status 2."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.stderr and "fault of the program" not in result.stderr


@pytest.mark.parametrize("kind", BAD, ids=NAMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_file_is_one_line(
    command: str, kind: Callable[[Path], Path], good: dict[str, Path], tmp_path: Path
) -> None:
    bad = kind(tmp_path)
    before = sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts)
    out = tmp_path / "out.safetensors"
    arguments = [a.format(bad=bad, out=out, **good) for a in COMMANDS[command]]
    refused(CliRunner().invoke(app, arguments))
    assert sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["edit", PICTURE, *PROMPTS, "--device", "tpu"],
        ["edit", PICTURE, *PROMPTS, "--device", "cuda:99"],
        ["edit", PICTURE, *PROMPTS, "--dtype", "int8"],
        ["edit", PICTURE, *PROMPTS, "--method", "magic"],
        ["edit", PICTURE, *PROMPTS, "--inversion", "magic"],
        ["edit", PICTURE, *PROMPTS, "--strength", "2"],
        ["edit", PICTURE, *PROMPTS, "--strength", "nan"],
        ["edit", PICTURE, *PROMPTS, "--guidance", "inf"],
        ["edit", PICTURE, *PROMPTS, "--guidance", "-1"],
        ["edit", PICTURE, *PROMPTS, "--seed", "-1"],
        ["edit", PICTURE, "--source-prompt", "a cup", "--target-prompt", "x", "--steps", "0"],
        ["edit", PICTURE, "--source-prompt", "a cup", "--target-prompt", "x", "--steps", "9999"],
        ["edit", PICTURE, "--source-prompt", "a cup", "--target-prompt", ""],
        ["edit", PICTURE, "--source-prompt", "a cup", "--target-prompt", "word " * 200],
        ["edit", PICTURE, "--source-prompt", "a cup", "--target-prompt", "a <look> cup"],
        ["edit", PICTURE, *PROMPTS, "-o", "."],
        ["edit", PICTURE, *PROMPTS, "-o", "missing/x.png"],
        ["edit", PICTURE, *PROMPTS, "-o", "x.xyz"],
        ["sweep", PICTURE, *PROMPTS, "--strength", "7"],
        ["sweep", PICTURE, *PROMPTS, "--seed", "1", "--seed", "2"],
        ["sweep", PICTURE, *PROMPTS, "-o", PICTURE],
        ["edit", PICTURE, *PROMPTS, "--dino", "x"],
        ["edit", PICTURE, *PROMPTS, "--concept", "{concept}:3"],
        ["edit", PICTURE, *PROMPTS, "--concept", "{concept}:nan"],
        ["edit", PICTURE, *PROMPTS, "--concept", "{concept}"],
        ["edit", PICTURE, *PROMPTS, "-o", "{concept}/x.png"],
        ["sweep", PICTURE, *PROMPTS, "-o", "{concept}/x"],
        ["customize", PICTURE, "--noun", ""],
        ["customize", PICTURE, "--noun", "cup", "--attribute", "?"],
        ["customize", PICTURE, "--noun", "cup", "--token", "look"],
        ["customize", PICTURE, "--noun", "cup", "--steps", "0"],
        ["customize", PICTURE, "--noun", "cup", "--rate", "nan"],
        ["customize", PICTURE, "--noun", "cup", "--also", "somewhere"],
        ["customize", PICTURE, "--noun", "cup", "--also", PICTURE + ":jug:<look>"],
        ["customize", PICTURE, "--noun", "cup", "--preview-every", "3"],
        ["customize", PICTURE, "--noun", "cup", "--previews", PICTURE],
        ["customize", PICTURE, "--noun", "cup", "--checkpoint", PICTURE],
        ["customize", PICTURE, "--noun", "cup", "--checkpoint", "."],
        ["customize", PICTURE, "--noun", "cup", "--checkpoint", "missing/x"],
        ["customize", PICTURE, "--noun", "cup", "-o", "."],
        ["customize", PICTURE, "--noun", "cup", "-o", "missing/x.safetensors"],
        ["customize", PICTURE, "--noun", "cup", "-o", "look.png"],
        ["customize", PICTURE, "--noun", "cup", "--device", "abacus"],
        ["customize", *[PICTURE] * 21, "--noun", "cup"],
        ["concept", "import", "{concept}", "-o", "x.safetensors", "--token", "look"],
        ["concept", "import", "{concept}", "-o", "x.safetensors", "--noun", "?"],
        ["concept", "import", "{concept}", "-o", "x.safetensors", "--rename", "a"],
        ["concept", "import", "{concept}", "-o", "x.safetensors", "--rename", "<a>=<b>"],
        ["concept", "import", "{concept}", "-o", "x.txt"],
        ["concept", "export", "{concept}", "-o", "x", "--format", "onnx"],
        ["concept", "export", "{concept}", "-o", "x", "--rank", "4"],
        ["concept", "export", "{concept}", "-o", "{concept}"],
        ["concept", "export", "{concept}", "-o", ".", "--format", "adobe"],
        ["concept", "compress", "{concept}", "-o", "x.safetensors", "--keep", "7"],
        ["concept", "compress", "{concept}", "-o", "x.safetensors", "--rank", "0"],
        ["concept", "compress", "{concept}", "-o", "x.safetensors", "--rank", "2", "--keep", "1"],
        ["concept", "merge", "{concept}", "-o", "x.safetensors"],
        ["concept", "merge", "{concept}", "{concept}", "-o", "x.safetensors"],
        ["concept", "merge", "{concept}", "{concept}", "-o", "."],
        ["replay", "{recipe}", "--picture", PICTURE, "-o", "x.xyz"],
        ["replay", "{recipe}", "--picture", PICTURE, "-o", "missing/x.png"],
        ["replay", "{recipe}", "--picture", str(samples.sources()[1].image)],
        ["study", "-o", PICTURE],
        ["study", "--page", "missing/page.md"],
        ["study", "--page", "page.html"],
        ["lookbench", "run", "-o", PICTURE],
        ["lookbench", "export", PICTURE],
        ["lookbench", "score", PICTURE],
        ["models", "fetch", "mini"],
        ["models", "fetch", "no-such-organisation/no-such-model"],
        ["models", "fetch", "no-such-organisation/no-such-model", "--to", PICTURE],
        ["models", "check", "no-such-organisation/no-such-model"],
        ["serve", "--data", PICTURE],
        ["demo", "--out", PICTURE],
        ["no-such-command"],
        ["edit", "--no-such-option"],
    ],
    ids=lambda a: " ".join(a)[-60:],
)
def test_a_bad_value_is_one_line(
    arguments: list[str], good: dict[str, Path], tmp_path: Path
) -> None:
    before = sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts)
    refused(CliRunner().invoke(app, [a.format(**good) for a in arguments]))
    assert sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts) == before


def test_errors_are_json_where_json_is_asked_for(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["edit", "missing.png", *PROMPTS, "--json"])
    assert result.exit_code == 2 and result.stderr == ""
    error = json.loads(result.stdout)["error"]
    assert error["field"] == "picture" and "missing.png" in error["message"]


def test_the_version_and_both_spellings_of_help() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("customedit ")
    for spelling in ("-h", "--help"):
        for command in ([], ["edit"], ["concept", "import"]):
            assert CliRunner().invoke(app, [*command, spelling]).exit_code == 0
