"""The cells of the study: a variant with a look and a training seed; trained, edited, measured."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image

from customedit.concepts.concept import Concept
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.editing.edit import EditResult
from customedit.editing.editor import Editor, Order, weighted
from customedit.editing.sweep import measure_edit
from customedit.experiments.dreambooth import dreambooth
from customedit.experiments.lookbench.editor import write_references
from customedit.experiments.result_cache import (
    ROWS,
    Lesson,
    OnProgress,
    Row,
    digest_of_judge,
    keep_rows,
    kept,
    learned,
    named,
    precision,
)
from customedit.experiments.variants import Plan, Training, Variant
from customedit.images.layout import tiled
from customedit.metrics.lookbench.looks import Look
from customedit.metrics.lookbench.measures import Answer, shapes
from customedit.metrics.lookbench.scores import bundled_judge
from customedit.metrics.lookbench.sources import Source
from customedit.metrics.similarity import Similarity
from customedit.schemas.methods import EditMethod
from customedit.schemas.requests import EditOptions


@dataclass(frozen=True)
class Job:
    """One edit of a cell."""

    editor: EditMethod
    source: Source
    options: EditOptions


@dataclass(frozen=True)
class Cell:
    """What is trained once and edits several pictures.

    budget: of the training; wording: plain words instead of a concept, empty for none.
    """

    variant: Variant
    look: Look
    seed: int
    budget: Training = dataclasses.field(default_factory=dict)
    wording: str = ""

    @property
    def name(self) -> str:
        """For people and file names."""
        return f"{self.variant.name} {self.look.slug} {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """The rows of a cell, its sheet of pictures, and whether they were there before."""

    rows: list[Row]
    sheet: Path
    was_kept: bool


class Cells:
    """Runs cells of ``plan`` and keeps them in ``folder``.

    judge: measures similarities; on_progress: called with the progress of trainings.
    """

    def __init__(
        self,
        base: Base,
        judge: Similarity,
        plan: Plan,
        folder: Path,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.base, self.judge, self.plan = base, judge, plan
        self.folder, self.on_progress = folder, on_progress
        self._shapes = bundled_judge()
        self._bench = plan.bench.identity()

    def run(self, cell: Cell, sources: Sequence[Source]) -> Outcome:
        """All edits of ``cell`` on ``sources``, or what is kept of them."""
        jobs = [
            Job(editor, source, cell.variant.options(
                source, cell.look, editor, strength, self.plan.steps, cell.seed, cell.wording))
            for editor in cell.variant.editors
            for source in sources
            for strength in cell.variant.strengths
        ]  # fmt: skip
        about = self._about(cell, jobs)
        name = named(cell.name, about)
        file, sheet = self.folder / "cells" / f"{name}.json", self.folder / "grids" / f"{name}.png"
        if (before := kept(file)) is not None and sheet.exists():
            return Outcome(before, sheet, True)
        results = self._draw(cell, jobs)
        rows = self._measure(cell, jobs, results)
        sheet.parent.mkdir(parents=True, exist_ok=True)
        tiled([r.image for r in results], len(cell.variant.strengths)).save(sheet)
        keep_rows(file, about, rows)
        return Outcome(rows, sheet, False)

    # choices, made on the tuning sources, which are never scored

    def best_budget(self, variant: Variant) -> Training:
        """The budget whose edits come nearest to the right answers, over all looks.

        Of the first editor, at the strength that suits the budget best; by the first training seed.
        Only of a variant that has budgets.
        """
        if len(variant.budgets) == 1:
            return variant.budgets[0]
        trial = dataclasses.replace(variant, editors=variant.editors[:1])
        distances = []
        for budget in variant.budgets:
            rows: list[Row] = []
            for look in self.plan.bench.looks:
                cell = Cell(trial, look, self.plan.seeds[0], budget)
                rows += self.run(cell, self.plan.bench.tuning).rows
            distances.append(distance_at(rows, best_strength(rows)))
        chosen = variant.budgets[int(np.argmin(distances))]
        self._note("budgets", variant.name, {
            "tried": [[dict(b), round(d, 4)] for b, d in
                      zip(variant.budgets, distances, strict=True)],
            "chosen": dict(chosen),
        })  # fmt: skip
        return chosen

    def wording(self, variant: Variant, look: Look) -> str:
        """The plain words of a variant without a concept, empty for the others."""
        if variant.words is None:
            return ""
        if variant.words == "caption" or len(look.words) == 1:
            return look.words[0]
        trial = dataclasses.replace(variant, editors=variant.editors[:1])
        distances = {}
        for words in look.words:
            rows = self.run(Cell(trial, look, 0, {}, words), self.plan.bench.tuning).rows
            distances[words] = distance_at(rows, best_strength(rows))
        chosen = min(distances, key=lambda words: distances[words])
        self._note("words", look.slug, {"tried": distances, "chosen": chosen})
        return chosen

    def strengths(
        self, variant: Variant, budget: Training, wordings: Sequence[str]
    ) -> dict[str, float]:
        """The strength of each editor whose edits of the tuning sources are nearest.

        wordings: of the bench's looks, in their order.
        """
        rows: list[Row] = []
        for look, words in zip(self.plan.bench.looks, wordings, strict=True):
            cell = Cell(variant, look, self.plan.seeds[0], budget, words)
            rows += self.run(cell, self.plan.bench.tuning).rows
        return {
            editor: best_strength([row for row in rows if row["editor"] == editor])
            for editor in variant.editors
        }

    def _note(self, kind: str, name: str, value: Row) -> None:
        """Write down what was chosen, for people."""
        path = self.folder / kind / f"{name.replace(' ', '-')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1) + "\n")

    # one cell

    def _lesson(self, cell: Cell) -> Lesson:
        training = self.plan.training_of(cell.variant, cell.budget, self.base.profile.recipe)
        settings = TrainingSettings.of(self.base, **training, seed=cell.seed)
        files = write_references(
            self.folder / "references", cell.look, self.plan.bench.references(cell.look)
        )
        name = f"{cell.variant.trained}-{cell.look.slug}-{cell.seed}"
        return Lesson(name, files, cell.variant.prompts(cell.look), settings)

    def _model(self, cell: Cell) -> tuple[Base, list[Concept]]:
        """What is edited with: the base, or DreamBooth's own, and the concept."""
        if cell.wording:
            return self.base, []
        lesson, folder = self._lesson(cell), self.folder / "concepts"
        if lesson.settings.way != "dreambooth":
            concept, _ = learned(
                self.base, lesson, folder, self.folder / "classes", self.on_progress
            )
            return self.base, [concept]
        method = dreambooth(
            self.base, lesson.references, lesson.prompts, lesson.settings,
            resume=folder / f"{lesson.stem(self.base)}.checkpoint.safetensors",  # kept when done
            class_cache=self.folder / "classes",
        )  # fmt: skip
        model, word = run(self.base, method, self.on_progress)
        return model, [word]

    def _draw(self, cell: Cell, jobs: Sequence[Job]) -> list[EditResult]:
        """The results of ``jobs``, which share forwards."""
        model, concepts = self._model(cell)
        store = self.folder / "inversions" if model is self.base else None
        editor = Editor(model, inversions=store, max_rows=24)
        orders = []
        for job in jobs:
            picture = Image.fromarray(self.plan.bench.picture(job.source).image)
            session = editor.open(picture, job.options.source_prompt)
            (plan,) = session.plan_options(job.options, concepts=concepts)
            orders.append(Order(session, plan, weighted(concepts)))
        return editor.edit_all(orders, self.on_progress)

    def _measure(self, cell: Cell, jobs: Sequence[Job], results: Sequence[EditResult]) -> list[Row]:
        """A row for each edit: CLIP's similarities in the true mask, and LookBench's measures."""
        bench = self.plan.bench
        references = [Image.fromarray(pixels) for pixels in bench.references(cell.look)]
        answers = {job.source.name: answer_of(self.plan, cell.look, job.source) for job in jobs}
        drawn = [np.asarray(result.image) for result in results]
        own = [answers[job.source.name] for job in jobs]
        seen = shapes(self._shapes, drawn, own)
        rows = []
        for job, result, pixels, answer, shape in zip(jobs, results, drawn, own, seen, strict=True):
            region = torch.from_numpy(bench.picture(job.source).coverage >= 0.5).float()
            similar = measure_edit(self.judge, result, references, region).similarities
            rows.append({
                "variant": cell.variant.name, "editor": job.editor, "look": cell.look.name,
                "picture": job.source.name, "seed": cell.seed,
                "strength": result.plan.strength, **similar.as_dict(),
                **dataclasses.asdict(answer.measure(pixels, shape)),
            })  # fmt: skip
        return rows

    def _about(self, cell: Cell, jobs: Sequence[Job]) -> Row:
        """All that decides the rows of a cell, as plain data."""
        return {
            "version": ROWS,
            "variant": cell.variant.name,
            "look": cell.look.name,
            "seed": cell.seed,
            "bench": self._bench,
            "lesson": None if cell.wording else self._lesson(cell).about(self.base),
            "base": self.base.fingerprint,
            **precision(self.base),
            "guidance": self.base.guidance,
            "judges": [self.judge.fingerprint, digest_of_judge()],
            "edits": [
                {"editor": j.editor, "source": j.source.name, **_plain(j.options)} for j in jobs
            ],
        }


def _plain(options: EditOptions) -> Row:
    """``options`` as plain data.

    Without ``sdedit``: it reaches everywhere in a study, as in versions where it had no settings.
    """
    return options.model_dump(mode="json", exclude={"sdedit"})


def answer_of(plan: Plan, look: Look, source: Source) -> Answer:
    """The right answer of a pair, ready to measure against."""
    picture = plan.bench.picture(source)
    return Answer(plan.bench.answer(look, source), picture.image, picture.coverage, source.noun)


def bounds(plan: Plan, base: Base) -> dict[str, np.ndarray]:
    """Distances [looks, sources, 1] of doing nothing and of the autoencoder's copies."""
    bench = plan.bench
    shape = (len(bench.looks), len(bench.sources), 1)
    nothing, copies = np.zeros(shape), np.zeros(shape)
    for (i, look), (j, source) in itertools.product(
        enumerate(bench.looks), enumerate(bench.sources)
    ):
        answer = answer_of(plan, look, source)
        right = Image.fromarray(bench.answer(look, source))
        copied = np.asarray(base.decode(base.encode(right))[0])
        nothing[i, j, 0] = answer.measure(bench.picture(source).image).distance
        copies[i, j, 0] = answer.measure(copied).distance
    return {"nothing": nothing, "copy": copies}


def distance_at(rows: Sequence[Row], strength: float) -> float:
    """Mean distance to the right answers at ``strength``."""
    return fmean(row["distance"] for row in rows if row["strength"] == strength)


def best_strength(rows: Sequence[Row]) -> float:
    """The strength of ``rows`` at which they are nearest to the right answers."""
    return min({row["strength"] for row in rows}, key=lambda s: (distance_at(rows, s), s))
