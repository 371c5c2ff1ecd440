"""The model card says what the evaluation found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from customedit.mini import card

REPOSITORY = Path(__file__).parents[2]


def test_the_page_shows_the_figures_of_the_evaluation_beside_it() -> None:
    report = json.loads((REPOSITORY / "docs/mini/evaluation.json").read_text())
    page = (REPOSITORY / "docs/mini.md").read_text()
    assert card.filled(page, report) == page


def test_a_page_without_the_place_is_refused() -> None:
    with pytest.raises(ValueError, match="figures"):
        card.filled("no place", {"rows": []})
