"""The study: its arithmetic, and a quick run that resumes."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.editing.region_words import ConceptWords
from customedit.editing.settings import check_request
from customedit.errors import InputError
from customedit.experiments.cells import Cell, Cells, Outcome, best_strength, distance_at
from customedit.experiments.comparison import Comparison, advantage
from customedit.experiments.report import verdict
from customedit.experiments.result_cache import Lesson, Row
from customedit.experiments.study import Study, study
from customedit.experiments.variants import RARE, VARIANTS, Plan, Training, Variant
from customedit.images.layout import LINE, MARGIN, labelled
from customedit.metrics.curves import Line, Point, plot
from customedit.metrics.lookbench import dataset
from customedit.metrics.lookbench.looks import Look
from customedit.metrics.lookbench.sources import Source
from customedit.metrics.similarity import bundled, plain
from customedit.mini import samples


def _rows(
    variant: str, curve: Sequence[tuple[float, float, float]], seeds: Sequence[int] = (0, 1)
) -> list[Row]:
    """Rows of two looks on two sources: (source, reference, distance) at strengths 0, 1, ..."""
    return [
        {"variant": variant, "editor": "p2p", "look": look, "picture": picture, "seed": seed,
         "strength": float(k), "source": x, "reference": y, "distance": d, "text": None}
        for k, (x, y, d) in enumerate(curve)
        for look in ("plaid", "waves")
        for picture in ("cup", "jar")
        for seed in seeds
    ]  # fmt: skip


def _comparison(rows: Sequence[Row]) -> Comparison:
    nothing, copies = np.full((2, 2, 1), 40.0), np.full((2, 2, 1), 20.0)
    names = ["plaid", "waves"]
    return Comparison(rows, names, ["cup", "jar"], names, nothing, copies)


def test_variants_are_compared_at_equal_source_similarity() -> None:
    up = np.array
    a, b = ([0.5, 0.7], [0.9, 0.7]), ([0.6, 0.8], [0.7, 0.5])
    assert advantage(up(a[0]), up(a[1]), up(b[0]), up(b[1])) == pytest.approx(0.1)
    # points in any order: strengths need not raise the similarity
    assert advantage(up([0.7, 0.5]), up([0.7, 0.9]), up(b[0]), up(b[1])) == pytest.approx(0.1)
    assert advantage(up([0.1, 0.2]), up([0.9, 0.7]), up(b[0]), up(b[1])) is None

    rows = _rows("a", [(0.5, 0.9, 30), (0.7, 0.7, 25)]) + _rows(
        "b", [(0.6, 0.7, 30), (0.8, 0.5, 40)]
    )
    found = _comparison(rows)
    equal = found.at_equal_source("a", "b", "p2p")
    assert equal is not None and equal.verdict == "above"
    assert (equal.low, equal.value, equal.high) == pytest.approx((0.1, 0.1, 0.1))
    best = found.at_best("a", "b", "p2p", {("a", "p2p"): 1.0, ("b", "p2p"): 0.0})
    assert best.value == pytest.approx(0.75 - 0.5)  # of the gap from 40 to 20
    apart = _comparison(rows + _rows("c", [(0.1, 0.9, 30), (0.2, 0.8, 30)]))
    assert apart.at_equal_source("a", "c", "p2p") is None


def test_a_difference_that_changes_its_sign_between_looks_is_undecided() -> None:
    rows = _rows("a", [(0.5, 0.9, 30), (0.7, 0.7, 30)]) + _rows(
        "b", [(0.5, 0.9, 30), (0.7, 0.7, 30)]
    )
    for row in rows:
        if row["variant"] == "b":
            row["reference"] += 0.1 if row["look"] == "plaid" else -0.1
            row["distance"] += 5 if row["look"] == "plaid" else -5
    found = _comparison(rows)
    equal = found.at_equal_source("a", "b", "p2p")
    assert equal is not None and equal.low < 0 < equal.high and verdict(equal) == "undecided"
    best = found.at_best("a", "b", "p2p", {("a", "p2p"): 0.0, ("b", "p2p"): 0.0})
    assert verdict(best) == "undecided" and verdict(None) == "undecided"


def test_words_without_a_training_are_compared_with_all_seeds() -> None:
    rows = _rows("a", [(0.5, 0.9, 30)]) + _rows("words", [(0.5, 0.5, 35)], seeds=[0])
    found = _comparison(rows)
    best = found.at_best("a", "words", "p2p", {("a", "p2p"): 0.0, ("words", "p2p"): 0.0})
    assert best.value == pytest.approx(0.25)
    with pytest.raises(ValueError, match="2 of 3"):
        _comparison(rows + _rows("b", [(0.5, 0.5, 35)], seeds=[0, 1, 2])).means(
            ("a", "p2p", 0.0), "distance"
        )


def test_words_that_are_drawn_by_chance_have_its_intervals() -> None:
    """One seed would stand for all; with each of them the interval is as wide as they differ."""
    rows = _rows("a", [(0.5, 0.9, 30)], seeds=range(4))
    for seed in range(4):
        rows += _rows("words", [(0.5, 0.5, 34 + seed)], seeds=[seed])
    several = _comparison(rows).estimate(("words", "p2p", 0.0), "distance")
    assert several.value == pytest.approx(35.5) and several.high - several.low > 0.5
    one = _comparison([r for r in rows if r["variant"] == "a" or r["seed"] == 0])
    assert one.estimate(("words", "p2p", 0.0), "distance").high == pytest.approx(34)


class Ready(Cells):
    """Cells of which nothing is run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan


def test_only_what_is_drawn_by_chance_is_drawn_again_without_a_training() -> None:
    plan = dataclasses.replace(Plan.of(looks=["plaid"]), seeds=(3, 4, 5))
    running = Study(Ready(plan), plan)
    for variant in plan.variants:
        runs = running.runs(variant)
        assert list(runs) == [3, 4, 5] and runs[3] == variant
        again = ("sdedit",) if variant.words is not None else variant.editors
        assert all(runs[seed].editors == again for seed in (4, 5))
    certain = dataclasses.replace(VARIANTS[4], editors=("p2p", "masactrl"))
    assert certain.words is not None and running.runs(certain) == {3: certain}


def test_the_best_strength_is_nearest_to_the_right_answers() -> None:
    rows = _rows("a", [(0.5, 0.9, 30), (0.7, 0.7, 25), (0.8, 0.6, 27)])
    assert best_strength(rows) == 1.0 and distance_at(rows, 1.0) == 25


def test_every_variant_makes_prompts_that_its_edit_takes() -> None:
    base, bench = Base.load(), dataset.bundled("public")
    for variant in VARIANTS:
        for source in bench.sources:
            look = bench.looks[0]
            wording = look.words[0] if variant.words is not None else ""
            prompt = variant.target(source, look, wording)
            tokens = base.tokens(prompt, [look.token])
            wanted = [] if variant.words is not None else [look.token]
            assert list(tokens.concepts.values()) == wanted
            if variant.swap:
                assert len(prompt.split()) == len(source.prompt.split())
            options = variant.options(source, look, "p2p", 0.5, 10, wording=wording)
            words = [ConceptWords((look.token,), look.noun, look.attribute)] if wanted else []
            checked = check_request(options, words).p2p
            assert checked is not None and checked.blend_words == (source.noun,)


def test_every_budget_is_one_that_trains() -> None:
    base, plan = Base.load(), Plan.of()
    for variant in VARIANTS:
        for budget in variant.budgets:
            training = plan.training_of(variant, budget, base.profile.recipe)
            settings = TrainingSettings.of(base, **training)
            assert settings.way == variant.way and settings.recipe == "paper"
    dreambooth = VARIANTS[1]
    rates = sorted({budget["rate"] for budget in dreambooth.budgets})
    own = TrainingSettings.of(base, way="dreambooth").rate
    assert rates[0] < own < rates[-1] and own in rates  # its best is not at the grid's edge
    # DreamBooth's identifier is one token, which no caption of the base's training has
    assert len(base.tokenizer(RARE, add_special_tokens=False).input_ids) == 1
    assert RARE not in " ".join(base.profile.captions).split()


def test_the_papers_recipe_is_taken_whatever_the_bases_own_is() -> None:
    base = Base.load()
    profile = base.profile.model_copy(update={"recipe": "contained"})
    base = dataclasses.replace(base, profile=profile)
    for plan in (Plan.of(), Plan.quick()):
        made = {
            v.name: TrainingSettings.of(base, **plan.training_of(v, {}, base.profile.recipe))
            for v in plan.variants
            if v.words is None
        }
        assert {name for name, s in made.items() if s.recipe != "paper"} == {"default recipe"}
        assert made["default recipe"].columns == "token"
        assert made["Custom Diffusion"].columns == "prompt"


class Choosing(Cells):
    """Cells that draw nothing: the second budget of each variant is the best."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.ran = plan, list[Cell]()

    def best_budget(self, variant: Variant) -> Training:
        return variant.budgets[1]

    def wording(self, variant: Variant, look: Look) -> str:
        return "" if variant.words is None else look.words[0]

    def run(self, cell: Cell, sources: Sequence[Source]) -> Outcome:
        self.ran.append(cell)
        return Outcome([], Path(), True)

    def strengths(
        self, variant: Variant, budget: Training, wordings: Sequence[str]
    ) -> dict[str, float]:
        return {}


def test_ablations_take_the_budget_of_the_first_variant() -> None:
    cells = Choosing(Plan.of(looks=["plaid"], seeds=1))
    Study(cells, cells.plan).run()
    budgets = {cell.variant.name: dict(cell.budget) for cell in cells.ran}
    first = budgets["Custom Diffusion"]
    assert first == {"steps": 400} and set(budgets) == {v.name for v in VARIANTS}
    for variant in VARIANTS:
        chosen = dict(variant.budgets[1]) if variant.budgets else first
        assert budgets[variant.name] == chosen, variant.name
    ablations = {v.name for v in VARIANTS if not v.budgets and v.words is None}
    assert ablations == {
        "no augmented prompt", "no prior preservation", "word swap", "union mask",
        "DDIM inversion", "negative-prompt inversion", "null-text inversion",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "field"),
    [({"variants": ["nonsense"]}, "variant"), ({"looks": ["nonsense"]}, "look"),
     ({"sources": 25}, "sources")],
)  # fmt: skip
def test_sizes_that_there_are_not_are_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as error:
        Plan.of(**change)
    assert error.value.field == field


def test_concept_tokens_are_not_shown_to_the_clip() -> None:
    assert plain("a photo of a <plaid> patterned cup") == "a photo of a patterned cup"


@pytest.mark.timeout(900)
def test_a_quick_study_runs_resumes_and_writes_its_page(tmp_path: Path) -> None:
    base, judge = Base.load(), bundled()
    quick = Plan.quick()
    bench = quick.bench.select(["plaid"])
    bench.tuning = bench.tuning[:1]
    bench.looks = (dataclasses.replace(bench.looks[0], words=bench.looks[0].words[:2]),)
    named = {variant.name: variant for variant in VARIANTS}
    names = ("Custom Diffusion", "DreamBooth", "best words", "word swap")
    variants = tuple(
        dataclasses.replace(named[name], strengths=(0.2, 0.8), budgets=named[name].budgets[:2])
        for name in names
    )
    plan = dataclasses.replace(
        quick,
        bench=bench,
        variants=variants,
        steps=2,
        training={**quick.training, "steps": 1},  # type: ignore[dict-item]
    )
    told: list[str] = []

    def again(plan: Plan) -> list[Row]:
        told.clear()
        return study(base, judge, plan, tmp_path, on_cell=lambda *cell: told.append(cell[2]))

    rows = again(plan)
    # strengths x editors x seeds; words have as many by the editor that draws noise
    assert len(rows) == 2 * (2 * 2 + 2 * 2 + 2 + 1 + 1 * 2)
    drawn = {(r["editor"], r["seed"]) for r in rows if r["variant"] == "best words"}
    assert drawn == {("p2p", 0), ("sdedit", 0), ("sdedit", 1)}
    assert rows[0]["picture"] == bench.sources[0].name and isinstance(rows[0]["distance"], float)
    assert told[0] == "Custom Diffusion, plaid, seed 0: drawn" and len(told) == 2 + 2 + 2 + 2
    report = json.loads((tmp_path / "study.json").read_text())
    assert report["rows"] == rows and len(report["best_strengths"]) == 2 + 2 + 2 + 1
    tried = json.loads((tmp_path / "budgets" / "DreamBooth.json").read_text())["tried"]
    assert [budget for budget, _ in tried] == [dict(budget) for budget in variants[1].budgets]
    assert [f["variant"] for f in report["findings"]] == ["DreamBooth"] * 2 + ["best words"] * 2 + [
        "word swap"
    ]
    tuned = {source.name for source in bench.tuning}
    assert tuned.isdisjoint(row["picture"] for row in rows)
    assert (
        json.loads((tmp_path / "words" / "plaid.json").read_text())["chosen"]
        in bench.looks[0].words
    )
    page = (tmp_path / "study.md").read_text()
    assert "| word swap |" in page and (tmp_path / "study-sdedit.svg").read_text().count("<use")
    assert "(study-plaid.jpg)" in page and "1 looks x 1 sources x 2 training seeds" in page
    width, height = Image.open(tmp_path / "study-plaid.jpg").size
    assert width > 2 * 128 and height > len(variants) * 128  # with their names

    (cell, *_) = (tmp_path / "cells").glob("Custom-Diffusion-plaid-0-*.json")
    changed = json.loads(cell.read_text())
    changed["rows"][0]["source"] = 0.1234
    cells = [*(tmp_path / "cells").glob("*.json")]
    cell.write_text(json.dumps(changed))
    again(plan)  # what is kept is not done again
    assert all(line.endswith(": kept") for line in told)
    assert sorted((tmp_path / "cells").glob("*.json")) == sorted(cells)

    again(dataclasses.replace(plan, variants=variants[:1], seeds=(0, 1, 2)))  # goes on
    assert [line.rsplit(": ")[1] for line in told] == ["kept", "kept", "drawn"]


def test_a_sheet_has_a_row_of_each_variant_and_a_picture_of_each_strength(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = dataset.bundled("small").select(["waves"], 1)
    variants = (Variant("many", strengths=(0.2, 0.4, 0.6)), Variant("few", strengths=(0.4, 0.8)))
    running = Study(None, Plan(bench, (0,), variants))  # type: ignore[arg-type]  # no cell is run
    told: list[Sequence[str]] = []
    for variant, shade in zip(variants, (10, 90), strict=True):
        kept = Image.new("RGB", (32 * len(variant.strengths), 64), (shade,) * 3)
        kept.paste((250, 0, 0), (0, 32, kept.width, 64))  # the second source: not shown
        kept.save(tmp_path / f"{variant.name}.png")
        running.sheets["waves"].append(tmp_path / f"{variant.name}.png")

    def watched(tile: Image.Image, lines: Sequence[str]) -> Image.Image:
        told.append(lines)
        return labelled(tile, lines)

    monkeypatch.setattr("customedit.experiments.study.labelled", watched)
    pixels = np.asarray(running.sheet("waves"))
    wide, high = 32 + 2 * MARGIN, 32 + 2 * MARGIN + 2 * LINE
    assert pixels.shape == (2 * high, 3 * wide, 3)
    middles = pixels[MARGIN + 16 :: high, MARGIN + 16 :: wide, 0]
    assert middles.tolist() == [[10, 10, 10], [90, 90, 255]]  # white where there is none
    assert told == [
        [variant.name, f"strength {strength:g}"]
        for variant in variants
        for strength in variant.strengths
    ]


def test_what_is_kept_is_named_by_all_that_made_it() -> None:
    base, (look, other) = Base.load(), samples.looks()[:2]
    prompts = ConceptPrompts(look.token, look.noun, look.attribute)
    lesson = Lesson("a look", look.images, prompts, TrainingSettings.of(base))
    stem = lesson.stem(base)
    assert stem.startswith("a-look-") and stem == dataclasses.replace(lesson).stem(base)
    changes = [
        {"images": look.images[:4]},
        {"images": (*look.images[:4], other.images[0])},
        {"prompts": dataclasses.replace(prompts, attribute="")},
        {"settings": dataclasses.replace(lesson.settings, seed=1)},
    ]
    others = {dataclasses.replace(lesson, **change).stem(base) for change in changes}  # type: ignore[arg-type]  # of several types
    assert len(others) == len(changes) and stem not in others
    half = Base.load(dtype=torch.bfloat16)
    assert half.fingerprint == base.fingerprint and lesson.stem(half) != stem
    assert lesson.about(half) == {**lesson.about(base), "dtype": "torch.bfloat16"}
    assert "dtype" not in lesson.about(base)  # files from before dtypes were told are found


def test_curves_place_points_and_name_lines() -> None:
    lines = [
        Line((Point(0.0, 0.0, "low & first"), Point(1.0, 1.0)), "a <b>"),
        Line((Point(0.5, 0.5),), "c"),
    ]
    picture = plot(lines, "across", "up")
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    for text in ("low &amp; first", "a &lt;b&gt;", ">c<", ">across<", ">up<", ">0.6<"):
        assert text in picture
    marks = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill', picture)
    (x0, y0), (x1, y1), (x2, y2) = [(float(x), float(y)) for x, y in marks[:3]]  # then the legend's
    assert x0 < x2 < x1 and y1 < y2 < y0  # upwards is less
    assert (x0 + x1) / 2 == pytest.approx(x2, abs=0.1)
    assert plot(lines, "across", "up") == picture
    with pytest.raises(ValueError, match="without points"):
        plot([], "across", "up")
