"""The cells of the study, a variant with a look each: trained, edited, measured, kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from customedit.concepts.concept import Concept
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.editing.edit import EditResult
from customedit.editing.editor import Editor, Order, weighted
from customedit.editing.sweep import measure_edit
from customedit.experiments.dreambooth import dreambooth
from customedit.experiments.result_cache import (
    ROWS,
    Lesson,
    OnProgress,
    Row,
    digest,
    keep_rows,
    kept,
    learned,
    named,
)
from customedit.experiments.variants import Plan, Variant, true_mask
from customedit.images.layout import tiled
from customedit.metrics.similarity import Similarities, Similarity
from customedit.mini import samples
from customedit.schemas.requests import EditMethod, EditOptions

Edits: TypeAlias = list[tuple[EditMethod, samples.Source, EditOptions]]


@dataclass(frozen=True)
class Cell:
    """One variant with one look: its rows, its grid of pictures, and what was there already."""

    rows: list[Row]
    grid: Path
    told: str


def settings_of(base: Base, variant: Variant, plan: Plan) -> TrainingSettings:
    """The training of ``variant``."""
    few = {} if plan.training_steps is None else {"class_images": 2, "class_steps": 2, "crops": 2}
    none = {} if variant.prior else {"class_images": 0}
    return TrainingSettings.of(base, way=variant.way, steps=plan.training_steps, **few | none)


def lesson_of(base: Base, variant: Variant, look: samples.Look, plan: Plan) -> Lesson:
    """What ``variant`` trains for ``look``."""
    settings = settings_of(base, variant, plan)
    return Lesson(f"{variant.trained}-{look.name}", look.images, variant.prompts(look), settings)


def model_of(
    base: Base, lesson: Lesson, folder: Path, on_progress: OnProgress | None
) -> tuple[Base, Concept, bool]:
    """What is edited with: the base or DreamBooth's own, the concept, whether it was there."""
    classes = folder / "classes"
    if lesson.settings.way != "dreambooth":
        return base, *learned(base, lesson, folder, classes, on_progress)
    # a whole model: its training's checkpoint is what is kept
    file = folder / f"{lesson.stem(base)}.checkpoint.safetensors"
    there = file.exists()
    method = dreambooth(
        base, lesson.references, lesson.prompts, lesson.settings, resume=file, class_cache=classes
    )
    return *run(base, method, on_progress), there


def edits_of(variant: Variant, look: samples.Look, plan: Plan) -> Edits:
    """Every edit of a cell: by editor, source and rising strength."""
    return [
        (editor, source, variant.options(source, look, editor, strength, plan.steps))
        for editor in variant.editors
        for source in plan.sources
        for strength in variant.strengths
    ]


def run_cell(
    base: Base,
    judge: Similarity,
    variant: Variant,
    look: samples.Look,
    plan: Plan,
    folder: Path,
    on_progress: OnProgress | None = None,
) -> Cell:
    """All edits of one variant with one look, or what is kept of them."""
    lesson, edits = lesson_of(base, variant, look, plan), edits_of(variant, look, plan)
    about = about_cell(base, judge, lesson, variant, look, edits)
    name = named(f"{variant.name} {look.name}", about)
    file, picture = folder / "cells" / f"{name}.json", folder / "grids" / f"{name}.png"
    if (before := kept(file)) is not None and picture.exists():
        return Cell(before, picture, "kept")
    model, concept, there = model_of(base, lesson, folder / "concepts", on_progress)
    store = folder / "inversions" if model is base else None
    results = draw_edits(Editor(model, inversions=store, max_rows=24), concept, edits, on_progress)
    rows = [
        {"variant": variant.name, "editor": editor, "look": look.name, "picture": source.name,
         "strength": result.plan.strength, **found.as_dict()}
        for (editor, source, _), result, found in zip(
            edits, results, measured(judge, look, edits, results), strict=True
        )
    ]  # fmt: skip
    picture.parent.mkdir(parents=True, exist_ok=True)
    tiled([r.image for r in results], len(variant.strengths)).save(picture)
    keep_rows(file, about, rows)
    return Cell(rows, picture, f"{'concept kept' if there else 'trained'}, edits drawn")


def draw_edits(
    editor: Editor, concept: Concept, edits: Edits, on_progress: OnProgress | None
) -> list[EditResult]:
    """The results of ``edits``, which share forwards."""
    orders = []
    for _, source, options in edits:
        session = editor.open(Image.open(source.image), options.source_prompt)
        (plan,) = session.plan_options(options, concepts=[concept])
        orders.append(Order(session, plan, weighted([concept])))
    return editor.edit_all(orders, on_progress)


def measured(
    judge: Similarity, look: samples.Look, edits: Edits, results: Sequence[EditResult]
) -> list[Similarities]:
    """Of each result, in its source's true mask."""
    references = [Image.open(p).convert("RGB") for p in look.images]
    return [
        measure_edit(judge, result, references, true_mask(source)).similarities
        for (_, source, _), result in zip(edits, results, strict=True)
    ]


def about_cell(
    base: Base,
    judge: Similarity,
    lesson: Lesson,
    variant: Variant,
    look: samples.Look,
    edits: Edits,
) -> Row:
    """All that decides the rows of a cell, as plain data."""
    pictures = {p for _, source, _ in edits for p in (source.image, source.mask)}
    return {
        "version": ROWS,
        "variant": variant.name,
        "look": look.name,
        "lesson": lesson.about(base),
        "guidance": base.guidance,
        "judge": judge.fingerprint,
        "edits": [
            {"editor": editor, "source": source.name, **options.model_dump(mode="json")}
            for editor, source, options in edits
        ],
        "pictures": {p.name: digest(p) for p in sorted(pictures)},
    }
