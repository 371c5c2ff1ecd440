"""Edits of one picture step by step together: how many rows run, and that results stay the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from customedit.diffusion import devices
from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base, Prediction
from customedit.diffusion.engine import Engine, run
from customedit.diffusion.families.unet import RowsText
from customedit.diffusion.method import Denoise, Progress
from customedit.diffusion.shared_rows import JoinedControls, joined, together
from customedit.editing.edit import Opened, draw
from customedit.editing.editor import Editor
from customedit.editing.inversion import Inversion, invert
from customedit.editing.plan import EditPlan
from customedit.mini import samples

SOURCE, TARGET = "a photo of a red cup on a table", "a photo of a blue cup on a table"
STEPS = 3
NEAR = 1e-5
"""Of latents of about 1."""
NINE = [k / 10 for k in range(1, 10)]


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.open(samples.sources()[3].image).convert("RGB")


@pytest.fixture(scope="module")
def inversion(base: Base, picture: Image.Image) -> Inversion:
    return run(base, invert(base, base.encode(picture), SOURCE, steps=STEPS))


@pytest.fixture
def calls(base: Base, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The rows of each call of the UNet."""
    found: list[int] = []
    predict = base.predict

    def counted(latents: Tensor, *rest: Any) -> Any:
        found.append(len(latents))
        return predict(latents, *rest)

    monkeypatch.setattr(base, "predict", counted)
    yield found


def plans_of(base: Base, picture: Image.Image, **options: Any) -> list[EditPlan]:
    return Editor(base).open(picture, SOURCE).plan(TARGET, steps=STEPS, **options)


def methods(
    base: Base, picture: Image.Image, plans: Sequence[EditPlan], inversion: Inversion
) -> list[Any]:
    opened = Opened(base, picture)
    return [
        draw(base, plan, picture, inversion=inversion if plan.inverts else None, opened=opened)
        for plan in plans
    ]


def test_nine_strengths_are_19_rows(
    base: Base, picture: Image.Image, inversion: Inversion, calls: list[int]
) -> None:
    plans = plans_of(base, picture, strengths=NINE)
    progress: list[Progress] = []
    drawings = run(base, together(base, methods(base, picture, plans, inversion)), progress.append)
    assert calls == [1 + 2 * 9] * STEPS
    assert [p.step for p in progress] == list(range(1, 9 * STEPS + 1))
    assert {p.steps for p in progress} == {9 * STEPS}
    calls.clear()
    alone = [run(base, method) for method in methods(base, picture, plans, inversion)]
    assert calls == [3] * (9 * STEPS)
    for drawing, solo in zip(drawings, alone, strict=True):
        assert (drawing.latents - solo.latents).abs().max() <= NEAR
        assert torch.equal(drawing.mask, solo.mask)


def test_rows_are_joined_anew_only_where_a_control_changed(base: Base) -> None:
    text = base.text(SOURCE)

    def request(control: AttentionControl) -> Denoise:
        latents = torch.zeros(control.rows, base.channels, 16, 16)
        return Denoise(latents, 501, [text] * control.rows, control, names=["source", None])

    first, second = (AttentionControl.none(2, base.length) for _ in range(2))
    join = JoinedControls()
    made = joined([request(first), request(second)], join).control
    assert made is not None and made.rows == 3
    assert joined([request(first), request(second)], join).control is made
    assert joined([request(second), request(first)], join).control is not made


def test_rows_that_are_shared_are_moved_to_the_device_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though the names of the rows, the latents and the answers change at every step."""
    moved: list[list[int]] = []

    def counted(tensor: Tensor, device: torch.device) -> Tensor:
        moved.append(tensor.tolist())
        return tensor.to(device)

    monkeypatch.setattr(devices, "to_device", counted)
    controls = [AttentionControl.none(2, 3) for _ in range(2)]
    controls[0].record[0] = controls[1].record[1] = True
    join, text = JoinedControls(), object()
    for step in range(3):
        requests = [
            Denoise(torch.randn(2, 4, 8, 8), 501 - step, [text] * 2, control,  # type: ignore[list-item]  # nobody reads it
                    names=[("source", step), None])
            for control in controls
        ]  # fmt: skip
        whole = joined(requests, join)
        assert whole.rows == 3 and torch.equal(whole.latents[2], requests[1].latents[1])
        answer = Prediction(torch.randn(3, 4, 8, 8), torch.randn(2, 8, 8, 3))
        assert answer.maps is not None
        for number, (part, places) in enumerate(whole.parts):
            share = whole.part(answer, part, places, join.rows)
            assert torch.equal(share.noise, answer.noise[places])
            assert share.maps is not None and torch.equal(share.maps, answer.maps[[number]])
    assert sorted(moved) == [[0], [0, 1], [0, 2], [1]]


def test_edits_that_begin_later_wait_for_the_others(
    base: Base, picture: Image.Image, inversion: Inversion, calls: list[int]
) -> None:
    plans = [plan for c in (1.0, 0.3, 0.1) for plan in plans_of(base, picture, change=c)]
    drawings = run(base, together(base, methods(base, picture, plans, inversion)))
    assert calls == [3, 5, 7]  # from steps 0, 1 and 2 on
    calls.clear()
    for drawing, method in zip(drawings, methods(base, picture, plans, inversion), strict=True):
        assert (drawing.latents - run(base, method).latents).abs().max() <= NEAR


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"method": "masactrl", "strengths": [0.2, 0.9]}, 5),
        ({"method": "pnp", "strengths": [0.2, 0.9]}, 5),
        ({"method": "directedit", "strengths": [0.2, 0.9]}, 5),
        ({"method": "ddpm", "strengths": [0.0, 0.01]}, 6),
        ({"method": "ddpm", "strengths": [0.0], "seeds": [1, 2]}, 8),  # of other noise
        ({"method": "sdedit", "strengths": [1.0], "seeds": [1, 2]}, 6),  # of other noise
        ({"method": "sdedit", "strengths": [0.99, 1.0]}, 5),
        (
            {
                "method": "sdedit",
                "strengths": [1.0],
                "seeds": [1, 2],
                "sdedit": {"blend_over": "none"},
            },
            4,
        ),
        ({"inversion": "ddim", "strengths": [0.2, 0.9]}, 6),
    ],
)
def test_the_sources_rows_of_every_method_run_once(
    base: Base, picture: Image.Image, inversion: Inversion, calls: list[int],
    options: dict[str, Any], rows: int,
) -> None:  # fmt: skip
    import dataclasses

    plans = plans_of(base, picture, **options)
    inverted = dataclasses.replace(inversion, kind=plans[0].inversion or "direct")
    drawings = run(base, together(base, methods(base, picture, plans, inverted)))
    assert calls == [rows] * STEPS
    for drawing, method in zip(drawings, methods(base, picture, plans, inverted), strict=True):
        assert (drawing.latents - run(base, method).latents).abs().max() <= NEAR


def test_nothing_is_shared_between_jobs(
    base: Base, picture: Image.Image, inversion: Inversion, calls: list[int]
) -> None:
    engine = Engine(base)
    plans = plans_of(base, picture, strengths=[0.2, 0.8])
    for tenant in ("anna", "ben"):
        job = together(base, methods(base, picture, plans, inversion))
        engine.submit(job, share=(tenant, "job"))
    while not engine.idle:
        engine.tick()
    assert calls == [5 + 5] * STEPS


def test_what_does_not_fit_is_asked_in_parts(
    base: Base, picture: Image.Image, inversion: Inversion, calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    plans = plans_of(base, picture, strengths=NINE[:4])
    whole = run(base, together(base, methods(base, picture, plans, inversion)))
    calls.clear()
    parts = run(base, together(base, methods(base, picture, plans, inversion), max_rows=5))
    assert calls == [5, 5] * STEPS
    predict = base.predict

    def small(latents: Tensor, *rest: Any) -> Any:
        if len(latents) > 4:
            raise torch.OutOfMemoryError("no room")
        return predict(latents, *rest)

    monkeypatch.setattr(base, "predict", small)
    one_by_one = run(base, together(base, methods(base, picture, plans, inversion)))
    for a, b, c in zip(whole, parts, one_by_one, strict=True):
        assert (a.latents - b.latents).abs().max() <= NEAR
        assert (a.latents - c.latents).abs().max() <= NEAR
        assert torch.equal(a.mask, c.mask)


def test_an_edits_texts_are_stacked_once(
    base: Base, picture: Image.Image, inversion: Inversion, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    of = RowsText.of

    def counted(*given: Any) -> RowsText:
        made.append(len(given[0]))
        return of(*given)

    monkeypatch.setattr(RowsText, "of", counted)
    (method,) = methods(base, picture, plans_of(base, picture), inversion)
    run(base, method)
    assert made == [3]
