"""Comparing ways to train: paired, resumed, and told as a table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.errors import InputError
from customedit.experiments import recipes
from customedit.experiments.lookbench.editor import Recipe
from customedit.experiments.recipes import VARIANTS, Search, chosen_variants, compared, search
from customedit.metrics.lookbench.dataset import RenderedBench, SeveralClasses, bundled
from customedit.metrics.lookbench.measures import Measures
from customedit.metrics.lookbench.scores import KINDS, Row, bundled_judge


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


def few(looks: list[str], sources: int) -> RenderedBench:
    bench = bundled("small").select(looks, sources)
    assert isinstance(bench, RenderedBench)
    return bench


def test_every_variant_is_one_that_can_be_trained(base: Base) -> None:
    common = Recipe(steps=25, strength=0.7, preserve=False)
    seen = set()
    for variant in VARIANTS:
        recipe = variant.recipe(base, common)  # refuses what cannot be edited
        settings = TrainingSettings.of(base, **recipe.training)
        edits = {k: v for k, v in recipe.about().items() if k != "training"}
        seen.add((settings, variant.several, json.dumps(edits)))
    assert len(seen) == len(VARIANTS)
    half = chosen_variants(["half the rate"])[1]
    assert half.training(base, 9) == {"recipe": "paper", "steps": 9, "rate": 1e-4}
    with pytest.raises(InputError, match="variant: 'magic' is unknown; take one of paper,"):
        chosen_variants(["magic"])


def test_variants_that_edit_differently_share_the_training(base: Base) -> None:
    common = Recipe(steps=25, strength=0.7, preserve=False)
    found = {
        v.name: v.recipe(base, common, 9)
        for v in chosen_variants(
            ["guidance 2.5", "token columns, guidance 2.5", "pnp", "change 0.7"]
        )
    }
    paper = found.pop("paper")
    token = found.pop("token columns, guidance 2.5")
    assert token.training == {**paper.training, "columns": "token"} and token.guidance == 2.5
    assert all(recipe.training == paper.training for recipe in found.values())
    assert found["guidance 2.5"] == dataclasses.replace(paper, guidance=2.5)
    # a strength is of its method, and says what a change says
    assert found["pnp"] == dataclasses.replace(paper, method="pnp", strength=None)
    assert found["change 0.7"] == dataclasses.replace(paper, change=0.7, strength=None)
    with pytest.raises(InputError, match="change: is given with strengths"):
        dataclasses.replace(paper, change=0.7)
    with pytest.raises(InputError, match="change: has to be a number here"):
        Recipe(change="auto")  # type: ignore[arg-type]  # what a caller may get wrong


def test_references_of_several_classes_are_right_answers_on_others() -> None:
    plain = few(["plaid"], 2)
    bench, look = SeveralClasses(plain), plain.looks[0]
    pictures, nouns = bench.references(look), bench.nouns(look)
    assert len(pictures) == len(nouns) == 5 and len(set(nouns)) >= 3
    assert np.array_equal(pictures[2], plain.answer(look, plain.tuning[0]))
    assert not {s.name for s in plain.tuning} & {s.name for s in plain.sources}
    assert plain.nouns(look) == () and bench.identity() != plain.identity()
    more = SeveralClasses(few(["plaid", "waves"], 4))  # goes on with what is kept of the smaller
    assert more.identity() == bench.identity() == more.select(["waves"], 1).identity()


def test_differences_are_of_the_same_draws() -> None:
    """A variant that is better by one number everywhere is so with no doubt at all."""
    bench = few(["plaid", "waves"], 4)

    def rows(more: float) -> list[Row]:
        out = []
        for number, (look, source) in enumerate(bench.pairs):
            for kind in KINDS:
                for seed in range(2 if kind == "edit" else 1):
                    at = np.random.default_rng([number, seed]).normal(30, 8)
                    ring = float(at + more if kind == "edit" else at)
                    measures = Measures(float(20 + number), 5.0, 3.0, ring, ring, 0.9, True)
                    out.append(Row(kind, look.name, source.name, seed, measures))
        return out

    found = compared(bench, 2, {"paper": rows(0.0), "other": rows(0.25)})
    above = found[1].above["ring"]
    assert above.value == pytest.approx(0.25) and above.verdict == "above"
    assert above.low == pytest.approx(0.25) and above.high == pytest.approx(0.25)
    assert found[1].figures["ring"].high - found[1].figures["ring"].low > 1
    assert found[1].above["iou"].verdict == "undecided"


def with_one_class_image(base: Base) -> Base:
    """``base`` whose trainings draw one class image in two steps, where nothing else is said."""
    training = base.profile.training
    defaults = training.custom_diffusion.model_copy(update={"class_images": 1, "class_steps": 2})
    training = training.model_copy(update={"custom_diffusion": defaults})
    profile = base.profile.model_copy(update={"training": training})
    return dataclasses.replace(base, profile=profile)


def test_a_search_resumes_and_reports(base: Base, tmp_path: Path) -> None:
    base, bench = with_one_class_image(base), few(["waves"], 1)
    edits = Recipe(steps=2)
    of = Search(base, bench, tmp_path, seeds=1, steps=1, edits=edits)
    variants = chosen_variants(["contained, several classes"])
    quiet = Console(quiet=True)
    search(of, variants, quiet)
    told = json.loads((tmp_path / "recipes.json").read_text())
    assert set(told["variants"]) == {"paper", "contained, several classes"}
    assert told["recipes"]["paper"]["training"] == {"recipe": "paper", "steps": 1}
    assert "verdict" in told["variants"]["paper"]["ring"]["above_paper"]
    lines = (tmp_path / "recipes.md").read_text().splitlines()
    assert lines[2].startswith("| variant | gap closed |") and len(lines) == 6
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")}
    assert search(of, variants, quiet)[1].as_dict() == told["variants"][variants[1].name]
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")}
    assert recipes.FIGURES[0][0] == "gap"


def test_rows_of_another_judge_are_measured_again(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = Search(base, few(["waves"], 1), tmp_path, seeds=1, steps=1, edits=Recipe(steps=2))
    (paper,) = chosen_variants(["paper"])
    quiet, judge = Console(quiet=True), bundled_judge()

    def files() -> int:
        return len(list(tmp_path.glob("run-*/rows-*.json")))

    of.rows(paper, judge, quiet)
    of.rows(paper, judge, quiet)
    assert files() == 1
    monkeypatch.setattr(recipes, "digest_of_judge", lambda: "of another")
    of.rows(paper, judge, quiet)
    assert files() == 2
    monkeypatch.setattr(recipes, "ROWS", recipes.ROWS + 1)
    of.rows(paper, judge, quiet)
    assert files() == 3
