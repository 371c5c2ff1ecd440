"""Which recipe's looks leak least: ``python -m customedit.experiments.recipes``.

Each variant differs from the recipe ``paper`` in one option of the training or of the edits, or is
a recipe of its own. Every variant trains every look several times, unless one that only edits
differently has trained it, and paints it on LookBench's sources; its figures are compared with
those of ``paper`` on the same draws of looks, sources and training seeds (paired bootstrap). What
is there is not made again: a run may be stopped and given again, and a larger one goes on from a
smaller one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from customedit.diffusion.base import Base
from customedit.errors import InputError
from customedit.experiments.lookbench.editor import LibraryEditor, Recipe
from customedit.experiments.lookbench.run import Run, run
from customedit.experiments.result_cache import ROWS, digest_of_judge, named
from customedit.experiments.variants import LOOKS
from customedit.files import replacing
from customedit.metrics.lookbench import results
from customedit.metrics.lookbench.dataset import RenderedBench, SeveralClasses, bundled
from customedit.metrics.lookbench.intervals import Draws, Estimate, over_looks
from customedit.metrics.lookbench.measures import Measures
from customedit.metrics.lookbench.scores import Row, bundled_judge, figures_by_look, measure_all
from customedit.mini.judge import Judge

REFERENCE: Final = "paper"

FIGURES: Final = (
    ("gap", "gap closed", 2),
    ("ring", "ring, dB", 1),
    ("beyond", "beyond, dB", 1),
    ("iou", "IoU", 2),
    ("right", "class right", 2),
)
"""Of the table: the figure, its words, digits; more is better in all."""


@dataclass(frozen=True)
class Variant:
    """One way to train and edit.

    settings: fields of ``TrainingSettings``; rate: the learning rate as a share of the recipe's, 1
    to leave it; several: whether the references show things of several classes; edits: fields of
    ``Recipe`` that differ from those of all edits.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    several: bool = False
    edits: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, base: Base, common: Recipe, steps: int | None = None) -> Recipe:
        """How looks are learned and painted; common: what all variants have; steps: of training.

        A strength in ``common`` is of its method alone, and no other variant's than those that
        edit by the same method. Raises InputError for what cannot go together.
        """
        own = dict(self.edits)
        if own.keys() & {"method", "change"}:
            own = {"strength": None, "change": None, **own}
        return dataclasses.replace(common, **own, training=self.training(base, steps))

    def training(self, base: Base, steps: int | None) -> dict[str, Any]:
        """What differs from ``TrainingSettings.of`` the base."""
        from customedit.concepts.settings import TrainingSettings

        given = {"recipe": REFERENCE, **self.settings}
        if steps is not None:
            given["steps"] = steps
        if self.rate != 1:
            given["rate"] = self.rate * TrainingSettings.of(base, **given).rate
        return given


INTERVAL: Final = {"guidance_start": 0.2, "guidance_end": 0.9}
"""The noise levels from 5.42 down to 0.28 that arXiv 2404.07724 takes for Stable Diffusion XL, as
shares of the steps of its schedule: 0.19 and 0.93, to a tenth."""

VARIANTS: Final = (
    Variant(REFERENCE),
    Variant("token columns", {"columns": "token"}),
    Variant("half the rate", rate=0.5),
    Variant("a quarter of the rate", rate=0.25),
    Variant("falling rate", {"rate_schedule": "cosine"}),
    Variant("rank 4", {"rank": 4}),
    Variant("average", {"ema": 0.95}),
    Variant("min-SNR", {"snr_gamma": 5.0}),
    Variant("larger crops", {"crop_cells": 12}),
    Variant("cells weighed", {"weigh_cells": True}),
    Variant("noun alone", {"focus": "noun"}),
    Variant("prior of four classes", {"prior_classes": 4}),
    Variant("references of several classes", several=True),
    Variant("contained", {"recipe": "contained"}),
    Variant("contained, several classes", {"recipe": "contained"}, several=True),
    Variant("guidance 2.5", edits={"guidance": 2.5}),
    Variant("guidance in an interval", edits=INTERVAL),
    Variant("token columns, guidance 2.5", {"columns": "token"}, edits={"guidance": 2.5}),
    Variant("contained, guidance 2.5", {"recipe": "contained"}, edits={"guidance": 2.5}),
    Variant("change 0.7", edits={"change": 0.7}),
    Variant("masactrl", edits={"method": "masactrl"}),
    Variant("pnp", edits={"method": "pnp"}),
    Variant("ddpm", edits={"method": "ddpm"}),
    Variant("directedit", edits={"method": "directedit"}),
    Variant("sdedit", edits={"method": "sdedit"}),
)
"""The first is what the others are compared with. Editors are at their defaults; FlowEdit needs a
base of flow matching."""


@dataclass(frozen=True)
class Search:
    """What is compared, and how it is edited.

    folder: keeps concepts, pictures and rows; seeds: trainings of each look; steps: of a training,
    None for the base's default; edits: how looks are painted where the variant says nothing else.
    """

    base: Base
    bench: RenderedBench
    folder: Path
    seeds: int
    steps: int | None = None
    edits: Recipe = field(default_factory=Recipe)

    def rows(self, variant: Variant, judge: Judge, console: Console) -> list[Row]:
        """The measures of a variant's pictures: made, or found where they were kept."""
        bench = SeveralClasses(self.bench) if variant.several else self.bench
        recipe = variant.recipe(self.base, self.edits, self.steps)
        editor = LibraryEditor(self.base, recipe, self.folder)

        def told(done: int, of: int, what: str) -> None:
            console.print(f"{variant.name}: {done} of {of}, {what}", highlight=False)

        done = run(
            bench, editor, self.folder, seeds=range(self.seeds), words=False, on_picture=told
        )
        file = done.folder / f"{named('rows', self._about(done, bench))}.json"
        if file.exists():
            return read_rows(file)
        found = results.read(done.folder, bench, range(self.seeds), words=False)
        rows = measure_all(bench, found, None, judge)
        with replacing(file) as draft:
            draft.write_text(json.dumps([dataclasses.asdict(row) for row in rows]) + "\n")
        return rows

    def _about(self, done: Run, bench: RenderedBench) -> dict[str, Any]:
        """All that decides the rows of a run, as plain data."""
        return {
            "version": ROWS,
            "judge": digest_of_judge(),
            "run": done.about,
            "looks": [look.name for look in bench.looks],
            "sources": [source.name for source in bench.sources],
            "seeds": self.seeds,
        }


def read_rows(file: Path) -> list[Row]:
    """The rows that a run kept."""
    kept = json.loads(file.read_text())
    return [Row(**{**row, "measures": Measures(**row["measures"])}) for row in kept]


@dataclass(frozen=True)
class Compared:
    """A variant's figures, and what they are above those of ``paper``; by measure."""

    variant: str
    figures: Mapping[str, Estimate]
    above: Mapping[str, Estimate]

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            name: {
                **figure.as_dict(),
                "above_paper": {**self.above[name].as_dict(), "verdict": self.above[name].verdict},
            }
            for name, figure in self.figures.items()
        }


def compared(bench: RenderedBench, seeds: int, rows: Mapping[str, Sequence[Row]]) -> list[Compared]:
    """Every variant of ``rows`` beside ``paper``, which is one of them, on the same draws."""
    draws = Draws.of([look.family for look in bench.looks], len(bench.sources), seeds)
    means = {name: figures_by_look(bench, own, draws) for name, own in rows.items()}
    paper = means[REFERENCE]
    return [
        Compared(
            variant,
            {name: over_looks(own[name]["edit"], draws) for name, _, _ in FIGURES},
            {
                name: over_looks(own[name]["edit"] - paper[name]["edit"], draws)
                for name, _, _ in FIGURES
            },
        )
        for variant, own in means.items()
    ]


def table(found: Sequence[Compared], bench: RenderedBench, seeds: int) -> list[str]:
    """The comparison as lines of Markdown."""
    lines = [
        f"{len(bench.looks)} looks x {len(bench.sources)} sources x {seeds} training seeds; in "
        "brackets what a variant has above `paper`, with its 95 % interval and verdict",
        "",
        "| variant | " + " | ".join(words for _, words, _ in FIGURES) + " |",
        "|---|" + "---|" * len(FIGURES),
    ]
    for one in found:
        cells = []
        for name, _, digits in FIGURES:
            text = f"{one.figures[name].value:.{digits}f}"
            if one.variant != REFERENCE:
                above = one.above[name]
                low, high = (f"{x:+.{digits}f}" for x in (above.low, above.high))
                text += f" ({above.value:+.{digits}f}, {low} to {high}, {above.verdict})"
            cells.append(text)
        lines.append(f"| {one.variant} | " + " | ".join(cells) + " |")
    return lines


def chosen_variants(names: Sequence[str]) -> list[Variant]:
    """The variants of these names, all without any; ``paper`` is always the first.

    Raises InputError for a name that is unknown.
    """
    known = {v.name: v for v in VARIANTS}
    for name in names:
        if name not in known:
            raise InputError("variant", f"{name!r} is unknown", f"take one of {', '.join(known)}")
    wanted = dict.fromkeys([REFERENCE, *(names or known)])
    return [known[name] for name in wanted]


def search(of: Search, variants: Sequence[Variant], console: Console) -> list[Compared]:
    """Train, paint, measure and compare; the report is written anew after every variant."""
    judge, rows = bundled_judge(), {}
    found: list[Compared] = []
    for variant in variants:
        rows[variant.name] = of.rows(variant, judge, console)
        found = compared(of.bench, of.seeds, rows)
        lines = table(found, of.bench, of.seeds)
        told = {
            "base": of.base.fingerprint,
            "looks": [look.name for look in of.bench.looks],
            "sources": [source.name for source in of.bench.sources],
            "seeds": of.seeds,
            "recipes": {v.name: v.recipe(of.base, of.edits, of.steps).about() for v in variants},
            "variants": {one.variant: one.as_dict() for one in found},
        }
        with replacing(of.folder / "recipes.json") as draft:
            draft.write_text(json.dumps(told, indent=1) + "\n")
        with replacing(of.folder / "recipes.md") as draft:
            draft.write_text("\n".join(lines) + "\n")
        console.print("\n".join([*lines[2:4], lines[-1]]), highlight=False)
    return found


def main(
    base: Annotated[str, typer.Option(help="A base folder, or mini.")] = "mini",
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Concepts, pictures and report; kept between runs.")
    ] = Path("runs/recipes"),
    look: Annotated[list[str] | None, typer.Option(help="A look of LookBench; repeatable.")] = None,
    sources: Annotated[int, typer.Option(min=1, max=24, help="So many, evenly spaced.")] = 6,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each look.")] = 3,
    variant: Annotated[
        list[str] | None, typer.Option(help="A variant beside paper; repeatable, all without any.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps of an edit.")] = 25,
    strength: Annotated[float | None, typer.Option(help="Of the edits.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Of the edits.")] = None,
    training_steps: Annotated[
        int | None, typer.Option(min=1, help="Instead of the base's default.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Compare recipes by LookBench; nothing is put back outside the edited region."""
    variants = chosen_variants(variant or ())
    bench = bundled("public").select(look or LOOKS, sources)
    assert isinstance(bench, RenderedBench)
    edits = Recipe(steps=steps, strength=strength, guidance=guidance, preserve=False)
    model = Base.load(base, device=device)
    search(Search(model, bench, out, seeds, training_steps, edits), variants, Console())


if __name__ == "__main__":
    typer.run(main)
