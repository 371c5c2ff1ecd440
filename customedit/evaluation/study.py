"""The paper's comparison on the bundled base and samples: ``customedit study``.

Arms (``arms.py``) x looks x sources x strengths, each edit measured. Finished cells are kept in the
runs folder and not done again, so the command may be stopped and given again at any time. Writes
``study.json``, curves as SVG, picture grids and a page of tables and findings. The findings are
reckoned from the rows, whichever way they fall.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from customedit import images
from customedit.concepts.concept import Concept
from customedit.concepts.dreambooth import dreambooth
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import customize
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine, Progress, run
from customedit.diffusion.text import Weighted
from customedit.editing.edit import edit
from customedit.editing.prompt_to_prompt import P2PSettings
from customedit.evaluation.arms import ARMS, LOOKS, Arm
from customedit.evaluation.kept import keep_rows, kept, kept_concept
from customedit.evaluation.measure import mask_tensor, measure
from customedit.evaluation.pages import page
from customedit.evaluation.similarity import Similarity
from customedit.mini import samples

Row = dict[str, Any]
Heard = Callable[[Progress], None]


@dataclass(frozen=True)
class Plan:
    """How much is run: looks and sources, DDIM steps, training steps (None for the defaults)."""

    looks: tuple[samples.Look, ...]
    sources: tuple[samples.Source, ...]
    arms: tuple[Arm, ...] = ARMS
    steps: int = 50
    training_steps: int | None = None

    @classmethod
    def whole(cls) -> Plan:
        """Four looks on every sixth source; 25 DDIM steps, so that two hours suffice."""
        looks = tuple(x for x in samples.looks() if x.name in LOOKS)
        return cls(looks, samples.sources()[::6], steps=25)

    @classmethod
    def quick(cls) -> Plan:
        """Minutes instead of hours, for checks: its figures mean nothing."""
        arms = tuple(a for a in ARMS if a.inversion != "null-text")
        return cls(samples.looks()[:1], samples.sources()[:1], arms, steps=4, training_steps=3)


def settings_of(base: Base, arm: Arm, plan: Plan) -> TrainingSettings:
    """The training of ``arm``."""
    few = {} if plan.training_steps is None else {"class_images": 2, "class_steps": 2, "crops": 2}
    none = {} if arm.prior else {"class_images": 0}
    return TrainingSettings.of(base, way=arm.way, steps=plan.training_steps, **few | none)


def learned(
    base: Base, arm: Arm, look: samples.Look, plan: Plan, folder: Path, heard: Heard | None
) -> tuple[Base, Concept]:
    """What ``arm`` edits with: the base or DreamBooth's own, and the concept."""
    references = [Image.open(p).convert("RGB") for p in look.images]
    settings, prompts = settings_of(base, arm, plan), arm.prompts(look)
    name = f"{arm.trained}-{look.name.replace(' ', '-')}"
    cache = folder / "classes"
    if arm.way == "dreambooth":  # a whole model: its training checkpoint is what is kept
        file = folder / f"{name}.checkpoint.safetensors"
        method = dreambooth(base, references, prompts, settings, resume=file, class_cache=cache)
        return run(base, method, heard)
    file = folder / f"{name}.safetensors"
    if (before := kept_concept(base, file, settings)) is not None:
        return base, before
    file.parent.mkdir(parents=True, exist_ok=True)
    made = run(base, customize(base, references, prompts, settings, class_cache=cache), heard)
    made.save(file)
    return base, made


def run_cell(
    base: Base,
    judge: Similarity,
    arm: Arm,
    look: samples.Look,
    plan: Plan,
    folder: Path,
    heard: Heard | None = None,
) -> list[Row]:
    """All edits of one arm with one look, or the rows that are kept of them."""
    file = folder / "cells" / f"{arm.name} {look.name}.json".replace(" ", "-")
    about = about_cell(base, arm, plan)
    if (before := kept(file, about)) is not None:
        return before
    model, concept = learned(base, arm, look, plan, folder / "concepts", heard)
    references = [Image.open(p).convert("RGB") for p in look.images]
    engine = Engine(model, max_rows=24)
    jobs = []
    for editor in arm.editors:
        for source in plan.sources:
            picture = Image.open(source.image).convert("RGB")
            for strength in arm.strengths:
                settings = arm.settings(source, look, editor, strength, plan.steps)
                keep = folder / "inversions" if model is base else None
                method = edit(model, picture, settings, [Weighted(concept)], keep=keep)
                ticket = engine.submit(method, on_progress=heard)
                jobs.append((editor, source, strength, settings, ticket))
    while not engine.idle:
        engine.tick()
    rows, tiles = [], []
    for editor, source, strength, settings, ticket in jobs:
        result = ticket.result()
        mask = mask_tensor(Image.open(source.mask))
        found = measure(judge, result, settings.target_prompt, references, mask)
        rows.append(
            {"arm": arm.name, "editor": editor, "look": look.name, "source": source.name,
             "strength": strength, **found.as_dict()}
        )  # fmt: skip
        tiles.append(result.working)
    (folder / "grids").mkdir(parents=True, exist_ok=True)
    grid(tiles, len(arm.strengths)).save(folder / "grids" / file.with_suffix(".png").name)
    keep_rows(file, about, rows)
    return rows


def about_cell(base: Base, arm: Arm, plan: Plan) -> Row:
    """What decides the rows of a cell."""
    return {
        "base": base.fingerprint,
        "arm": dataclasses.asdict(arm),
        "training": dataclasses.asdict(settings_of(base, arm, plan)),
        "guidance": base.guidance,
        "p2p": dataclasses.asdict(P2PSettings()),
        "steps": plan.steps,
        "sources": [s.name for s in plan.sources],
    }


def grid(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures in rows of ``columns``: a source a row, strengths rising to the right."""
    width, height = tiles[0].size
    out = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height))
    for k, tile in enumerate(tiles):
        out.paste(tile, ((k % columns) * width, (k // columns) * height))
    return out


def sheet(folder: Path, plan: Plan, look: samples.Look) -> Image.Image:
    """The first source with ``look``: an arm a row, strengths rising to the right."""
    name = look.name.replace(" ", "-")
    tiles = []
    for arm in plan.arms:
        cell = Image.open(folder / "grids" / f"{arm.name.replace(' ', '-')}-{name}.png")
        side = cell.width // len(arm.strengths)
        tiles.append(cell.crop((0, 0, cell.width, side)))
    side = tiles[0].height
    out = Image.new("RGB", (max(t.width for t in tiles), side * len(tiles)), "white")
    for k, tile in enumerate(tiles):
        out.paste(tile, (0, k * side))
    return out


def means(rows: Sequence[Row]) -> dict[tuple[str, str, float], dict[str, float]]:
    """(arm, editor, strength) to the mean of every similarity."""
    sets: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        sets.setdefault((row["arm"], row["editor"], row["strength"]), []).append(row)
    names = ("source", "reference", "text", "outside_psnr", "outside_ssim")
    return {
        key: {
            n: statistics.fmean(v)
            for n in names
            if (v := [r[n] for r in found if r[n] is not None])
        }
        for key, found in sets.items()
    }


def reference_at(
    table: dict[tuple[str, str, float], dict[str, float]], arm: str, editor: str, source: float
) -> float | None:
    """Reference similarity of an arm where its source similarity is ``source``, interpolated.

    None where its curve does not reach.
    """
    points = sorted(
        (v["source"], v["reference"]) for (a, e, _), v in table.items() if (a, e) == (arm, editor)
    )
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    if not xs or not xs[0] <= source <= xs[-1]:
        return None
    return float(np.interp(source, xs, ys))


def advantage(
    table: dict[tuple[str, str, float], dict[str, float]], arm: str, other: str, editor: str
) -> float | None:
    """Mean of ``arm``'s reference similarity minus ``other``'s, at equal source similarity.

    Over the source similarities that both curves reach; None where they share none.
    """
    spans = [
        [v["source"] for (a, e, _), v in table.items() if (a, e) == (name, editor)]
        for name in (arm, other)
    ]
    if not all(spans):
        return None
    low, high = max(map(min, spans)), min(map(max, spans))
    if low > high:
        return None
    gaps = []
    for at in np.linspace(low, high, 9):
        a, b = (reference_at(table, name, editor, float(at)) for name in (arm, other))
        if a is not None and b is not None:
            gaps.append(a - b)
    return statistics.fmean(gaps) if gaps else None


def study(
    base: Base,
    judge: Similarity,
    plan: Plan,
    folder: Path,
    *,
    page_file: Path | None = None,
    heard: Heard | None = None,
    on_cell: Callable[[int, int, str], None] | None = None,
) -> list[Row]:
    """Run what is not run yet and write everything; returns all rows."""
    rows: list[Row] = []
    cells = [(arm, look) for arm in plan.arms for look in plan.looks]
    for number, (arm, look) in enumerate(cells):
        rows += run_cell(base, judge, arm, look, plan, folder, heard)
        if on_cell is not None:
            on_cell(number + 1, len(cells), f"{arm.name}, {look.name}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(rows, indent=1) + "\n")
    table = means(rows)
    first = plan.arms[0].name
    gaps: dict[tuple[str, str], float | None] = {
        (arm.name, editor): advantage(table, first, arm.name, editor)
        for arm in plan.arms[1:]
        for editor in arm.editors
    }
    sheets = {f"study-{x.name.replace(' ', '-')}.jpg": sheet(folder, plan, x) for x in plan.looks}
    told = page(table, gaps, list(sheets), first, plan.steps, len(plan.looks), len(plan.sources))
    target = page_file or folder / "study.md"
    for name, picture in sheets.items():
        images.write(picture, target.parent / name)
    for name, curve in told.curves.items():
        (target.parent / name).write_text(curve)
    target.write_text(told.text)
    return rows
