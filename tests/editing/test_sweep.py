"""What of several edits is the best, and what shows them side by side."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customedit.diffusion.base import Base
from customedit.editing.edit import Drawing, EditResult
from customedit.editing.editor import Editor
from customedit.editing.plan import EditPlan
from customedit.editing.sweep import MeasuredEdit, best, contact_sheet, curve, measure_edit, score
from customedit.metrics.similarity import Similarities, bundled, outside

shares = st.floats(0.01, 1)


@pytest.fixture(scope="module")
def plan(base: Base, picture: Image.Image) -> EditPlan:
    (plan,) = Editor(base).open(picture, "a photo of a cup").plan("a photo of a red cup", steps=2)
    return plan


def edit(plan: EditPlan, similarities: Similarities, strength: float = 0.5) -> MeasuredEdit:
    picture = Image.new("RGB", (32, 32), (int(255 * strength), 0, 0))
    source = Image.new("RGB", (32, 32), "white")
    plan = plan.model_copy(update={"strength": strength})
    drawing = Drawing(picture, torch.zeros(1, 4, 4, 4))
    return MeasuredEdit(EditResult(picture, source, None, drawing, plan), similarities)


@given(shares, shares)
def test_the_score_is_the_harmonic_mean_of_source_and_reference(a: float, b: float) -> None:
    assert score(Similarities(a, 0.1, b)) == pytest.approx(2 / (1 / a + 1 / b))
    assert score(Similarities(a, b)) == score(Similarities(a, 0.1, b))  # text without references


@pytest.mark.parametrize("pair", [(-0.1, 0.9), (0.9, -0.1), (0.0, 0.9), (0.9, 0.0), (-0.5, -0.5)])
def test_an_edit_that_misses_one_side_has_no_score(pair: tuple[float, float]) -> None:
    assert score(Similarities(pair[0], 0.5, pair[1])) == 0


def test_the_best_neither_forgets_the_source_nor_misses_the_look(plan: EditPlan) -> None:
    def chosen(*pairs: tuple[float, float]) -> int:
        edits = [edit(plan, Similarities(a, 0.1, b)) for a, b in pairs]
        return edits.index(best(edits))

    assert chosen((0.99, 0.50), (0.74, 0.74), (0.50, 0.99)) == 1  # the sum would be the first's
    assert chosen((0.5, 0.5), (0.6, 0.5)) == 1
    assert chosen((0.8, 0.4), (0.4, 0.8)) == 0  # among equals the first
    assert chosen((0.9, 0.9), (-1.0, -1.0)) == 0  # whose mean would be -1, its product 1


def test_the_sheet_frames_the_best_and_the_curve_has_every_edit(plan: EditPlan) -> None:
    edits = [
        edit(plan, Similarities(0.9, 0.2, 0.4), 0.2),
        edit(plan, Similarities(0.8, 0.2, 0.8), 0.4),
        edit(plan, Similarities(0.3, 0.2, 0.9), 0.6),
    ]
    sheet = contact_sheet(edits)
    width = sheet.width // 4
    frames = [sheet.getpixel((k * width + 2, 20)) == (30, 140, 60) for k in range(4)]
    assert frames == [False, False, True, False]  # the source, then the edits
    picture = curve(edits)
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert all(label in picture for label in (">0.2<", ">0.4<", ">0.6<", "reference similarity"))


def test_edits_are_measured_against_the_picture_that_was_given(plan: EditPlan) -> None:
    result = edit(plan, Similarities(0, 0)).result
    mask = torch.zeros(32, 32)
    mask[:, :16] = 1
    half: Any = result.source.copy()
    half.paste((0, 0, 0), (0, 0, 16, 32))
    result = EditResult(half, result.source, mask, result.drawing, plan)
    measured = measure_edit(bundled(), result).similarities
    assert measured.as_dict()["outside_psnr"] is None  # equal pixels: infinite
    assert outside(half, result.source, None) == {"outside_psnr": None, "outside_ssim": None}
    assert (measure_edit(bundled(), result, region=1 - mask).similarities.outside_psnr or 0) < 1
