"""Drawing from the command line: what it refuses, what it warns of, what it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from customedit import mini
from customedit.mini import draw, text

app = typer.Typer()
app.command()(draw.main)
runner = CliRunner()


@pytest.fixture(scope="module")
def words_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that passes for a pipeline until its weights are asked for."""
    folder = tmp_path_factory.mktemp("base")
    text.write_tokenizer(folder / "tokenizer", captions=10)
    (folder / "model_index.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--steps", "0"], "--steps must be 1 to 1000, not 0"),
        (["--steps", "1001"], "--steps must be 1 to 1000, not 1001"),
        (["--guidance", "nan"], "--guidance"),
        (["--guidance", "-1"], "--guidance"),
        (["--count", "0"], "--count must be 1 to 64, not 0"),
        (["--seed", "-1"], "--seed"),
        (["-o", "vase.jpg"], "must end in .png"),
        (["-o", "."], "is a folder"),
        (["-o", "no/such/folder/vase.png"], "there is no folder no/such/folder"),
        (["--weights", "no-base"], "holds no pipeline"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_settings_are_refused_in_one_line(options: list[str], told: str) -> None:
    defaults = [] if "-o" in options else ["-o", "vase.png"]
    result = runner.invoke(app, ["a photo of a vase", *defaults, *options])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and told in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_prompt_over_the_token_limit_is_refused_with_its_count(words_only: Path) -> None:
    fits = " ".join(["cup"] * (text.MAX_TOKENS - 2))
    assert draw.trouble_with_prompt(fits, words_only) is None
    told = draw.trouble_with_prompt(fits + " cup", words_only)
    assert told is not None
    assert str(text.MAX_TOKENS - 1) in told and str(text.MAX_TOKENS - 2) in told


@pytest.mark.parametrize("prompt", ["", "  "])
def test_an_empty_prompt_is_refused(prompt: str, words_only: Path) -> None:
    assert draw.trouble_with_prompt(prompt, words_only) == "the prompt is empty"


def test_settings_are_checked_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; from pathlib import Path; from customedit.mini import draw;"
        "assert draw.trouble_with(Path('a.jpg'), 1, 1.0, 1, 0);"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_grid_keeps_order_and_fills_up_with_white() -> None:
    images = np.stack([np.full((2, 3, 3), k, np.uint8) for k in range(3)])
    sheet = draw.grid(images)
    assert sheet.shape == (4, 6, 3)
    assert [sheet[0, 0, 0], sheet[0, 3, 0], sheet[2, 0, 0], sheet[2, 3, 0]] == [0, 1, 2, 255]
    assert np.array_equal(draw.grid(images[:1]), images[0])


def test_draws_a_grid_and_warns_of_unknown_words(tmp_path: Path) -> None:
    out = tmp_path / "llama.png"
    result = runner.invoke(
        app, ["a photo of a red llama", "-o", str(out), "--steps", "2", "--count", "2"]
    )
    assert result.exit_code == 0
    assert result.stderr == "warning: the base does not know: llama\n"
    assert Image.open(out).size == (256, 128)


def test_an_image_depends_on_its_own_seed_alone() -> None:
    pipeline = draw.load(mini.path())
    ticks: list[None] = []
    three = draw.draw(
        pipeline, ["a photo of a cup"] * 3, [4, 5, 6], steps=2, batch=2,
        on_step=lambda: ticks.append(None),
    )  # fmt: skip
    alone = draw.draw(pipeline, ["a photo of a cup"], [6], steps=2)
    assert len(ticks) == 2 * 2  # two batches of two steps
    assert np.abs(three[2].astype(int) - alone[0]).max() <= 2
    assert np.abs(three[0].astype(int) - three[1]).max() > 20
    with pytest.raises(ValueError):
        draw.draw(pipeline, ["a photo of a cup"], [1, 2])
