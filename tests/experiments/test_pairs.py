"""Pairs of edits with a concept and without: what a row says, how rows are counted and kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image

from customedit.concepts.concept import Concept
from customedit.diffusion.base import Base
from customedit.editing.editor import Editor
from customedit.editing.sweep import measure_edit
from customedit.experiments import pairs
from customedit.experiments.variants import true_mask
from customedit.metrics.similarity import Similarities, bundled
from customedit.mini import samples
from customedit.schemas.methods import P2POptions

STEPS = 2
PLAID, *_ = samples.looks()
CUP, JAR = samples.sources()[:2]


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


def seen(reference: float, outside_psnr: float | None = None) -> Similarities:
    return Similarities(source=0.5, text=0.25, reference=reference, outside_psnr=outside_psnr)


def row(nearer: bool, outside: float | None, reference: float) -> dict[str, Any]:
    found = seen(reference, outside_psnr=outside)
    plain = seen(reference - 0.1 if nearer else reference + 0.1)
    return pairs.row_of(PLAID, CUP, found, plain)


def test_the_edit_without_the_concept_has_the_attribute_word_alone() -> None:
    for source in samples.sources():
        target = source.target_prompt(PLAID)
        assert f"{PLAID.token} {PLAID.attribute} " in target
        assert pairs.without(target, PLAID) == source.look_prompt.format(look=PLAID.attribute)


@pytest.mark.parametrize(
    ("found", "plain", "nearer"),
    [(0.6, 0.5, True), (0.5, 0.6, False), (0.5, 0.5, False), (-0.2, -0.3, True)],
)
def test_a_pair_is_nearer_if_the_concept_brings_the_references_nearer(
    found: float, plain: float, nearer: bool
) -> None:
    made = pairs.row_of(PLAID, CUP, seen(found), seen(plain))
    assert made["nearer"] is nearer
    assert (made["look"], made["source"]) == (PLAID.name, CUP.name)
    assert made["with"]["reference"] == found and made["without"]["reference"] == plain


def test_the_summary_counts_pairs_and_leaves_out_what_was_not_measured() -> None:
    rows = [row(True, 24.9, 0.8), row(True, 25.0, 0.6), row(False, 31.0, 0.4), row(True, None, 0.2)]
    assert pairs.summary(rows) == {
        "pairs": 4,
        "nearer_with_concept": 0.75,
        "outside_psnr_mean": pytest.approx((24.9 + 25 + 31) / 3, abs=1e-4),
        "outside_psnr_least": 24.9,
        "outside_25_db_or_more": 2,
        "reference_with": 0.5,
        "reference_without": pytest.approx((0.7 + 0.5 + 0.5 + 0.1) / 4),
        "source_with": 0.5,
        "text_with": 0.25,
    }


def test_a_mean_of_nothing_is_null() -> None:
    told = pairs.summary([row(True, None, 0.8)])
    assert told["outside_psnr_mean"] is None and told["outside_psnr_least"] is None
    json.dumps(told, allow_nan=False)


def made_up(base: Base) -> Concept:
    """A concept that nobody trained."""
    generator = torch.Generator().manual_seed(3)
    return Concept({PLAID.token: torch.randn(base.width, generator=generator) * 0.05})


def test_rows_are_what_single_edits_measure(base: Base, tmp_path: Path) -> None:
    concept, judge, keep = made_up(base), bundled(), tmp_path / "inversions"
    rows, pictures = pairs.compare(base, judge, PLAID, concept, [JAR], steps=STEPS, keep=keep)
    assert [r["source"] for r in rows] == [JAR.name]
    assert [p.plan.target_prompt for p in pictures] == [JAR.target_prompt(PLAID)]
    assert len(list(keep.iterdir())) == 1  # both edits of a pair use it
    references = [Image.open(p).convert("RGB") for p in PLAID.images]
    session = Editor(base, inversions=keep).open(Image.open(JAR.image), JAR.prompt)
    target = JAR.target_prompt(PLAID)
    for prompt, concepts, part in (
        (target, [concept], "with"),
        (pairs.without(target, PLAID), [], "without"),
    ):
        alone = session.edit(
            prompt, concepts=concepts, steps=STEPS, preserve=False,
            p2p=P2POptions(blend_words=[JAR.noun]),
        )  # fmt: skip
        measured = measure_edit(judge, alone, references, true_mask(JAR)).similarities.as_dict()
        assert rows[0][part] == pytest.approx(measured, abs=2e-3)
    assert rows[0]["with"] != rows[0]["without"]


def test_pairs_are_kept_and_measured_anew_under_other_settings(base: Base, tmp_path: Path) -> None:
    made_up(base).save(tmp_path / f"{pairs.lesson_of(base, PLAID, 1).stem(base)}.safetensors")

    def run(steps: int = STEPS) -> dict[str, Any]:
        pairs.main(tmp_path, looks=PLAID.name, sources=1, steps=steps, training_steps=1)
        found: dict[str, Any] = json.loads((tmp_path / "pairs.json").read_text())
        return found

    first = run()
    assert first["steps"] == STEPS and first["summary"] == pairs.summary(first["rows"])
    assert [(r["look"], r["source"]) for r in first["rows"]] == [(PLAID.name, CUP.name)]
    (file,) = (f for f in tmp_path.glob("plaid-*.json"))
    changed = json.loads(file.read_text())
    changed["rows"][0]["with"]["reference"] = 0.1234
    file.write_text(json.dumps(changed))
    assert run()["rows"] == changed["rows"]
    assert run(STEPS + 1)["rows"] != changed["rows"]
    assert len(list(tmp_path.glob("plaid-*.safetensors"))) == 1  # kept, not trained anew


def test_what_decides_the_rows_is_all_in_their_name(base: Base) -> None:
    judge, lesson = bundled(), pairs.lesson_of(base, PLAID, 1)
    one = pairs.about_look(base, judge, lesson, [CUP], STEPS)
    assert one == pairs.about_look(base, judge, pairs.lesson_of(base, PLAID, 1), [CUP], STEPS)
    others = [
        pairs.about_look(base, judge, lesson, [JAR], STEPS),
        pairs.about_look(base, judge, lesson, [CUP], STEPS + 1),
        pairs.about_look(base, judge, pairs.lesson_of(base, PLAID, 2), [CUP], STEPS),
        pairs.about_look(
            base, judge, lesson, [dataclasses.replace(CUP, prompt="a photo of a cup")], STEPS
        ),
    ]
    assert one not in others
    json.dumps(one, allow_nan=False)


@pytest.mark.parametrize("looks", ["plaidd", "plaid,nothing", ""])
def test_an_unknown_look_is_named_before_any_work(tmp_path: Path, looks: str) -> None:
    wrong = looks.split(",")[-1]
    with pytest.raises(typer.BadParameter, match=f"{wrong!r}.*known are.*plaid"):
        pairs.main(tmp_path / "out", looks=looks, sources=1, steps=1, training_steps=1)
    assert not (tmp_path / "out").exists()
