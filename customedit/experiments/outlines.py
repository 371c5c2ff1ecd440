"""How well outlines of things are found: ``python -m customedit.experiments.outlines``.

LookBench's sources have the share of each pixel that the thing covers. Of each its 16 x 16 cells
are taken, and one more around, as attention maps give a region; measured is what ``outline_region``
makes of it by the picture, with the colours' part in the walk and without. The 24 sources of the
public set, on which its numbers were chosen, are told apart from the 40 others. Nothing is drawn.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from scipy import ndimage

from customedit.images import outline
from customedit.metrics.lookbench.dataset import SourcePicture, bundled
from customedit.metrics.lookbench.regions import Regions
from customedit.mini.figures import iou

CELLS: Final = 16
"""Of attention maps a side, on the bundled base."""

COVERED: Final = 0.3
"""Share of a cell from which on the thing's maps show there."""


@dataclass(frozen=True)
class Outlined:
    """What an outline is worth, against the thing's true coverage.

    overlap: IoU of the pixels of which half is the thing's, in [0, 1]; ring: mean of the
    squares of what the outline has in the ring round the thing, of which the squared error of an
    edit there is in proportion; lost: mean share that it lacks inside the thing.
    """

    overlap: float
    ring: float
    lost: float


def cells_of(coverage: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """The region of a thing as attention maps give it, [CELLS, CELLS], 0 or 1: a cell too wide.

    coverage: [h, w] in [0, 1], how much of each pixel is the thing's.
    """
    picture = Image.fromarray(np.asarray(coverage, np.float32))
    shares = np.asarray(picture.resize((CELLS, CELLS), Image.Resampling.BOX))
    return np.asarray(ndimage.maximum_filter((shares > COVERED).astype(np.float32), 3))


def measure(source: SourcePicture) -> Outlined:
    """The outline of one source, found from ``cells_of`` its thing."""
    picture = Image.fromarray(source.image)
    found = outline.outline_region(cells_of(source.coverage), picture)
    regions = Regions.of(source.coverage)
    return Outlined(
        overlap=iou(found > 0.5, regions.inside),
        ring=float((found[regions.ring].astype(np.float64) ** 2).mean()),
        lost=float(1 - found[regions.inside].mean(dtype=np.float64)),
    )


@contextmanager
def without_colours() -> Iterator[None]:
    """Outlines by edges alone: as where the histograms of both sides are too much alike."""
    before = outline.OVERLAP
    setattr(outline, "OVERLAP", -1.0)  # noqa: B010  # it is Final for everybody else
    try:
        yield
    finally:
        setattr(outline, "OVERLAP", before)  # noqa: B010


def summary(measured: Sequence[Outlined]) -> dict[str, Any]:
    """How many, the overlap's mean and least, and the means of the rest; nothing of none."""
    if not measured:
        return {"sources": 0}
    return {
        "sources": len(measured),
        "overlap_mean": round(statistics.fmean(one.overlap for one in measured), 3),
        "overlap_least": round(min(one.overlap for one in measured), 3),
        "ring_mean": round(statistics.fmean(one.ring for one in measured), 4),
        "lost_mean": round(statistics.fmean(one.lost for one in measured), 4),
    }


def main(
    sources: Annotated[
        int, typer.Option(min=1, max=64, help="Of LookBench's full set, evenly taken.")
    ] = 64,
    out: Annotated[Path | None, typer.Option(help="Write the figures here, too.")] = None,
) -> None:
    """Measure the outlines of sources of LookBench against their true masks."""
    bench, console = bundled("full").select(sources=sources), Console()
    public = {source.name for source in bundled("public").sources}
    pictures = [(source.name in public, bench.picture(source)) for source in bench.sources]
    told: dict[str, Any] = {}

    def tell(way: str) -> None:
        measured = [(ours, measure(picture)) for ours, picture in pictures]
        told[way] = {
            "all": summary([one for _, one in measured]),
            "public": summary([one for ours, one in measured if ours]),
            "others": summary([one for ours, one in measured if not ours]),
        }
        console.print(way, told[way])

    tell("with colours")
    with without_colours():
        tell("without colours")
    if out is not None:
        out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
