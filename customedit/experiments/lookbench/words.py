"""The best plain words: what an editor does without a concept, to compare a taught look with.

Every look has several wordings in words that the base knows. The best is chosen by the measure that
it is compared in (distance of patches), with the same editor and settings, on tuning sources that
are never scored: so the choice neither favours the words by fitting them to the scored pictures nor
fails them by a wording that somebody thought good.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from customedit.errors import InputError
from customedit.experiments.lookbench.editor import Editor, Task
from customedit.files import replacing
from customedit.metrics.lookbench.dataset import Bench
from customedit.metrics.lookbench.looks import Look
from customedit.metrics.lookbench.measures import Answer


@dataclass(frozen=True)
class Chosen:
    """The best words for a look, and the mean distance to the right answer of all, in Lab units."""

    words: str
    distances: dict[str, float]


def choose(bench: Bench, editor: Editor, look: Look, cache: Path) -> Chosen:
    """The wording of ``look`` with the least mean distance on the tuning sources.

    kept: a file that keeps the distances; wordings in it are not tried again.

    Raises InputError for a set without tuning sources.
    """
    if len(look.words) > 1 and not bench.tuning:
        raise InputError(
            "bench", "has no tuning sources to choose plain words on", "add some, or --no-words"
        )
    distances: dict[str, float] = _read(cache)
    for words in look.words:
        if len(look.words) == 1:
            distances.setdefault(words, 0.0)
        elif words not in distances:
            distances[words] = distance(bench, editor, look, words)
            _write(cache, distances)
    tried = {words: distances[words] for words in look.words}
    return Chosen(min(tried, key=lambda words: tried[words]), tried)


def distance(bench: Bench, editor: Editor, look: Look, words: str) -> float:
    """Mean distance to the right answers of the tuning sources that are edited by ``words``."""
    pictures = [bench.picture(source) for source in bench.tuning]
    tasks = [
        Task(*picture, source.noun, source.prompt, source.target_prompt(words))
        for source, picture in zip(bench.tuning, pictures, strict=True)
    ]
    distances = []
    for source, picture, edited in zip(bench.tuning, pictures, editor.edit(tasks), strict=True):
        answer = bench.answer(look, source)
        measured = Answer(answer, picture.image, picture.coverage, source.noun).measure(edited)
        distances.append(measured.distance)
    return fmean(distances)


def _read(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {words: float(value) for words, value in document.items()}


def _write(path: Path, distances: dict[str, float]) -> None:
    with replacing(path) as draft:
        draft.write_text(json.dumps(distances, indent=1) + "\n", encoding="utf-8")
