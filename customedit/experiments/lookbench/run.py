"""Run an editor on LookBench: learn every look, paint it on every source, keep every picture.

The pictures lie in a folder of their own settings, laid out as ``lookbench score`` reads it. What
is there is not drawn again, so a run may be stopped and given again at any time, and a larger size
goes on from a smaller one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from customedit import images
from customedit.experiments.lookbench.editor import Editor, Task, Taught
from customedit.experiments.lookbench.words import choose
from customedit.experiments.result_cache import named
from customedit.files import replacing
from customedit.metrics.lookbench.colour import Pixels
from customedit.metrics.lookbench.dataset import Bench
from customedit.metrics.lookbench.looks import Look
from customedit.metrics.lookbench.results import COPIES, WORDS
from customedit.metrics.lookbench.sources import Source

TOGETHER: Final = 8
"""Edits that share forwards; a stopped run loses at most these."""

OnPicture = Callable[[int, int, str], None]
"""Called with how many pictures there are, of how many, and what was drawn last."""


@dataclass(frozen=True)
class Run:
    """Where a run's pictures are, what made them, and the plain words chosen for each look."""

    folder: Path
    about: dict[str, Any]
    words: dict[str, str]


def about_run(bench: Bench, editor: Editor) -> dict[str, Any]:
    """All that decides the pictures, as plain data; not the size of the set."""
    return {"lookbench": bench.identity(), "editor": editor.about()}


def run(
    bench: Bench,
    editor: Editor,
    folder: Path,
    *,
    seeds: Sequence[int] = (0,),
    words: bool = True,
    on_picture: OnPicture | None = None,
) -> Run:
    """Draw what is not there yet, into a folder of these settings inside ``folder``.

    seeds: of the trainings; words: whether plain words are tried, too, by an editor that draws by
    chance with each of the seeds.
    """
    about = about_run(bench, editor)
    place = folder / named("run", about)
    with replacing(place / "about.json") as draft:
        draft.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    worded: dict[int, Path] = {}
    if words:
        worded = {seeds[0]: place / WORDS}
        if editor.by_chance:
            worded = {seed: place / WORDS / f"seed-{seed}" for seed in seeds}
    parts, best = len(seeds) + 1 + len(worded), {}
    done, of = 0, parts * len(bench)

    def tell(count: int, what: str) -> None:
        nonlocal done
        done += count
        if on_picture is not None:
            on_picture(done, of, what)

    for look in bench.looks:
        for source in bench.sources:
            path = _path(place / COPIES, look, source)
            if not path.exists():
                _save(editor.copy(bench.answer(look, source)), path)
        tell(len(bench.sources), f"{look.name}: the right answers' copies")
        references = tuple(bench.references(look))
        for seed in seeds:
            taught = Taught(look, references, seed, bench.nouns(look))
            folder = place / f"seed-{seed}"
            for count in _edit(bench, editor, folder, look, look.phrase, seed, taught):
                tell(count, f"{look.name}: edits, training seed {seed}")
        if words:
            chosen = choose(bench, editor, look, place / "tuning" / f"{look.slug}.json")
            best[look.name] = chosen.words
            for seed, folder in worded.items():
                for count in _edit(bench, editor, folder, look, chosen.words, seed, None):
                    tell(count, f"{look.name}: edits by {chosen.words!r}")
    return Run(place, about, best)


def _edit(
    bench: Bench,
    editor: Editor,
    folder: Path,
    look: Look,
    phrase: str,
    seed: int,
    taught: Taught | None,
) -> Iterator[int]:
    """Paint ``phrase`` on every source; yields how many more there are."""
    missing = [s for s in bench.sources if not _path(folder, look, s).exists()]
    if there := len(bench.sources) - len(missing):
        yield there
    for start in range(0, len(missing), TOGETHER):
        part = missing[start : start + TOGETHER]
        tasks = [
            Task(*bench.picture(s), s.noun, s.prompt, s.target_prompt(phrase), taught, seed)
            for s in part
        ]
        for source, picture in zip(part, editor.edit(tasks), strict=True):
            _save(picture, _path(folder, look, source))
        yield len(part)


def _path(folder: Path, look: Look, source: Source) -> Path:
    return folder / look.slug / f"{source.name}.png"


def _save(pixels: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(Image.fromarray(pixels), path)
