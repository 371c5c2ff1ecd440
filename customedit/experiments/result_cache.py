"""What comparisons keep between runs, under names that tell all that made it.

A name ends in a fingerprint of the settings, prompts and pictures behind it: asked for under other
settings, a thing is made anew beside the old one, and found again when the settings return.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image

from customedit.concepts.concept import Concept
from customedit.concepts.dataset import Subject
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concepts
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.method import Progress
from customedit.files import replacing

Row = dict[str, Any]
OnProgress = Callable[[Progress], None]

TRAININGS: Final = 1
"""To be raised when trainings change, so that what was trained before is trained again."""

ROWS: Final = 3
"""To be raised when edits, measures or rows change, so that kept rows are measured again."""


def named(name: str, about: dict[str, Any]) -> str:
    """``name`` as a file's, without suffix, with the fingerprint of ``about`` (plain data)."""
    document = json.dumps(about, sort_keys=True)
    return f"{name.replace(' ', '-')}-{hashlib.sha256(document.encode()).hexdigest()[:12]}"


def digest(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def precision(base: Base) -> dict[str, str]:
    """The dtype of ``base`` as plain data, nothing of float32.

    A fingerprint is of the weights in any dtype. What was kept before this was told is float32's.
    """
    return {} if base.dtype == torch.float32 else {"dtype": str(base.dtype)}


def digest_of_judge() -> str:
    """Of the weights that judge shapes."""
    from customedit import mini

    return digest(mini.path() / "judge.safetensors")


def kept(file: Path) -> list[Row] | None:
    """The rows that ``keep_rows`` wrote; None if there are none."""
    if not file.exists():
        return None
    rows: list[Row] = json.loads(file.read_text())["rows"]
    return rows


def keep_rows(file: Path, about: dict[str, Any], rows: list[Row]) -> None:
    """Write ``rows`` with what they were measured under: whole, or not at all."""
    with replacing(file) as draft:
        draft.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


@dataclass(frozen=True)
class Lesson:
    """What a concept is learned from, and how.

    name: what it is called in its folder; nouns: what each image shows, where they differ.
    """

    name: str
    images: Sequence[Path]
    prompts: ConceptPrompts
    settings: TrainingSettings
    nouns: Sequence[str] = ()

    def about(self, base: Base) -> dict[str, Any]:
        """All that decides what is learned, as plain data."""
        return {
            "version": TRAININGS,
            "base": base.fingerprint,
            **precision(base),
            "settings": dataclasses.asdict(self.settings),
            "prompts": dataclasses.asdict(self.prompts),
            "images": [digest(p) for p in self.images],
            **({"nouns": list(self.nouns)} if self.nouns else {}),
        }

    def stem(self, base: Base) -> str:
        """The name of its file, without suffix."""
        return named(self.name, self.about(base))

    @property
    def references(self) -> list[Image.Image]:
        """The pictures, RGB."""
        return [Image.open(p).convert("RGB") for p in self.images]


def learned(
    base: Base, lesson: Lesson, folder: Path, classes: Path, on_progress: OnProgress | None = None
) -> tuple[Concept, bool]:
    """The concept of ``lesson``, trained once into ``folder``; and whether it was there.

    classes: where class images are kept.
    """
    file = folder / f"{lesson.stem(base)}.safetensors"
    if file.exists():
        return Concept.load(file, base.weights), True
    subject = Subject(lesson.references, lesson.prompts, lesson.nouns)
    method = train_concepts(base, [subject], lesson.settings, class_cache=classes)
    made = run(base, method, on_progress)
    made.save(file)
    return made, False
