"""The study: its arithmetic, a quick run that resumes, and the sweep's choice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from customedit.diffusion.base import Base
from customedit.evaluation import study as studies
from customedit.evaluation.arms import ARMS
from customedit.evaluation.measure import Similarities, bundled, plain
from customedit.evaluation.study import Plan, advantage, means, reference_at, study
from customedit.evaluation.sweep import score
from customedit.mini import samples


def _table(arm: str, points: list[tuple[float, float]]) -> studies.Row:
    return {
        (arm, "p2p", float(k)): {"source": x, "reference": y} for k, (x, y) in enumerate(points)
    }  # type: ignore[misc]  # keys of the table


def test_arms_are_compared_at_equal_source_similarity() -> None:
    table = _table("a", [(0.5, 0.9), (0.7, 0.7)]) | _table("b", [(0.6, 0.7), (0.8, 0.5)])
    assert reference_at(table, "a", "p2p", 0.6) == pytest.approx(0.8)  # type: ignore[arg-type]  # as above
    assert reference_at(table, "a", "p2p", 0.8) is None  # type: ignore[arg-type]
    assert advantage(table, "a", "b", "p2p") == pytest.approx(0.1)  # type: ignore[arg-type]
    apart = _table("a", [(0.1, 0.9), (0.2, 0.7)]) | _table("b", [(0.6, 0.7), (0.8, 0.5)])
    assert advantage(apart, "a", "b", "p2p") is None  # type: ignore[arg-type]


def test_means_leave_out_what_was_not_measured() -> None:
    rows = [
        {"arm": "a", "editor": "p2p", "strength": 0.5, "source": s, "reference": s, "text": 0.1,
         "outside_psnr": p, "outside_ssim": 1.0}
        for s, p in ((0.2, 20.0), (0.4, None))
    ]  # fmt: skip
    found = means(rows)[("a", "p2p", 0.5)]
    assert found["source"] == pytest.approx(0.3) and found["outside_psnr"] == 20.0


def test_every_arm_makes_prompts_that_its_edit_takes() -> None:
    base = Base.load()
    for arm in ARMS:
        for source in samples.sources():
            look = samples.looks()[0]
            prompt = arm.target(source, look)
            tokens = base.tokens(prompt, [look.token])
            assert list(tokens.concepts.values()) == [look.token]
            if arm.swap:
                assert len(prompt.split()) == len(source.prompt.split())
            arm.settings(source, look, "p2p", 0.5, 10)


def test_score_wants_both_sides() -> None:
    assert score(Similarities(0.8, 0.1, 0.8)) > score(Similarities(0.99, 0.1, 0.5))
    assert score(Similarities(0.8, 0.5)) > 0 == score(Similarities(-0.1, 0.5, 0.9))


def test_concept_tokens_are_not_shown_to_the_clip() -> None:
    assert plain("a photo of a <plaid> patterned cup") == "a photo of a patterned cup"


def test_a_quick_study_runs_resumes_and_writes_its_page(tmp_path: Path) -> None:
    base, judge = Base.load(), bundled()
    quick = Plan.quick()
    plan = Plan(quick.looks, quick.sources, ARMS[:3] + ARMS[5:6], steps=2, training_steps=1)
    rows = study(base, judge, plan, tmp_path)
    assert len(rows) == 3 * 2 * 4 + 4
    page = (tmp_path / "study.md").read_text()
    assert "| word swap |" in page and (tmp_path / "study-sdedit.svg").read_text().count("<circle")
    kept = tmp_path / "cells" / "Custom-Diffusion-plaid.json"
    changed = json.loads(kept.read_text())
    changed["rows"][0]["source"] = 0.1234
    kept.write_text(json.dumps(changed))
    again = study(base, judge, plan, tmp_path)  # what is kept is not done again
    assert again[0]["source"] == 0.1234 and again[1:] == rows[1:]
    changed["about"]["guidance"] = 2.5
    kept.write_text(json.dumps(changed))
    done = study(base, judge, plan, tmp_path)  # rows of other settings are measured anew
    assert done[0]["source"] == pytest.approx(rows[0]["source"], abs=1e-3)
    assert Image.open(tmp_path / "grids" / "Custom-Diffusion-plaid.png").width == 4 * 128
    assert "(study-plaid.jpg)" in page
    assert Image.open(tmp_path / "study-plaid.jpg").size == (4 * 128, len(plan.arms) * 128)
