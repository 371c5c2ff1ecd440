"""The study: its arithmetic, and a quick run that resumes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.editing.region_words import ConceptWords
from customedit.editing.settings import check_request
from customedit.experiments.comparison import advantage, means, reference_at
from customedit.experiments.report import Table
from customedit.experiments.result_cache import Lesson, Row
from customedit.experiments.study import study
from customedit.experiments.variants import VARIANTS, Plan
from customedit.images.layout import tiled
from customedit.metrics.curves import Line, Point, plot
from customedit.metrics.similarity import bundled, plain
from customedit.mini import samples


def _table(variant: str, points: list[tuple[float, float]]) -> Table:
    return {
        (variant, "p2p", float(k)): {"source": x, "reference": y} for k, (x, y) in enumerate(points)
    }


def test_arms_are_compared_at_equal_source_similarity() -> None:
    table = _table("a", [(0.5, 0.9), (0.7, 0.7)]) | _table("b", [(0.6, 0.7), (0.8, 0.5)])
    assert reference_at(table, "a", "p2p", 0.6) == pytest.approx(0.8)
    assert reference_at(table, "a", "p2p", 0.8) is None
    assert advantage(table, "a", "b", "p2p") == pytest.approx(0.1)
    apart = _table("a", [(0.1, 0.9), (0.2, 0.7)]) | _table("b", [(0.6, 0.7), (0.8, 0.5)])
    assert advantage(apart, "a", "b", "p2p") is None


def test_means_leave_out_what_was_not_measured() -> None:
    rows = [
        {"variant": "a", "editor": "p2p", "strength": 0.5, "source": s, "reference": s, "text": 0.1,
         "outside_psnr": p, "outside_ssim": 1.0}
        for s, p in ((0.2, 20.0), (0.4, None))
    ]  # fmt: skip
    found = means(rows)[("a", "p2p", 0.5)]
    assert found["source"] == pytest.approx(0.3) and found["outside_psnr"] == 20.0


def test_every_arm_makes_prompts_that_its_edit_takes() -> None:
    base = Base.load()
    for variant in VARIANTS:
        for source in samples.sources():
            look = samples.looks()[0]
            prompt = variant.target(source, look)
            tokens = base.tokens(prompt, [look.token])
            assert list(tokens.concepts.values()) == [look.token]
            if variant.swap:
                assert len(prompt.split()) == len(source.prompt.split())
            options = variant.options(source, look, "p2p", 0.5, 10)
            words = ConceptWords((look.token,), look.noun, look.attribute)
            checked = check_request(options, [words]).p2p
            assert checked is not None and checked.blend_words == (source.noun,)


def test_concept_tokens_are_not_shown_to_the_clip() -> None:
    assert plain("a photo of a <plaid> patterned cup") == "a photo of a patterned cup"


def test_a_quick_study_runs_resumes_and_writes_its_page(tmp_path: Path) -> None:
    base, judge = Base.load(), bundled()
    quick = Plan.quick()
    plan = Plan(quick.looks, quick.sources, VARIANTS[:3] + VARIANTS[5:6], steps=2, training_steps=1)
    told: list[str] = []

    def again(plan: Plan) -> list[Row]:
        told.clear()
        return study(base, judge, plan, tmp_path, on_cell=lambda *cell: told.append(cell[2]))

    rows = again(plan)
    assert len(rows) == 3 * 2 * 4 + 4
    assert rows[0]["picture"] == plan.sources[0].name and isinstance(rows[0]["source"], float)
    assert told == [
        "Custom Diffusion, plaid: trained, edits drawn",
        "DreamBooth, plaid: trained, edits drawn",
        "Textual Inversion, plaid: trained, edits drawn",
        "word swap, plaid: concept kept, edits drawn",  # the first variant's
    ]
    page = (tmp_path / "study.md").read_text()
    assert "| word swap |" in page and (tmp_path / "study-sdedit.svg").read_text().count("<use")
    assert "(study-plaid.jpg)" in page
    assert Image.open(tmp_path / "study-plaid.jpg").size == (4 * 128, len(plan.variants) * 128)
    (grid,) = (tmp_path / "grids").glob("Custom-Diffusion-plaid-*.png")
    assert Image.open(grid).width == 4 * 128

    (cell,) = (tmp_path / "cells").glob("Custom-Diffusion-plaid-*.json")
    changed = json.loads(cell.read_text())
    changed["rows"][0]["source"] = 0.1234
    cell.write_text(json.dumps(changed))
    kept = again(plan)  # what is kept is not done again
    assert kept[0]["source"] == 0.1234 and kept[1:] == rows[1:]
    assert all(line.endswith(": kept") for line in told)

    other = again(dataclasses.replace(plan, steps=3))  # other edits with the same concepts
    assert other[0]["source"] != 0.1234 and len(other) == len(rows)
    assert all(line.endswith(": concept kept, edits drawn") for line in told)
    again(dataclasses.replace(plan, training_steps=2))  # DreamBooth is trained anew, not refused
    assert [line.split(": ")[1] for line in told[:3]] == ["trained, edits drawn"] * 3
    assert again(plan)[0]["source"] == 0.1234  # the old cells stayed


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


def test_tiles_keep_their_order_on_white() -> None:
    tiles = [Image.new("RGB", (3, 2), (k, k, k)) for k in range(3)] + [Image.new("RGB", (2, 2))]
    sheet = tiled([*tiles, tiles[1]], 2)
    assert sheet.size == (6, 6)
    seen = [sheet.getpixel(at) for at in ((0, 0), (3, 0), (0, 2), (3, 2), (5, 2), (0, 4), (3, 4))]
    assert [p[0] for p in seen] == [0, 1, 2, 0, 255, 1, 255]  # type: ignore[index]  # of RGB
    with pytest.raises(ValueError, match="0 tiles"):
        tiled([], 2)
