"""``--region``: where a concept acts, by box and by mask, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from customedit.cli import app, regions
from customedit.concepts.concept import Concept
from customedit.diffusion.base import Base
from customedit.diffusion.text import Weighted
from customedit.errors import InputError
from customedit.mini import samples

PICTURE = str(samples.sources()[3].image)
TARGET = "a photo of a <look> patterned cup on a table"
PROMPTS = ["--source-prompt", "a photo of a cup on a table", "--target-prompt", TARGET]


@pytest.fixture(scope="module")
def concept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A concept of one layer."""
    path = tmp_path_factory.mktemp("concept") / "look.safetensors"
    base = Base.load("mini")
    layer = base.layers[0]
    key, value = (base.weights[f"{layer}.{part}.weight"] * 1.1 for part in ("to_k", "to_v"))
    embedding = torch.ones(base.width) / 50
    Concept({"<look>": embedding}, {layer: key}, {layer: value}, "cup", "patterned").save(path)
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_a_region_is_edited_and_replayed(concept: Path, tmp_path: Path) -> None:
    """By a mask: the recipe has its digest, and wants it again."""
    painted = Image.new("L", (128, 128))
    painted.paste(255, (32, 16, 96, 112))
    painted.save("mask.png")
    region = ["--region", "<look>=mask.png"]
    given = ["--concept", str(concept), *region, "--steps", "2", "--feather", "0"]
    done = run("edit", PICTURE, *PROMPTS, *given, "-o", "first.png", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    (used,) = told["recipe"]["concepts"]
    assert told["region_words"] == [] and used["box"] is None and len(used["mask"]) == 64
    source, edited = (Image.open(p).convert("RGB") for p in (PICTURE, "first.png"))
    outside = Image.eval(painted, lambda level: 255 - level)
    for picture in (source, edited):
        picture.paste("black", mask=Image.eval(outside, lambda level: 255 - level))
    assert source.tobytes() == edited.tobytes()
    Path("recipe.json").write_text(done.stdout)
    again = ["replay", "recipe.json", "--picture", PICTURE, "--concept", str(concept)]
    done = run(*again, *region, "-o", "again.png")
    assert done.exit_code == 0, done.output
    assert Path("again.png").read_bytes() == Path("first.png").read_bytes()
    done = run(*again, "-o", "third.png")
    assert done.exit_code == 2 and "region: of <look> is missing; give the mask" in done.stderr


@pytest.mark.parametrize(
    ("region", "told"),
    [
        (["<look>"], "region: '<look>' is not TOKEN=BOX or TOKEN=FILE; give '<look>=0.1,0.2"),
        (["look=0,0,1,0.5"], "region: 'look=0,0,1,0.5' is not TOKEN=BOX"),
        (["<look>=0.1,0.2,0.6"], "region: of <look> has 3 numbers"),
        (["<look>=0.1,0.2,1.6,0.9"], "region: of <look> is 0.1, 0.2, 1.6, 0.9; give left, top"),
        (["<look>=0.6,0.2,0.1,0.9"], "region: of <look> is 0.6, 0.2, 0.1, 0.9, which has no area"),
        (["<look>=nan,0,1,1"], "region: of <look> is nan, 0, 1, 1"),
        (["<look>=0,0,1,1"], "region: of <look> is the whole picture"),
        (["<look>=missing.png"], "region: missing.png does not exist"),
        (["<look>=0,0,1,0.5", "<look>=0,0,0.5,1"], "region: of <look> is given twice"),
        (["<other>=0,0,1,0.5"], "region: of <other> has no effect: the target prompt does not"),
        (["<look>=half.png"], "region: half.png is 64 x 128 pixels, an aspect of 0.500"),
        (["<look>=black.png"], "region: black.png is black everywhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_region_is_one_line(
    region: list[str], told: str, concept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the base is loaded."""

    def forbidden(*_: object) -> None:
        raise AssertionError("the base is loaded")

    monkeypatch.setattr("customedit.cli.console.load_base", forbidden)
    Image.new("L", (128, 128)).save("black.png")
    half = Image.new("L", (64, 128))
    half.paste(255, (0, 0, 32, 128))
    half.save("half.png")
    given = [word for text in region for word in ("--region", text)]
    done = run("edit", PICTURE, *PROMPTS, "--concept", str(concept), *given)
    assert done.exit_code == 2 and len(done.stderr.strip().splitlines()) == 1
    assert f"error: {told}" in done.stderr


def test_a_plans_refusal_names_the_option(concept: Path) -> None:
    given = ["--concept", str(concept), "--region", "<look>=0.5,0.5,0.51,0.52"]
    done = run("edit", PICTURE, *PROMPTS, *given)
    assert done.exit_code == 2
    assert (
        "error: region: of <look> fills half of no latent cell, of which the picture has 16 x 16"
        in (done.stderr)
    )


def test_regions_go_to_the_concepts_of_their_tokens(concept: Path) -> None:
    found = regions.read_regions(["<look>=0,0,0.5,1"], (128, 128))
    entry = Weighted(Concept.load(concept), 0.5)
    (placed,) = regions.placed([entry], found)
    assert placed.region is found["<look>"] and placed.weight == 0.5
    assert regions.placed([entry], {}) == [entry]
    with pytest.raises(
        InputError, match=r"region: is of <a>, no --concept has that token \(<look>"
    ):
        regions.placed([entry], regions.read_regions(["<a>=0,0,0.5,1"], (128, 128)))
