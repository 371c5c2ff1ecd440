"""Options of commands that are made from request models."""

from __future__ import annotations

import re
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from customedit.cli.command_errors import Commands
from customedit.cli.options import Options, model_options
from customedit.schemas.concepts import ConceptWords, TrainingOptions
from customedit.schemas.requests import EditOptions

RUN = CliRunner(env={"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"})
seen: list[object] = []
app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)


@app.command()
@model_options(training=TrainingOptions, words=ConceptWords)
def train(
    training: TrainingOptions,
    words: ConceptWords,
    out: Annotated[str, typer.Option(help="Its own option.")] = "x",
) -> None:
    """Train."""
    seen.extend((training, words, out))


@app.command()
@model_options(options=Options(EditOptions, names={"strengths": "--strength", "seeds": "--seed"}))
def edit(options: EditOptions) -> None:
    """Edit."""
    seen.append(options)


@app.command("both")
@model_options(
    options=Options(EditOptions, leave_out=("strengths", "seeds")),
    training=Options(TrainingOptions, names={"steps": "--training-steps"}),
)
def both_command(options: EditOptions, training: TrainingOptions) -> None:
    """Train and edit."""
    seen.extend((options, training))


@pytest.fixture(autouse=True)
def forget() -> None:
    seen.clear()


def run(*args: str) -> str:
    done = RUN.invoke(app, list(args))
    return f"{done.exit_code} {done.output}"


def test_what_is_not_given_has_the_models_default() -> None:
    assert run("train", "--noun", "cup") == "0 "
    assert seen == [TrainingOptions(), ConceptWords(noun="cup"), "x"]


def test_values_arrive_in_the_model() -> None:
    given = ["--noun", "cup", "--attribute", "", "--steps", "7", "--no-augment-crops", "--out", "y"]
    assert run("train", *given, "--way", "textual-inversion") == "0 "
    training = TrainingOptions(steps=7, augment_crops=False, way="textual-inversion")
    assert seen == [training, ConceptWords(noun="cup", attribute=""), "y"]


def test_lists_are_repeated_under_a_name_of_their_own() -> None:
    given = ["--source-prompt", "a cup", "--target-prompt", "a red cup", "--preserve"]
    assert run("edit", *given, "--strength", "0.2", "--strength", "0.4", "--seed", "3") == "0 "
    assert seen == [
        EditOptions(
            source_prompt="a cup",
            target_prompt="a red cup",
            preserve=True,
            strengths=[0.2, 0.4],
            seeds=[3],
        )
    ]


def test_two_models_may_have_a_field_of_one_name() -> None:
    prompts = ["--source-prompt", "a cup", "--target-prompt", "a red cup"]
    assert run("both", *prompts, "--training-steps", "7", "--steps", "9") == "0 "
    edits, training = seen
    assert isinstance(edits, EditOptions) and isinstance(training, TrainingOptions)
    assert (edits.steps, training.steps) == (9, 7)
    assert "training-steps: is 0; at least 1" in run("both", *prompts, "--training-steps", "0")
    assert "error: steps: is 0; at least 1" in run("both", *prompts, "--steps", "0")


def test_a_preset_sets_what_is_not_given() -> None:
    given = ["--source-prompt", "a cup", "--target-prompt", "a red cup", "--preset", "paper"]
    assert run("edit", *given) == "0 "
    (options,) = seen
    assert isinstance(options, EditOptions)
    assert (options.inversion, options.preserve) == ("null-text", False)
    told = "2 error: inversion: contradicts the preset paper; null-text, or no preset\n"
    assert run("edit", *given, "--inversion", "direct") == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--steps", "0"], "error: steps: is 0; at least 1"),
        (["--rate", "nan"], "error: rate: Input should be a finite number"),
        (["--way", "dreambooth"], "error: way: is not one of 'custom-diffusion', 'textual"),
        (["--token", "<A"], "error: token: is not a token such as <look>"),
        (["--noun", "?"], "error: noun: is not words of letters"),
    ],
)
def test_the_model_refuses_in_one_line(given: list[str], told: str) -> None:
    said = run("train", "--noun", "cup", *given)
    assert said.startswith(f"2 {told}") and said.count("\n") == 1
    assert not seen


def test_rules_over_several_fields_hold_as_well() -> None:
    told = "2 error: source_prompt: is empty; p2p needs the picture in words\n"
    assert run("edit", "--target-prompt", "a cup") == told


def test_help_has_descriptions_limits_choices_and_defaults() -> None:
    text = re.sub(r"\s+", " ", run("train", "--help"))
    fields = TrainingOptions.model_fields | ConceptWords.model_fields
    for name, field in fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert (field.description or "?").removesuffix(".").replace("`", "") in text
    assert "(1 to 20000)" in text and "custom-diffusion|textual-inversion" in text
    assert "[default: patterned]" in text and "Its own option." in text
    assert "p2p" not in re.findall(r"--([\w-]+)", run("edit", "--help"))  # a model has no option
