"""Pictures of a scoring, for a person to look at what the figures say; the worst ones included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from customedit import images
from customedit.images.layout import labelled, tiled_rows
from customedit.metrics.lookbench.colour import Pixels
from customedit.metrics.lookbench.dataset import Bench
from customedit.metrics.lookbench.looks import Look
from customedit.metrics.lookbench.measures import reduced
from customedit.metrics.lookbench.results import Results
from customedit.metrics.lookbench.scores import HEADINGS, Copier, Kind, Row, pictures_of
from customedit.metrics.lookbench.sources import Source

WORST: Final = 16
"""Edits on the sheet of the worst."""

ORDER: Final[tuple[Kind, ...]] = ("nothing", "edit", "answer", "copy", "words")
"""Of a pair's pictures from left to right."""


def write(
    bench: Bench, pictures: Results, copier: Copier | None, rows: Sequence[Row], folder: Path
) -> None:
    """Write ``LOOK.png`` of every look and ``worst.png`` into ``folder``, which must be there."""
    by_pair: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_pair.setdefault((row.look, row.source), []).append(row)
    furthest: dict[tuple[str, str], list[Image.Image]] = {pair: [] for pair in worst(rows)}
    for look in bench.looks:
        lines = []
        for source in bench.sources:
            pair = look.name, source.name
            shown = pictures_of(bench, pictures, copier, look, source)
            lines.append(list(_line(look, source, shown, by_pair[pair])))
            if pair in furthest:
                furthest[pair] = lines[-1]
        _save([_headed(bench, look, len(lines[0])), *lines], folder / f"{look.slug}.png")
    _save(list(furthest.values()), folder / "worst.png")


def worst(rows: Sequence[Row], count: int = WORST) -> list[tuple[str, str]]:
    """The pairs whose edits are furthest from the right answer beyond its copy, the worst first."""
    excess: dict[tuple[str, str], float] = {}
    for beyond, row in beyond_copy(rows):
        pair = row.look, row.source
        excess[pair] = max(excess.get(pair, -np.inf), beyond)
    return sorted(excess, key=lambda pair: -excess[pair])[:count]


def beyond_copy(rows: Sequence[Row]) -> list[tuple[float, Row]]:
    """Every edit, and how much further than its copy by the autoencoder it is, in Lab units.

    Further from the right answer: how far a copy is no edit can help.
    """
    copies = {(r.look, r.source): r.measures.distance for r in rows if r.kind == "copy"}
    return [
        (row.measures.distance - copies[row.look, row.source], row)
        for row in rows
        if row.kind == "edit"
    ]


def _line(
    look: Look, source: Source, shown: Sequence[tuple[Kind, int, Pixels]], rows: Sequence[Row]
) -> Iterator[Image.Image]:
    measured = {(row.kind, row.seed): row.measures for row in rows}
    for wanted in ORDER:
        for kind, seed, pixels in shown:
            if kind != wanted:
                continue
            measures = measured[kind, seed]
            several = kind == "edit" or sum(other == kind for other, _, _ in shown) > 1
            name = HEADINGS[kind] + (f" {seed}" if several else "")
            ring = "" if measures.ring is None else f" ring {measures.ring:.0f} dB"
            shape = "" if measures.iou is None else f" IoU {measures.iou:.2f}"
            labels = [
                f"{look.name}, {source.name}",
                name,
                f"{measures.distance:.1f} Lab{ring}{shape}",
            ]
            yield labelled(
                Image.fromarray(reduced(pixels)),
                labels,
                wrong=(False, False, measures.right is False),
            )


def _headed(bench: Bench, look: Look, columns: int) -> list[Image.Image]:
    """The look's references as the sheet's first line, as many as there is room for."""
    return [
        labelled(Image.fromarray(reduced(picture)), [look.name, "reference"])
        for picture in bench.references(look)[:columns]
    ]


def _save(lines: Sequence[Sequence[Image.Image]], path: Path) -> None:
    if lines:
        images.write(tiled_rows(lines), path)
