"""Estimates count the rows that the engine really runs, in every method."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine
from customedit.editing import editor
from customedit.estimates.work import edit_work
from customedit.schemas.requests import EditRequest

from ..diffusion import flow_folders as folders

SOURCE, TARGET = "a photo of a cup on a table", "a photo of a red cup on a table"
STEPS = 5


class Count:
    """An observer of the engine that adds up rows and steps with gradients."""

    def __init__(self) -> None:
        self.rows, self.turns = 0, 0

    def call(self, rows: int, cells: int, seconds: float) -> None:
        self.rows += rows

    def turn(self, label: str, seconds: float) -> None:
        self.turns += 1


def counted(
    base: Base, picture: Image.Image, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> int:
    """The rows of an edit, its inversion among them."""
    count = Count()
    monkeypatch.setattr(
        editor, "Engine", lambda base, max_rows: Engine(base, max_rows=max_rows, observer=count)
    )
    session = editor.Editor(base).open(picture, SOURCE)
    session.run(session.plan_options(session.options(TARGET, steps=STEPS, **options)))
    return count.rows


def expected(**options: Any) -> float:
    fields = {"image": "img_" + "0" * 64, "source_prompt": SOURCE, "target_prompt": TARGET}
    request = EditRequest.model_validate(fields | {"steps": STEPS} | options)
    return sum(s.rounds * s.rows for s in edit_work(request, 256, inverted=False).stages)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strengths": [0.3, 0.6]},
        {"change": 0.3},
        {"guidance_end": 0.5},
        {"inversion": "ddim"},
        {"inversion": "negative-prompt"},
        {"method": "sdedit", "strengths": [0.4, 0.7]},
        {"method": "sdedit", "seeds": [0, 1]},
        {"method": "sdedit", "sdedit": {"blend_over": "none"}},
        {"method": "masactrl"},
        {"method": "pnp"},
        {"method": "ddpm", "seeds": [0, 1]},
        {"method": "ddpm", "strengths": [0.2, 0.6]},
        {"method": "directedit"},
    ],
    ids=str,
)
def test_rows_are_those_of_the_estimate(
    base: Base, picture: Image.Image, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    assert counted(base, picture, monkeypatch, **options) == pytest.approx(expected(**options))


@pytest.mark.parametrize(
    "options",
    [{"seeds": [0, 1]}, {"strengths": [0.2, 0.7]}, {"flowedit": {"samples": 2}}],
    ids=str,
)
def test_rows_of_flow_matching(
    picture: Image.Image, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    base, asked = folders.wrapped(folders.sd3()), {"method": "flowedit"} | options
    assert counted(base, picture, monkeypatch, **asked) == pytest.approx(expected(**asked))
