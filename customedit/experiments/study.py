"""The paper's comparison on the bundled base and LookBench's pairs: ``customedit study``.

Variants (``variants.py``) x looks x training seeds x sources x strengths, each edit measured.
Finished cells are kept in the runs folder (``cells.py``) and not done again, so the command may be
stopped and given again at any time, and a larger study goes on from a smaller one; under changed
settings cells are made anew, and the old ones stay. Budgets, wordings and best strengths are chosen
on LookBench's tuning sources, which are never scored. Writes ``study.json``, curves as SVG, sheets
of pictures and a page of tables and findings, which follow from the rows, whichever way they fall.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from customedit import images
from customedit.diffusion.base import Base
from customedit.editing.method_settings import RANDOM
from customedit.experiments.cells import Cell, Cells, Outcome, bounds
from customedit.experiments.comparison import Comparison
from customedit.experiments.report import Finding, page
from customedit.experiments.result_cache import OnProgress, Row
from customedit.experiments.variants import Plan, Training, Variant
from customedit.images.layout import labelled, tiled_rows
from customedit.metrics.similarity import Similarity


class Study:
    """Runs the cells of ``plan``, variant by variant.

    on_cell: told how many cells are done, of how many, and the last one's name.
    """

    def __init__(
        self, cells: Cells, plan: Plan, on_cell: Callable[[int, int, str], None] | None = None
    ) -> None:
        self.cells, self.plan, self.on_cell = cells, plan, on_cell
        self.rows: list[Row] = []
        self.strengths: dict[tuple[str, str], float] = {}
        self.budgets: dict[str, Training] = {}
        self.sheets: dict[str, list[Path]] = {look.name: [] for look in plan.bench.looks}
        looks = len(plan.bench.looks)
        self._of = sum(looks * len(self.runs(variant)) for variant in plan.variants)
        self._done = 0

    def runs(self, variant: Variant) -> dict[int, Variant]:
        """By seed what is run of ``variant``, beginning with all of it.

        Without a training nothing is left to chance but what an editor draws: the others run once.
        """
        first, *more = self.plan.seeds
        if variant.words is None:
            return dict.fromkeys(self.plan.seeds, variant)
        random = tuple(editor for editor in variant.editors if editor in RANDOM)
        again = dataclasses.replace(variant, editors=random)
        return {first: variant, **(dict.fromkeys(more, again) if random else {})}

    def run(self) -> None:
        """Run what is not run yet."""
        common: Training = {}
        for variant in self.plan.variants:
            budget = self.cells.best_budget(variant) if variant.budgets else common
            if variant is self.plan.variants[0]:
                common = budget
            if len(variant.budgets) > 1:
                self.budgets[variant.name] = budget
            looks = self.plan.bench.looks
            wordings = [self.cells.wording(variant, look) for look in looks]
            for look, wording in zip(looks, wordings, strict=True):
                for seed, run in self.runs(variant).items():
                    cell = Cell(run, look, seed, budget, wording)
                    self._add(cell, self.cells.run(cell, self.plan.bench.sources))
            chosen = self.cells.strengths(variant, budget, wordings)
            self.strengths |= {(variant.name, editor): s for editor, s in chosen.items()}

    def _add(self, cell: Cell, outcome: Outcome) -> None:
        self.rows += outcome.rows
        if cell.seed == self.plan.seeds[0]:
            self.sheets[cell.look.name].append(outcome.sheet)
        self._done += 1
        if self.on_cell is not None:
            state = "kept" if outcome.was_kept else "drawn"
            name = f"{cell.variant.name}, {cell.look.name}, seed {cell.seed}: {state}"
            self.on_cell(self._done, self._of, name)

    def sheet(self, look: str) -> Image.Image:
        """The first source of ``look``: a variant a row, a strength a picture."""
        rows = []
        for variant, path in zip(self.plan.variants, self.sheets[look], strict=True):
            grid = Image.open(path)
            side = grid.width // len(variant.strengths)
            rows.append(
                [
                    labelled(
                        grid.crop((k * side, 0, (k + 1) * side, side)),
                        [variant.name, f"strength {strength:g}"],
                    )
                    for k, strength in enumerate(variant.strengths)
                ]
            )
        return tiled_rows(rows)


def study(
    base: Base,
    judge: Similarity,
    plan: Plan,
    folder: Path,
    *,
    page_file: Path | None = None,
    on_progress: OnProgress | None = None,
    on_cell: Callable[[int, int, str], None] | None = None,
) -> list[Row]:
    """Run what is not run yet and write everything; returns the rows of the scored sources."""
    folder.mkdir(parents=True, exist_ok=True)
    running = Study(Cells(base, judge, plan, folder, on_progress), plan, on_cell)
    running.run()
    bench, distances = plan.bench, bounds(plan, base)
    comparison = Comparison(
        running.rows,
        [look.name for look in bench.looks],
        [source.name for source in bench.sources],
        [look.family for look in bench.looks],
        distances["nothing"],
        distances["copy"],
    )
    findings = compare(comparison, plan, running.strengths)
    report: dict[str, Any] = {
        "bench": bench.identity(),
        "base": base.fingerprint,
        "steps": plan.steps,
        "findings": [found.as_dict() for found in findings],
        "best_strengths": [[*key, strength] for key, strength in running.strengths.items()],
        "budgets": {name: dict(budget) for name, budget in running.budgets.items()},
        "rows": running.rows,
    }
    (folder / "study.json").write_text(json.dumps(report, indent=1) + "\n")
    sheets = {f"study-{look.slug}.jpg": running.sheet(look.name) for look in bench.looks}
    first = plan.variants[0].name
    written = page(
        comparison, findings, running.strengths, running.budgets, list(sheets), first, plan.steps
    )
    target = page_file or folder / "study.md"
    for name, picture in sheets.items():
        images.write(picture, target.parent / name)
    for name, curve in written.curves.items():
        (target.parent / name).write_text(curve)
    target.write_text(written.text)
    return running.rows


def compare(
    comparison: Comparison, plan: Plan, strengths: dict[tuple[str, str], float]
) -> list[Finding]:
    """The first variant against every other, by each editor that both run."""
    first = plan.variants[0]
    return [
        Finding(
            other.name,
            editor,
            comparison.at_equal_source(first.name, other.name, editor),
            comparison.at_best(first.name, other.name, editor, strengths),
        )
        for other in plan.variants[1:]
        for editor in other.editors
        if editor in first.editors
    ]
