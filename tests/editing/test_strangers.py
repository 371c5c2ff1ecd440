"""A picture is the same alone and beside edits of strangers, in calls that they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from customedit.concepts.concept import Concept
from customedit.diffusion.base import Base
from customedit.diffusion.text import Weighted
from customedit.editing.edit import EditResult
from customedit.editing.editor import Editor, Order
from customedit.mini import samples

from ..diffusion.conftest import change

STRANGERS = 31
LOOKS = samples.looks()
ROWS_OF_AN_EDIT = 3


def orders(editor: Editor, only: range) -> list[Order]:
    """Edits ``only`` of 32: each of a picture, a concept, a seed and a strength of its own."""
    sources = samples.sources()
    made = []
    for k in only:
        source, look = sources[k % len(sources)], LOOKS[k % len(LOOKS)]
        of = change(editor.base, look.token, k, size=0.02)
        concept = Concept(of.tokens, of.keys, of.values, noun=source.noun, attribute=look.attribute)
        entries = [Weighted(concept)]
        session = editor.open(Image.open(source.image).convert("RGB"), source.prompt)
        (plan,) = session.plan(
            source.target_prompt(look), concepts=entries, steps=6 + k % 3, seeds=[k],
            strengths=[0.2 + k / 100], method="sdedit" if k % 8 == 7 else "p2p",
        )  # fmt: skip
        made.append(Order(session, plan, entries))
    return made


def pixels(result: EditResult) -> np.ndarray:
    return np.asarray(result.image, np.int16)


@dataclass
class Calls:
    """The rows of each call of a base's UNet."""

    rows: list[int]

    @classmethod
    def of(cls, base: Base, patch: pytest.MonkeyPatch) -> Calls:
        """Counted from now on."""
        calls, predict = cls([]), base.predict

        def counted(*given: object, **named: object) -> object:
            calls.rows.append(len(given[0]))  # type: ignore[arg-type]
            return predict(*given, **named)  # type: ignore[arg-type]

        patch.setattr(base, "predict", counted)
        return calls


@pytest.mark.slow  # 1,000 rows of the bundled base
def test_a_result_is_the_same_alone_and_beside_31_strangers(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32: at most 1 of 255 in at most 3 pixels: calls of other sizes round otherwise."""
    assert base.dtype == torch.float32
    editor = Editor(base, max_rows=48)
    calls = Calls.of(base, monkeypatch)
    beside = editor.edit_all(orders(editor, range(STRANGERS + 1)))
    assert max(calls.rows) > 8 * ROWS_OF_AN_EDIT
    for k in (0, 7, 20, 31):
        calls.rows.clear()
        (alone,) = editor.edit_all(orders(editor, range(k, k + 1)))
        assert max(calls.rows) <= ROWS_OF_AN_EDIT
        apart = np.abs(pixels(alone) - pixels(beside[k])).max(axis=2)  # [height, width]
        assert apart.max() <= 1 and np.count_nonzero(apart) <= 3, k
        changed = np.abs(pixels(alone) - np.asarray(alone.source, np.int16))
        assert changed.max() > 30, k  # the edit did something
