"""Rows that were measured before, and whether they still say what would be measured now."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from customedit.concepts.concept import Concept
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base

Row = dict[str, Any]


def kept(file: Path, about: dict[str, Any]) -> list[Row] | None:
    """The rows in ``file`` if they were measured under ``about`` (settings, base), else None."""
    if not file.exists():
        return None
    told = json.loads(file.read_text())
    same = isinstance(told, dict) and told.get("about") == json.loads(json.dumps(about))
    return told["rows"] if same else None


def keep_rows(file: Path, about: dict[str, Any], rows: list[Row]) -> None:
    """Write ``rows`` with what they were measured under: whole, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    part.replace(file)


def kept_concept(base: Base, file: Path, settings: TrainingSettings) -> Concept | None:
    """The concept in ``file`` if it was trained on ``base`` with ``settings``, else None."""
    if not file.exists():
        return None
    concept = Concept.load(file, base.weights)
    asked = json.loads(json.dumps(dataclasses.asdict(settings)))
    same = concept.base == base.fingerprint and concept.recipe.get("settings") == asked
    return concept if same else None
