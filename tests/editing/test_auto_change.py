"""``change: "auto"``: the rule on made-up curves, and whole edits by it."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from customedit.diffusion.base import Base
from customedit.editing.auto_change import choose
from customedit.editing.editor import Editor
from customedit.editing.plan import EditPlan
from customedit.errors import InputError
from customedit.jobs.records import JobRecord, cost_of
from customedit.metrics.similarity import bundled
from customedit.mini import samples
from customedit.schemas.change import AUTO_CHANGES

SOURCE, TARGET = "a photo of a cup on a table", "a photo of a red cup on a table"


@pytest.mark.parametrize(
    ("source", "reference", "chosen"),
    [
        ([0.9, 0.8, 0.7, 0.6], [0.2, 0.5, 0.52, 0.53], 0.4),  # the look is there at once
        ([0.95, 0.9, 0.88, 0.4], [0.15, 0.2, 0.5, 0.5], 0.6),  # it comes late
        ([0.9, 0.8, 0.7, 0.6], [0.1, 0.1, 0.105, 0.1], 0.4),  # it never comes: nearest to 1/2
        ([1.0, 1.0, 1.0, 1.0], [0.1, 0.1, 0.1, 0.1], 0.4),  # nothing changes
        ([0.8, 0.8, 0.8, 0.6], [0.5, 0.5, 0.5, 0.5], 0.2),  # equals: the smaller
    ],
)
def test_the_rule(source: list[float], reference: list[float], chosen: float) -> None:
    values = [0.2, 0.4, 0.6, 1.0]
    scores, best = choose(values, source, reference, 0.1)
    assert best == chosen
    for s, r, score in zip(source, reference, scores, strict=True):
        lost, gained = 1 - min(source), max(reference) - 0.1
        kept, near = ((s - min(source)) / lost, (r - 0.1) / gained) if any(scores) else (0, 0)
        assert score == pytest.approx(2 * kept * near / (kept + near) if kept + near else 0)


def test_patches_cover_the_picture_in_order(picture: Image.Image) -> None:
    judge = bundled()
    flipped = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    seen = judge.patches([picture, flipped, picture.resize((300, 200))])
    assert seen.ndim == 4 and seen.shape[1] == seen.shape[2]
    assert torch.allclose(seen.norm(dim=-1), torch.ones(seen.shape[:3]), atol=1e-5)
    same = (seen[0] * seen[0]).sum(-1)
    assert torch.allclose(same, torch.ones_like(same), atol=1e-5)
    left, right = seen[0][:, :2], seen[0][:, -2:]
    mirrored = seen[1].flip(1)  # the same places of the thing
    assert (mirrored[:, :2] * left).sum(-1).mean() > (mirrored[:, :2] * right).sum(-1).mean()


def test_an_edit_by_auto_is_one_of_the_sweep_and_replays(base: Base, picture: Image.Image) -> None:
    session = Editor(base).open(picture, SOURCE)
    references = [Image.open(path) for path in samples.looks()[0].images[:2]]
    result = session.edit(TARGET, change="auto", references=references, steps=3)
    curve = result.plan.auto
    assert curve is not None and curve.values == AUTO_CHANGES
    assert result.plan.change == curve.chosen
    assert len(curve.source) == len(curve.reference) == len(curve.score) == len(AUTO_CHANGES)
    assert all(-1 <= v <= 1 for v in (*curve.source, *curve.reference))
    plain = session.edit(TARGET, change=curve.chosen, steps=3)
    assert (plain.drawing.latents - result.drawing.latents).abs().max() <= 1e-4
    plan = EditPlan.read(json.loads(json.dumps(result.plan.as_json())))
    assert plan == result.plan
    again = Editor(base).replay(plan, picture)
    assert (again.drawing.latents - result.drawing.latents).abs().max() <= 1e-4


def test_auto_needs_references_and_one_seed(base: Base, picture: Image.Image) -> None:
    session = Editor(base).open(picture, SOURCE)
    with pytest.raises(InputError, match="change: auto has no references"):
        session.edit(TARGET, change="auto")
    with pytest.raises(InputError, match="references: have no effect"):
        session.edit(TARGET, references=[picture])
    with pytest.raises(InputError, match="seeds: are 2"):
        session.plan(TARGET, change="auto", method="ddpm", seeds=[1, 2])
    assert len(session.plan(TARGET, change="auto")) == len(AUTO_CHANGES)


def test_auto_costs_as_many_pictures_as_it_draws() -> None:
    def cost(**request: object) -> float:
        job = JobRecord(id="j", tenant="t", kind="edit", request=request, created_at=0, queued_at=0)
        return cost_of(job)

    assert cost(change="auto") == 9 and cost(change=0.5) == 1
