"""The CLIP that compares edits is the one that was given, else the one of the base's profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPModel
from typer.testing import CliRunner

from customedit import mini
from customedit.cli import app
from customedit.diffusion.base import Base
from customedit.metrics.similarity import Similarity
from customedit.mini import samples

SOURCE = samples.sources()[3]
REFERENCE = samples.looks()[0].images[0]
PROMPTS = [
    "--source-prompt", "a photo of a cup on a table",
    "--target-prompt", "a photo of a red cup on a table",
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def base_with(folder: Path, clip: str) -> Path:
    """The bundled base whose profile names ``clip``, and no folder ``clip`` of its own."""
    folder.mkdir()
    for path in mini.path().iterdir():
        if path.name not in ("clip", "customedit.json"):
            (folder / path.name).symlink_to(path)
    profile = json.loads((mini.path() / "customedit.json").read_text())
    (folder / "customedit.json").write_text(json.dumps({**profile, "clip": clip}))
    return folder


def other_clip(folder: Path) -> Path:
    """A CLIP that sees pictures otherwise than the bundled one."""
    model = CLIPModel.from_pretrained(mini.path() / "clip", dtype=torch.float32)
    weight = model.visual_projection.weight
    with torch.no_grad():
        weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.1
    model.save_pretrained(folder)
    for path in (mini.path() / "clip").iterdir():
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    return folder


def succeeded(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_auto_is_refused_where_the_profile_names_no_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the UNet was called")

    monkeypatch.setattr(Base, "output", forbidden)
    base = base_with(tmp_path / "base", "")
    done = CliRunner().invoke(
        app,
        ["edit", str(SOURCE.image), *PROMPTS, "--base", str(base), "--change", "auto",
         "--reference", str(REFERENCE)],
    )  # fmt: skip
    assert done.exit_code == 2
    assert "change: auto needs a CLIP, and the base's profile names none" in done.stderr
    assert "give --clip, or a number" in done.stderr


def test_without_a_clip_only_what_is_outside_is_measured(tmp_path: Path) -> None:
    base = base_with(tmp_path / "base", "")
    common = [str(SOURCE.image), *PROMPTS, "--base", str(base), "--steps", "2",
              "--mask", str(SOURCE.mask), "--no-preserve"]  # fmt: skip
    told = succeeded("edit", *common, "--reference", str(REFERENCE))
    found = told["similarities"]
    assert found["source"] is found["text"] is found["reference"] is None
    assert found["outside_psnr"] > 0 and 0 < found["outside_ssim"] <= 1
    assert "names no CLIP" in told["warnings"][-1] and "--clip" in told["warnings"][-1]
    told = succeeded("sweep", *common, "--strength", "0.2", "--strength", "0.8")
    assert told["best"] is None and "no edit is called the best" in told["warnings"][-1]
    assert [row["source"] for row in told["edits"]] == [None, None]
    assert all(row["outside_psnr"] > 0 for row in told["edits"])
    written = {p.name for p in (tmp_path / "sweep").iterdir()}
    assert written == {
        "sheet.png", "sweep.json", "strength-0.2-seed-0.png", "strength-0.8-seed-0.png"
    }  # fmt: skip


@pytest.mark.parametrize("by", ["profile", "option"])
def test_edits_are_compared_by_that_clip_and_not_by_the_bundled_one(
    by: str, tmp_path: Path
) -> None:
    base = base_with(tmp_path / "base", "own-clip" if by == "profile" else "")
    clip = other_clip(base / "own-clip" if by == "profile" else tmp_path / "given")
    common = [str(SOURCE.image), *PROMPTS, "--base", str(base), "--steps", "2",
              *(["--clip", str(clip)] if by == "option" else [])]  # fmt: skip
    told = succeeded("edit", *common)
    source, out = Image.open(SOURCE.image).convert("RGB"), Image.open("edited.png")
    text = "a photo of a red cup on a table"
    judge, bundled = Similarity(clip), Similarity(mini.path() / "clip")
    assert told["similarities"]["source"] == pytest.approx(judge.source(out, source), abs=1e-4)
    assert told["similarities"]["text"] == pytest.approx(judge.text(out, text), abs=1e-4)
    assert abs(told["similarities"]["text"] - bundled.text(out, text)) > 1e-3
    told = succeeded("sweep", *common, "--strength", "0.5")
    out = Image.open(tmp_path / "sweep" / "strength-0.5-seed-0.png")
    assert told["best"]["text"] == pytest.approx(judge.text(out, text), abs=1e-4)
