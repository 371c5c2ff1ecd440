"""The evaluation measures what it says: colours, intervals, masks, and the fixed prompts."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from customedit import mini
from customedit.mini import (
    captions,
    colours,
    draw,
    evaluate,
    figures,
    heatmaps,
    judge,
    prompts,
    readings,
)
from customedit.mini.scenes import is_held_out, render, sample_scene
from customedit.mini.vocabulary import COLOURS, LOOKS, unknown_words

runner = CliRunner()
app = typer.Typer()
app.command()(evaluate.main)


def test_prompts_are_fixed_distinct_and_kept_out_of_training() -> None:
    found = prompts.fixed_prompts(256)
    assert prompts.fixed_prompts(40) == found[:40]
    assert len({p.text for p in found}) == 256
    assert all(is_held_out(p.scene.noun, p.scene.colour, p.scene.pattern) for p in found)
    assert [p.text for p in found[:2]] == [
        "a photo of a matte blue ball on a green table by a brown wall",
        "a photo of a metal black cup with brown zigzags on a pink table by a pink wall",
    ]


def test_prompts_name_all_that_is_judged_in_known_words() -> None:
    for prompt in prompts.fixed_prompts(256):
        scene = prompt.scene
        assert unknown_words(prompt.text) == []
        assert prompt.text in {captions.full(scene, form) for form in range(3)}
        assert scene.colour not in (scene.wall, scene.table)
        named = [scene.noun, scene.colour, scene.second, scene.wall, scene.table]
        assert all(word in prompt.text.split() for word in named if word)


def test_prompts_for_any_pattern_name_its_colours_and_no_others_are_about() -> None:
    for prompt in prompts.patterned_prompts(40):
        scene = prompt.scene
        assert unknown_words(prompt.text) == []
        assert {"patterned", "pattern"} & set(prompt.text.split())
        said = [w for w in re.findall("[a-z]+", prompt.text) if w in COLOURS]
        assert said == [*scene.colours, scene.table, scene.wall]
        assert not {scene.wall, scene.table} & set(scene.colours)
    assert prompts.patterned_prompts(40)[:7] == prompts.patterned_prompts(7)


def test_colours_of_any_pattern_are_read_on_renders_with_the_bundled_judge() -> None:
    """Every colour is found on most; the last of four may hide behind the thing."""
    chosen = prompts.patterned_prompts(32)
    images = np.stack([render(p.scene).image for p in chosen])
    eye = judge.load(mini.path() / "judge.safetensors")
    rows = {r.name: r.value for r in readings.patterned_rows(eye, images, chosen, "renders")}
    assert rows["any pattern: every colour is there, renders"] >= 0.7
    assert rows["any pattern: pixels in its colours, renders"] >= 0.8
    wrong = [
        prompts.Prompt(p.text, dataclasses.replace(p.scene, colour=p.scene.wall)) for p in chosen
    ]
    lost = {r.name: r.value for r in readings.patterned_rows(eye, images, wrong, "renders")}
    assert lost["any pattern: every colour is there, renders"] <= 0.2


def test_scenes_to_measure_on_are_of_both_kinds() -> None:
    scenes = list(prompts.unseen_scenes(20, 7))
    held = [is_held_out(s.noun, s.colour, s.pattern) for s in scenes]
    assert held == [False, True] * 10
    assert {s.pattern for s in prompts.looks(len(LOOKS), 7)} == set(LOOKS)


def test_colours_are_read_right_on_renders() -> None:
    """What the readings are worth with true masks; the evaluation measures it with the judge's."""
    right: list[bool] = []
    places: list[bool] = []
    for prompt in prompts.fixed_prompts(120):
        scene, picture = prompt.scene, render(prompt.scene)
        mask = picture.alpha.reshape(32, 4, 32, 4).mean((1, 3)) >= 0.5
        named = {scene.colour, scene.second} if scene.pattern == "checkered" else {scene.colour}
        right.append(next(iter(colours.thing_colours(picture.image, mask))) in named)
        places.append(colours.place_colours(picture.image, mask) == (scene.wall, scene.table))
    assert np.mean(right) >= 0.98
    assert np.mean(places) >= 0.98


@pytest.mark.parametrize("name", COLOURS)
def test_every_colour_is_told_apart_in_full_light_and_in_shade(name: str) -> None:
    reflectance = np.array([COLOURS[name]])
    for light in (0.65, 0.8, 0.95):
        (number,) = colours.BODY_SHADES.name(light * reflectance)
        assert list(COLOURS)[number] == name


def test_no_thing_has_no_colour_and_its_places_are_still_read() -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    image[:64], image[64:] = (30, 77, 214), (214, 28, 31)
    nothing, everything = np.zeros((32, 32), bool), np.ones((32, 32), bool)
    assert colours.thing_colours(image, nothing) == {}
    assert colours.place_colours(image, nothing) == ("blue", "red")
    assert colours.place_colours(image, everything) == ("blue", "red")
    shares = colours.thing_colours(image, everything)
    assert shares.keys() == {"blue", "red"}
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(right: int, n: int, low: float, high: float) -> None:
    assert figures.wilson(right, n) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(("right", "n"), [(-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_share(right: int, n: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        figures.wilson(right, n)


def test_rows_know_whether_their_bar_is_met() -> None:
    half = figures.counted("half", [True, False], 0.5, "")
    assert half.met is True and half.value == 0.5 and half.interval == figures.wilson(1, 2)
    assert figures.counted("none", [False], 0.5, "").met is False
    assert figures.averaged("mean", [1.0, 3.0], None, "").met is None
    slow = figures.Row("slow", 5.0, 4.0, 1, None, "", "s", at_most=True)
    assert slow.met is False and slow.show(5) == "5.00 s"
    json.dumps(half.as_dict())
    with pytest.raises(ValueError, match="nothing"):
        figures.averaged("mean", [], None, "")


def test_iou_of_known_masks() -> None:
    a, b = np.zeros((2, 4, 4), bool)
    assert figures.iou(a, b) == 1
    a[:2], b[1:3] = True, True  # rows 0-1 and 1-2
    assert figures.iou(a, b) == pytest.approx(1 / 3)
    assert figures.iou(a, ~a) == 0


def test_psnr_and_retrieval() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert figures.psnr(black, black) == math.inf
    assert figures.psnr(black, black + 255) == 0
    assert figures.psnr(black, black + 51) == pytest.approx(20 * math.log10(5))
    scores = np.array([[3.0, 1.0, 2.0], [0.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
    assert figures.top1(scores) == [True, False, False]  # a tie is no hit


def test_threshold_is_relative_to_each_map() -> None:
    maps = np.array([[[1.0, 0.3], [0.29, 0.0]], [[10.0, 2.0], [3.0, 9.0]]], np.float32)
    assert heatmaps.above(maps, 0.3).tolist() == [
        [[True, True], [False, False]],
        [[True, False], [True, True]],
    ]


def test_maps_come_from_the_noun_and_leave_the_pipeline_as_it_was() -> None:
    pipeline = draw.load(mini.path())
    scenes = [sample_scene(prompts.ATTENTION_SEED + k) for k in range(2)]
    texts = [captions.full(s) for s in scenes]
    position = heatmaps.token_of(pipeline, texts[0], scenes[0].noun)
    assert texts[0].split()[position - 1] == scenes[0].noun
    with pytest.raises(ValueError, match="llama"):
        heatmaps.token_of(pipeline, texts[0], "llama")
    before = pipeline.unet.attn_processors
    images = np.stack([render(s).image for s in scenes])
    maps = heatmaps.noun_maps(pipeline, images, texts, [s.noun for s in scenes], steps=3)
    assert maps.shape == (2, 16, 16)
    assert np.isfinite(maps).all() and (maps >= 0).all() and (maps <= 1).all()
    assert pipeline.unet.attn_processors == before


def test_evaluation_writes_figures_and_sheets(tmp_path: Path) -> None:
    options = ["--prompts", "4", "--steps", "2", "--out", str(tmp_path)]
    result = runner.invoke(app, [*options, "--only", "vae,colours,images,attention,patterned"])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["settings"] == {
        "prompts": 4, "steps": 2, "guidance": draw.GUIDANCE,
        "parts": ["vae", "colours", "attention", "images", "patterned"],
    }  # fmt: skip
    assert len(report["prompts"]) == 4
    bars = {row["name"]: row["bar"] for row in report["rows"]}
    assert bars["object colour right, drawn"] == 0.9
    assert bars["class right, drawn"] == 0.9
    assert bars["pattern right, drawn"] == 0.75
    kinds = {name.rpartition(", ")[2] for name in bars if name.startswith("any pattern")}
    assert kinds == {"true renders", "drawn"}
    sheets = {"sheet.png", "vae.png", "attention.png", "patterned.png"}
    assert {p.name for p in tmp_path.glob("*.png")} == sheets


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    result = runner.invoke(app, ["--only", "vae,nonsense", "--out", str(tmp_path / "new")])
    assert result.exit_code == 2
    assert "nonsense" in result.output
    assert not (tmp_path / "new").exists()
