"""The commands as they are typed: a concept learned, shown and used; errors of one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.main import get_command
from typer.testing import CliRunner

from customedit.cli import app
from customedit.concepts.concept import Concept
from customedit.mini import samples
from customedit.schemas.methods import EXPERTS
from customedit.schemas.requests import EditOptions

SMALL = ["--class-steps", "2", "--crops", "2"]
"""Of a training, in which class images and the references' framings take longer than steps."""


@pytest.fixture(scope="module")
def run() -> CliRunner:
    return CliRunner()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUSTOMEDIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def concept(run: CliRunner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A concept of few steps."""
    out = tmp_path_factory.mktemp("concept") / "look.safetensors"
    references = [str(p) for p in samples.looks()[0].images[:3]]
    done = run.invoke(
        app,
        ["customize", *references, "--noun", samples.looks()[0].noun, "--token", "<look>",
         "--steps", "3", "--class-images", "2", *SMALL, "-o", str(out), "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["images"] == 3
    return out


def test_a_concept_file_is_shown(run: CliRunner, concept: Path) -> None:
    done = run.invoke(app, ["concept", "show", str(concept), "--json"])
    told = json.loads(done.stdout)
    assert told["tokens"] == ["<look>"] and told["images"] == 3 and told["layers"] > 0


def test_a_training_is_seen_while_it_learns(run: CliRunner, tmp_path: Path) -> None:
    look = samples.looks()[0]
    done = run.invoke(
        app,
        ["customize", str(look.images[0]), "--noun", look.noun, "--steps", "3",
         "--class-images", "0", "--crops", "2", "--previews", str(tmp_path / "seen"),
         "--preview-every", "2", "-o", str(tmp_path / "look.safetensors")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert [p.name for p in (tmp_path / "seen").iterdir()] == ["step-00002.png"]
    assert Image.open(tmp_path / "seen" / "step-00002.png").size == (128, 128)


def test_two_looks_are_learned_together(run: CliRunner, tmp_path: Path) -> None:
    first, second = samples.looks()[:2]
    also = f"{second.images[0].parent}:{second.noun}:<second>"
    args = [
        "customize", str(first.images[0].parent), "--noun", first.noun, "--token", "<first>",
        "--steps", "2", "--class-images", "1", *SMALL, "-o", str(tmp_path / "two.safetensors"),
    ]  # fmt: skip
    done = run.invoke(app, [*args, "--also", also, "--json"])
    assert done.exit_code == 0, done.output
    assert set(Concept.load(tmp_path / "two.safetensors").tokens) == {"<first>", "<second>"}
    assert json.loads(done.stdout)["images"] == len(first.images) + len(second.images)
    done = run.invoke(app, [*args, "--also", "somewhere", "--force"])
    assert done.exit_code == 2 and "FOLDER:NOUN:TOKEN" in done.stderr


def test_the_edit_of_the_readme(run: CliRunner, concept: Path, tmp_path: Path) -> None:
    source = next(s for s in samples.sources() if s.noun == "cup")
    out = tmp_path / "out.png"
    done = run.invoke(
        app,
        ["edit", str(source.image), "--source-prompt", "a photo of a cup on a table",
         "--target-prompt", "a photo of a <look> patterned cup on a table",
         "--concept", str(concept), "--steps", "4",
         "--reference", str(samples.looks()[0].images[0]),
         "-o", str(out), "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert Image.open(out).size == (128, 128)
    assert told["region_words"] == told["recipe"]["p2p"]["blend_words"] == ["cup"]
    found = told["similarities"]
    assert all(-1 <= found[k] <= 1 for k in ("source", "reference", "text"))


def test_a_sweep_writes_all_there_is(run: CliRunner, concept: Path, tmp_path: Path) -> None:
    source = samples.sources()[3]
    out = tmp_path / "sweep"
    done = run.invoke(
        app,
        ["sweep", str(source.image), "--source-prompt", source.prompt, "--target-prompt",
         source.target_prompt(samples.looks()[0]).replace(samples.looks()[0].token, "<look>"),
         "--concept", f"{concept}:0.5", "--steps", "3", "--strength", "0.2", "--strength", "0.8",
         "-o", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert {p.name for p in out.iterdir()} == {
        "sheet.png", "curve.svg", "sweep.json",
        "strength-0.2-seed-0.png", "strength-0.8-seed-0.png",
    }  # fmt: skip
    told = json.loads((out / "sweep.json").read_text())
    (used,) = told["recipe"]["concepts"]
    assert used["tokens"] == ["<look>"] and used["weight"] == 0.5
    assert told["best"] in told["edits"]


@pytest.mark.parametrize("command", ["edit", "sweep"])
def test_the_papers_preset_is_enough(command: str, run: CliRunner, tmp_path: Path) -> None:
    source = samples.sources()[3]
    out = tmp_path / ("out.png" if command == "edit" else "sweep")
    done = run.invoke(
        app,
        [command, str(source.image), "--source-prompt", "a photo of a cup on a table",
         "--target-prompt", "a photo of a red cup on a table", "--steps", "2",
         "--preset", "paper", *(["--strength", "0.5"] if command == "sweep" else []),
         "-o", str(out), "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    recipe = json.loads(done.stdout)["recipe"]
    assert (recipe["inversion"], recipe["preserve"]) == ("null-text", False)


def test_a_recipe_is_replayed_to_the_same_pixels(
    run: CliRunner, concept: Path, tmp_path: Path
) -> None:
    source, first, again = samples.sources()[3], tmp_path / "first.png", tmp_path / "again.png"
    done = run.invoke(
        app,
        ["edit", str(source.image), "--source-prompt", "a photo of a cup on a table",
         "--target-prompt", "a photo of a <look> patterned cup on a table", "--concept",
         str(concept), "--steps", "2", "--mask", str(source.mask), "--preserve", "-o", str(first),
         "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    recipe = tmp_path / "recipe.json"
    recipe.write_text(done.stdout)
    replay = ["replay", str(recipe), "--picture", str(source.image), "-o", str(again)]
    done = run.invoke(
        app, [*replay, "--concept", str(concept.parent), "--mask", str(source.mask), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert Image.open(again).tobytes() == Image.open(first).tobytes()
    assert json.loads(done.stdout)["versions_changed"] == {}
    for given, says in (
        (["--mask", str(source.mask)], "concept: <look> of the recipe"),
        (["--concept", str(concept)], "mask: is missing"),
        (["--concept", str(tmp_path)], "holds no .safetensors file"),
    ):
        refused = run.invoke(app, [*replay, *given, "--force"])
        assert refused.exit_code == 2 and says in refused.stderr
    recipe.write_text("[1]")
    refused = run.invoke(app, [*replay, "--force"])
    assert refused.exit_code == 2 and "recipe" in refused.stderr


def test_edit_and_sweep_take_the_options_of_the_request() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]  # of a group
    inputs = {"picture", "out", "concept", "blend_word", "no_blend", "expert", "mask", "region",
              "reference", "clip", "base", "device", "dtype", "force", "as_json"}  # fmt: skip
    own = {
        "edit": inputs | {"strength", "seed", "dino", "lpips"},
        "sweep": inputs,
    }
    left_out = {"edit": {"strengths", "seeds"}, "sweep": {"change"}}
    for name, extra in own.items():
        options = {p.name: p for p in commands[name].params}
        fields = set(EditOptions.model_fields) - set(EXPERTS) - left_out[name]
        assert options.keys() == fields | extra
        assert all(option.help for option in options.values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "nowhere/out.png"], "out: nowhere does not exist"),
        (["-o", "."], "out: . is a folder"),
        (["-o", "out.gif"], "out: out.gif has an unknown suffix"),
        (["--reference", "none"], "reference: none does not exist"),
        (["--clip", "/nowhere"], "clip: /nowhere does not exist"),
        (["--dino", "/nowhere"], "dino: has no references"),
        (["--lpips", "none"], "none"),
        (["--mask", "none.png"], "mask: none.png does not exist"),
        (["--concept", "none"], "concept: none is not a file"),
        (["--steps", "0"], "steps: is 0"),
        (["--change", "0.5", "--strength", "0.5"], "change: is given with strengths"),
        (["--no-blend", "--preserve"], "preserve: needs a region"),
        (["--no-blend", "--blend-word", "cup"], "blend-word: contradicts --no-blend"),
        (["--no-blend", "--mask", str(samples.sources()[3].mask)], "mask: contradicts"),
        (["--blend-word", "jug"], "source_prompt: has no word 'jug'"),
        (
            ["--set", "blend_over=union", "--target-prompt", "a photo of a jug on a table"],
            "p2p.blend_target_words: are missing",
        ),
        (["--method", "sdedit", "--blend-word", "jug"], "source_prompt: has no word 'jug'"),
        (
            ["--method", "sdedit", "--source-prompt", "", "--blend-word", "cup"],
            "source_prompt: is empty, and sdedit.blend_words are read in it",
        ),
        (["--method", "sdedit", "--source-prompt", "", "--preserve"], "preserve: needs a region"),
        (["--method", "pnp", "--set", "laye=0.5"], "set: 'laye=0.5' is no setting of pnp"),
        (["--method", "pnp", "--set", "layer=2"], "pnp.layer: is 2; at most 1"),
        (["--method", "sdedit", "--set", "layer=1"], "set: 'layer=1' is no setting of sdedit"),
        (["--change", "auto"], "change: auto has no references to compare with"),
        (["--change", "much"], "change: is neither a number nor 'auto'"),
        (["--change", "2"], "change: is 2.0; at most 1"),
        (["--preset", "paper", "--inversion", "ddim"], "inversion: contradicts the preset paper"),
        (["--guidance-start", "0.6", "--guidance-end", "0.5"], "guidance_start: is 0.6"),
        (["--method", "sdedit", "--inversion", "ddim"], "inversion: has no effect on sdedit"),
    ],
)
def test_an_edit_is_refused_before_any_work(
    arguments: list[str], says: str, run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from customedit.diffusion.base import Base

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the UNet was called")

    monkeypatch.setattr(Base, "output", forbidden)
    monkeypatch.chdir(tmp_path)
    source = samples.sources()[3]
    done = run.invoke(
        app,
        ["edit", str(source.image), "--source-prompt", "a photo of a cup on a table",
         "--target-prompt", "a photo of a red cup on a table", *arguments],
    )  # fmt: skip
    assert done.exit_code == 2, done.output
    assert says in done.stderr and done.stderr.rstrip().count("\n") == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["edit", "missing.png", "--source-prompt", "a cup", "--target-prompt", "a red cup"],
            "picture: missing.png does not exist",
        ),
        (["customize", "--noun", "cup", "."], "references: . holds no picture"),
        (["concept", "show", "missing"], "concept: missing is not a file"),
        (["models", "check", "./missing"], "base: there is no folder ./missing"),
        (["models", "check", "--dtype", "int8"], "dtype: 'int8'"),
        (["models", "fetch", "mini"], "base: mini is bundled"),
    ],
)
def test_errors_are_one_line_and_name_the_field(
    arguments: list[str], says: str, run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run.invoke(app, arguments)
    assert done.exit_code == 2
    assert says in done.stderr and done.stderr.count("\n") == 1


def test_an_unknown_concept_in_the_prompt(run: CliRunner, tmp_path: Path) -> None:
    picture = str(samples.sources()[0].image)
    done = run.invoke(
        app,
        ["edit", picture, "--source-prompt", "a vase", "--target-prompt", "a <x> vase",
         "-o", str(tmp_path / "o.png")],
    )  # fmt: skip
    assert done.exit_code == 2 and "target_prompt: names <x>" in done.stderr
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize("form", ["diffusers", "diffusers-bin", "adobe"])
def test_out_and_in_again(form: str, run: CliRunner, concept: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back.safetensors"
    done = run.invoke(app, ["concept", "export", str(concept), "--format", form, "-o", str(there)])
    assert done.exit_code == 0, done.output
    done = run.invoke(app, ["concept", "import", str(there), "-o", str(back), "--noun", "cup"])
    assert done.exit_code == 0, done.output
    first, again = Concept.load(concept), Concept.load(back)
    assert first.tokens.keys() == again.tokens.keys() and again.noun == "cup"
    assert all(torch.equal(w, again.weights[n]) for n, w in first.weights.items())


def test_a_lora_is_imported_shown_and_edited_with(run: CliRunner, tmp_path: Path) -> None:
    """As kohya's file, whose name is how prompts name it."""
    name = "lora_unet_mid_block_resnets_0_conv1"
    file, out = tmp_path / "Soft Light.safetensors", tmp_path / "soft.safetensors"
    save_file(
        {
            f"{name}.lora_down.weight": torch.randn(4, 192, 3, 3) * 0.1,
            f"{name}.lora_up.weight": torch.randn(192, 4, 1, 1) * 0.1,
            f"{name}.alpha": torch.tensor(2.0),
        },
        file,
    )
    done = run.invoke(app, ["edit", str(samples.sources()[3].image), "--source-prompt", "a cup",
                            "--target-prompt", "a cup", "--concept", str(file)])  # fmt: skip
    assert done.exit_code == 2
    assert "is a LoRA; convert it: customedit concept import" in done.stderr.replace("\n", " ")
    done = run.invoke(app, ["concept", "import", str(file), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "<soft-light>, LoCon (kohya)" in done.stdout
    assert "1 of 1 layers of the LoRA are used" in done.stdout
    assert "its weights change the base's prediction by" in done.stdout
    told = json.loads(run.invoke(app, ["concept", "show", str(out), "--json"]).stdout)
    assert (told["adapters"], told["columns"]) == (1, {"<soft-light>": 0})
    assert told["digest"] == Concept.load(out).digest
    done = run.invoke(
        app,
        ["edit", str(samples.sources()[3].image), "--source-prompt", "a cup", "--target-prompt",
         "a <soft-light> cup", "--concept", str(out), "--steps", "2", "-o",
         str(tmp_path / "o.png")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output


def test_a_concept_as_kohyas_lora_says_its_error(
    run: CliRunner, concept: Path, tmp_path: Path
) -> None:
    arguments = ["concept", "export", str(concept), "--format", "kohya", "-o", str(tmp_path / "k")]
    done = run.invoke(app, [*arguments, "--rank", "4", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [Path(f).name for f in told["files"]] == ["look-lora.safetensors", "look.safetensors"]
    assert 0 < told["error"] < 1
    done = run.invoke(app, [*arguments, "--force"])
    assert "changes of keys and values off by" in done.stdout


@pytest.mark.parametrize("weight", ["nan", "inf", "1e9", "-1"])
def test_a_concepts_weight_is_bounded(weight: str, run: CliRunner, concept: Path) -> None:
    picture = str(samples.sources()[3].image)
    done = run.invoke(
        app,
        ["edit", picture, "--source-prompt", "a cup", "--target-prompt", "a <look> cup",
         "--concept", f"{concept}:{weight}"],
    )  # fmt: skip
    assert done.exit_code == 2 and "weight" in done.stderr and "0 to 2" in done.stderr


def test_compressed_concepts_say_their_error_and_still_edit(
    run: CliRunner, concept: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.safetensors"
    done = run.invoke(app, ["concept", "compress", str(concept), "--rank", "4", "-o", str(small),
                            "--json"])  # fmt: skip
    told = json.loads(done.stdout)
    assert told["bytes"] < told["of"] / 2 and 0 < told["error"] < 1
    done = run.invoke(
        app,
        ["edit", str(samples.sources()[3].image), "--source-prompt", "a cup", "--target-prompt",
         "a <look> cup", "--concept", str(small), "--steps", "2", "-o", str(tmp_path / "o.png")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output


def test_merged_concepts_know_both_tokens(run: CliRunner, concept: Path, tmp_path: Path) -> None:
    other, both = tmp_path / "other.safetensors", tmp_path / "both.safetensors"
    look = samples.looks()[3]
    done = run.invoke(
        app,
        ["customize", str(look.images[0]), "--noun", look.noun, "--token", "<other>",
         "--steps", "2", "--class-images", "0", "--crops", "2", "-o", str(other)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    done = run.invoke(app, ["concept", "merge", str(concept), str(other), "-o", str(both)])
    assert done.exit_code == 0, done.output
    assert set(Concept.load(both).tokens) == {"<look>", "<other>"}


def test_models_and_doctor(run: CliRunner) -> None:
    assert "mini" in json.loads(run.invoke(app, ["models", "list", "--json"]).stdout)["models"]
    checked = json.loads(run.invoke(app, ["models", "check", "--json"]).stdout)
    assert checked["prediction"] == "v_prediction" and checked["side"] == 128
    healthy = run.invoke(app, ["doctor", "--json"])
    assert healthy.exit_code == 0
    assert json.loads(healthy.stdout)["bundled base"] == "works"
