"""The paper's comparison on the bundled base and samples: ``customedit study``.

Variants (``variants.py``) x looks x sources x strengths, each edit measured. Finished cells are
kept in the runs folder (``result_cache.py``) and not done again, so the command may be stopped and
given again at any time; under changed settings they are made anew, and the old ones stay. Writes
``study.json``, curves as SVG, picture grids and a page of tables and findings. The findings are
reckoned from the rows, whichever way they fall.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from customedit import images
from customedit.diffusion.base import Base
from customedit.experiments.cells import Cell, run_cell
from customedit.experiments.comparison import advantage, means
from customedit.experiments.report import page
from customedit.experiments.result_cache import OnProgress, Row
from customedit.experiments.variants import Plan
from customedit.images.layout import tiled
from customedit.metrics.similarity import Similarity


def sheet(cells: Sequence[Cell], plan: Plan) -> Image.Image:
    """The first source: a variant a row, strengths rising to the right."""
    tiles = []
    for variant, cell in zip(plan.variants, cells, strict=True):
        whole = Image.open(cell.grid)
        tiles.append(whole.crop((0, 0, whole.width, whole.width // len(variant.strengths))))
    return tiled(tiles, 1)


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
    """Run what is not run yet and write everything; returns all rows.

    on_cell: told how many cells are done, of how many, and the last one's name with what of it was
    kept from an earlier run.
    """
    cells: dict[tuple[str, str], Cell] = {}
    count = len(plan.variants) * len(plan.looks)
    for variant, look in itertools.product(plan.variants, plan.looks):
        cell = run_cell(base, judge, variant, look, plan, folder, on_progress)
        cells[variant.name, look.name] = cell
        if on_cell is not None:
            on_cell(len(cells), count, f"{variant.name}, {look.name}: {cell.told}")
    rows = [row for cell in cells.values() for row in cell.rows]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(rows, indent=1) + "\n")
    table = means(rows)
    first = plan.variants[0].name
    gaps: dict[tuple[str, str], float | None] = {
        (variant.name, editor): advantage(table, first, variant.name, editor)
        for variant in plan.variants[1:]
        for editor in variant.editors
    }
    sheets = {
        f"study-{look.name.replace(' ', '-')}.jpg": sheet(
            [cells[variant.name, look.name] for variant in plan.variants], plan
        )
        for look in plan.looks
    }
    told = page(table, gaps, list(sheets), first, plan.steps, len(plan.looks), len(plan.sources))
    target = page_file or folder / "study.md"
    for name, picture in sheets.items():
        images.write(picture, target.parent / name)
    for name, curve in told.curves.items():
        (target.parent / name).write_text(curve)
    target.write_text(told.text)
    return rows
