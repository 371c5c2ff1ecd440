"""Sources x looks, with the concept and without: ``python -m customedit.evaluation.pairs``.

What a concept adds is told from the same edit without it: the target prompt with the attribute word
alone. Counted is in how many pairs the edited region (the source's true mask) is nearer to the
references with the concept; and how well what lies outside stays, before any pixel is put back.
Concepts are trained once into the runs folder; finished pairs are kept there and not done again.
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
from customedit.concepts.training import customize
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine, Progress, run
from customedit.diffusion.text import Weighted
from customedit.editing.edit import EditResult, EditSettings, edit
from customedit.editing.prompt_to_prompt import P2PSettings
from customedit.evaluation.arms import LOOKS
from customedit.evaluation.kept import keep_rows, kept, kept_concept
from customedit.evaluation.measure import Similarities, bundled, mask_tensor, measure
from customedit.evaluation.similarity import Similarity
from customedit.mini import samples


def learn(base: Base, look: samples.Look, folder: Path, steps: int | None = None) -> Concept:
    """The concept of ``look`` with default settings, trained once into ``folder``."""
    file = folder / f"{look.name.replace(' ', '-')}.safetensors"
    settings = TrainingSettings.of(base, steps=steps)
    if (before := kept_concept(base, file, settings)) is not None:
        return before
    references = [Image.open(p).convert("RGB") for p in look.images]
    prompts = ConceptPrompts(look.token, look.noun, look.attribute)
    concept = run(base, customize(base, references, prompts, settings, class_cache=folder))
    concept.save(file)
    return concept


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
    engine = Engine(base, max_rows=24)
    jobs = []
    for source in sources:
        picture = Image.open(source.image).convert("RGB")
        target = source.target_prompt(look)
        for prompt, concepts in (
            (target, [Weighted(concept)]),
            (without(target, look), []),
        ):
            settings = EditSettings(source.prompt, prompt, steps=steps, p2p=None)
            method = edit(base, picture, _same_blend(settings, source), concepts, keep=keep)
            jobs.append((source, prompt, engine.submit(method, on_progress=on_progress)))
    while not engine.idle:
        engine.tick()
    rows, pictures = [], []
    for (source, target, with_it), (_, plain_target, without_it) in zip(
        jobs[::2], jobs[1::2], strict=True
    ):
        mask = mask_tensor(Image.open(source.mask))
        found, plain = (
            measure(judge, ticket.result(), prompt, references, mask)
            for prompt, ticket in ((target, with_it), (plain_target, without_it))
        )
        pictures.append(with_it.result())
        rows.append(_row(look, source, found, plain))
    return rows, pictures


def _same_blend(settings: EditSettings, source: samples.Source) -> EditSettings:
    """Both edits of a pair keep to the same words, which the one without concept cannot derive."""
    p2p = P2PSettings(blend_over="source", blend_words=(source.noun,))
    return dataclasses.replace(settings, p2p=p2p)


def _row(
    look: samples.Look, source: samples.Source, found: Similarities, plain: Similarities
) -> dict[str, Any]:
    return {
        "look": look.name,
        "source": source.name,
        "with": found.as_dict(),
        "without": plain.as_dict(),
        "nearer": (found.reference or 0) > (plain.reference or 0),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The two figures that count, and the means."""

    def mean(part: str, name: str) -> float:
        values = [r[part][name] for r in rows if r[part][name] is not None]
        return round(statistics.fmean(values), 4) if values else float("nan")

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


def sheet(results: list[EditResult], columns: int = 8) -> Image.Image:
    """Sources over their edits."""
    width, height = results[0].working.size
    rows = -(-len(results) // columns)
    out = Image.new("RGB", (columns * width, rows * 2 * height))
    for k, result in enumerate(results):
        x, y = (k % columns) * width, (k // columns) * 2 * height
        out.paste(result.source, (x, y))
        out.paste(result.working, (x, y + height))
    return out


def main(
    out: Annotated[Path, typer.Option(help="Where concepts, rows and sheets go.")] = Path(
        "runs/pairs"
    ),
    looks: Annotated[str, typer.Option(help="Names, by commas.")] = ",".join(LOOKS),
    sources: Annotated[int, typer.Option(min=1, max=24, help="The first so many.")] = 24,
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps.")] = 50,
    training_steps: Annotated[int | None, typer.Option(help="Instead of the default.")] = None,
) -> None:
    """Measure edits of the sample sources with looks, against the same edits without."""
    out.mkdir(parents=True, exist_ok=True)
    base, judge, console = Base.load(), bundled(), Console()
    chosen = [x for x in samples.looks() if x.name in looks.split(",")]
    rows: list[dict[str, Any]] = []
    for look in chosen:
        file = out / f"{look.name.replace(' ', '-')}-{steps}.json"
        about = {
            "base": base.fingerprint,
            "training": dataclasses.asdict(TrainingSettings.of(base, steps=training_steps)),
            "guidance": base.guidance,
            "p2p": dataclasses.asdict(P2PSettings()),
            "sources": sources,
        }
        if (before := kept(file, about)) is not None:
            rows += before
            continue
        concept = learn(base, look, out, training_steps)
        found, results = compare(
            base, judge, look, concept, list(samples.sources())[:sources], steps=steps,
            keep=out / "inversions",
        )  # fmt: skip
        sheet(results).save(out / f"{look.name.replace(' ', '-')}.png")
        keep_rows(file, about, found)
        rows += found
        console.print(look.name, summary(found))
    told = {"summary": summary(rows), "steps": steps, "rows": rows}
    (out / "pairs.json").write_text(json.dumps(told, indent=1) + "\n")
    console.print(told["summary"])


if __name__ == "__main__":
    typer.run(main)
