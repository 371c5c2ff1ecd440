"""Sources x looks, with the concept and without: ``python -m customedit.experiments.pairs``.

What a concept adds is told from the same edit without it: the target prompt with the attribute word
alone. Counted is in how many pairs the edited region (the source's true mask) is nearer to the
references with the concept; and how well what lies outside stays, before any pixel is put back.
Concepts are trained once into the runs folder; finished pairs are kept there and not done again
while the settings are the same (``result_cache``). Sheets of edits are made by ``quality``.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from rich.console import Console

from customedit.concepts.concept import Concept
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.method import Progress
from customedit.editing.edit import EditResult
from customedit.editing.editor import Editor, Order, weighted
from customedit.editing.method_settings import P2PSettings
from customedit.editing.sweep import measure_edit
from customedit.experiments.result_cache import (
    ROWS,
    Lesson,
    digest,
    keep_rows,
    kept,
    learned,
    named,
)
from customedit.experiments.variants import LOOKS, true_mask
from customedit.metrics.similarity import Similarities, Similarity, bundled
from customedit.mini import samples
from customedit.schemas.methods import P2POptions


def lesson_of(base: Base, look: samples.Look, steps: int | None = None) -> Lesson:
    """``look`` with default settings."""
    prompts = ConceptPrompts(look.token, look.noun, look.attribute)
    return Lesson(look.name, look.images, prompts, TrainingSettings.of(base, steps=steps))


def without(prompt: str, look: samples.Look) -> str:
    """``prompt`` with the attribute word alone."""
    return prompt.replace(look.phrase, look.attribute)


def compare(
    base: Base,
    judge: Similarity,
    look: samples.Look,
    concept: Concept,
    sources: list[samples.Source],
    *,
    steps: int,
    keep: Path,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[list[dict[str, Any]], list[EditResult]]:
    """One row per source: similarities with and without the concept. All edits share forwards."""
    references = [Image.open(p).convert("RGB") for p in look.images]
    editor = Editor(base, inversions=keep, max_rows=24)
    orders = []
    for source in sources:
        session = editor.open(Image.open(source.image), source.prompt)
        target = source.target_prompt(look)
        for prompt, concepts in ((target, [concept]), (without(target, look), [])):
            (plan,) = session.plan(
                prompt, concepts=concepts, steps=steps, p2p=_same_region(source), preserve=False
            )
            orders.append(Order(session, plan, weighted(concepts)))
    results = editor.edit_all(orders, on_progress)
    rows, pictures = [], []
    for source, result, plain in zip(sources, results[::2], results[1::2], strict=True):
        mask = true_mask(source)
        with_it, without_it = (
            measure_edit(judge, r, references, mask).similarities for r in (result, plain)
        )
        pictures.append(result)
        rows.append(row_of(look, source, with_it, without_it))
    return rows, pictures


def _same_region(source: samples.Source) -> P2POptions:
    """Both edits of a pair keep to the same word."""
    return P2POptions(blend_words=[source.noun])


def row_of(
    look: samples.Look, source: samples.Source, found: Similarities, plain: Similarities
) -> dict[str, Any]:
    """A pair's row: what its edits measure with the concept and without."""
    return {
        "look": look.name,
        "source": source.name,
        "with": found.as_dict(),
        "without": plain.as_dict(),
        "nearer": (found.reference or 0) > (plain.reference or 0),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The two figures that count, and the means of what was measured, None of nothing."""

    def mean(part: str, name: str) -> float | None:
        values = [r[part][name] for r in rows if r[part][name] is not None]
        return round(statistics.fmean(values), 4) if values else None

    outside = [v for r in rows if (v := r["with"]["outside_psnr"]) is not None]
    return {
        "pairs": len(rows),
        "nearer_with_concept": round(sum(r["nearer"] for r in rows) / len(rows), 4),
        "outside_psnr_mean": mean("with", "outside_psnr"),
        "outside_psnr_least": min(outside, default=None),
        "outside_25_db_or_more": sum(v >= 25 for v in outside),
        "reference_with": mean("with", "reference"),
        "reference_without": mean("without", "reference"),
        "source_with": mean("with", "source"),
        "text_with": mean("with", "text"),
    }


def about_look(
    base: Base, judge: Similarity, lesson: Lesson, sources: list[samples.Source], steps: int
) -> dict[str, Any]:
    """All that decides a look's rows, as plain data."""
    return {
        "version": ROWS,
        "lesson": lesson.about(base),
        "guidance": base.guidance,
        "judge": judge.fingerprint,
        "p2p": dataclasses.asdict(P2PSettings()),
        "steps": steps,
        "sources": [
            [s.prompt, s.look_prompt, s.noun, digest(s.image), digest(s.mask)] for s in sources
        ],
    }


def looks_named(names: str) -> list[samples.Look]:
    """The sample looks of ``names``, by commas. Raises typer.BadParameter for an unknown one."""
    known = {look.name: look for look in samples.looks()}
    for name in names.split(","):
        if name not in known:
            raise typer.BadParameter(
                f"{name!r} is no sample look; known are {', '.join(known)}", param_hint="--looks"
            )
    return [known[name] for name in dict.fromkeys(names.split(","))]


def main(
    out: Annotated[Path, typer.Option(help="Where concepts and rows go.")] = Path("runs/pairs"),
    looks: Annotated[str, typer.Option(help="Names, by commas.")] = ",".join(LOOKS),
    sources: Annotated[int, typer.Option(min=1, max=24, help="The first so many.")] = 24,
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps.")] = 50,
    training_steps: Annotated[int | None, typer.Option(help="Instead of the default.")] = None,
) -> None:
    """Measure edits of the sample sources with looks, against the same edits without."""
    chosen = looks_named(looks)
    out.mkdir(parents=True, exist_ok=True)
    base, judge, console = Base.load(), bundled(), Console()
    taken = list(samples.sources())[:sources]
    rows: list[dict[str, Any]] = []
    for look in chosen:
        lesson = lesson_of(base, look, training_steps)
        about = about_look(base, judge, lesson, taken, steps)
        file = out / f"{named(look.name, about)}.json"
        if (before := kept(file)) is not None:
            rows += before
            console.print(look.name, "kept:", summary(before))
            continue
        concept, there = learned(base, lesson, out, out)
        new_rows, _ = compare(
            base, judge, look, concept, taken, steps=steps, keep=out / "inversions"
        )
        keep_rows(file, about, new_rows)
        rows += new_rows
        console.print(look.name, "concept kept:" if there else "trained:", summary(new_rows))
    document = {"summary": summary(rows), "steps": steps, "rows": rows}
    (out / "pairs.json").write_text(json.dumps(document, indent=1) + "\n")
    console.print(document["summary"])


if __name__ == "__main__":
    typer.run(main)
