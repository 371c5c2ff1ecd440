"""Several edits of one picture compared: the best one, a contact sheet, a trade-off curve.

The best is the one with the greatest harmonic mean of source and reference similarity (of source
and text similarity without references): it neither forgets the source nor misses the look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image
from torch import Tensor

from customedit.editing.edit import EditResult
from customedit.images.layout import Colour, labelled, tiled
from customedit.metrics import curves
from customedit.metrics.curves import Line, Point
from customedit.metrics.lpips import Lpips
from customedit.metrics.similarity import Dino, Similarities, Similarity, measure

STRENGTHS: Final = (0.2, 0.4, 0.5, 0.6, 0.8)
"""Of a sweep where none are given."""

FRAME: Final[Colour] = (30, 140, 60)
"""The colour of the frame around the best edit of a contact sheet."""


@dataclass(frozen=True, eq=False)
class MeasuredEdit:
    """An edit and its similarities."""

    result: EditResult
    similarities: Similarities


def measure_edit(
    judge: Similarity,
    result: EditResult,
    references: Sequence[Image.Image] = (),
    region: Tensor | None = None,
    *,
    dino: Dino | None = None,
    lpips: Lpips | None = None,
) -> MeasuredEdit:
    """Measure ``result`` against its source. region: the true one, None for that of the edit."""
    where = result.region if region is None else region
    prompt = result.plan.target_prompt
    similarities = measure(
        judge, result.image, result.source, prompt, references, where, dino=dino, lpips=lpips
    )
    return MeasuredEdit(result, similarities)


def score(similarities: Similarities) -> float:
    """The harmonic mean that the best edit has most of; 0 if either side is not positive."""
    source, other = similarities.source, _other(similarities)
    if source <= 0 or other <= 0:
        return 0.0
    return 2 * source * other / (source + other)


def best(edits: Sequence[MeasuredEdit]) -> MeasuredEdit:
    """The edit with the greatest ``score``; among equals the first."""
    return max(edits, key=lambda edit: score(edit.similarities))


def contact_sheet(edits: Sequence[MeasuredEdit], columns: int = 5) -> Image.Image:
    """The source and the edits with their labels, at the working size; the best has a frame."""
    chosen = best(edits)
    cells = [(e.result, _label(e), FRAME if e is chosen else None) for e in edits]
    return _sheet(cells, columns)


def plain_sheet(results: Sequence[EditResult], columns: int = 5) -> Image.Image:
    """The source and the edits with strengths and seeds, where no CLIP compares them."""
    return _sheet([(result, [_knobs(result)], None) for result in results], columns)


def _sheet(
    edits: Sequence[tuple[EditResult, list[str], Colour | None]], columns: int
) -> Image.Image:
    """The source and each edit with the lines of its label and the colour of its frame."""
    first = edits[0][0]
    source = first.source.resize(first.drawing.working.size, Image.Resampling.LANCZOS)
    cells = [labelled(source, ["source"])]
    for result, lines, frame in edits:
        image = result.image.resize(result.drawing.working.size, Image.Resampling.LANCZOS)
        cells.append(labelled(image, lines, frame=frame))
    return tiled(cells, min(columns, len(cells)))


def _knobs(result: EditResult) -> str:
    return f"strength {result.plan.strength:g} seed {result.plan.seed}"


def _label(edit: MeasuredEdit) -> list[str]:
    similarities = edit.similarities
    reference = "" if similarities.reference is None else f" ref {similarities.reference:.2f}"
    return [
        _knobs(edit.result),
        f"src {similarities.source:.2f}{reference}",
        f"text {similarities.text:.2f}",
    ]


def curve(edits: Sequence[MeasuredEdit]) -> str:
    """The trade-off as an SVG: source similarity to the right, reference (or text) upwards."""
    points = (
        Point(edit.similarities.source, _other(edit.similarities), f"{edit.result.plan.strength:g}")
        for edit in edits
    )
    label = "text" if edits[0].similarities.reference is None else "reference"
    return curves.plot([Line(tuple(points))], "source similarity", f"{label} similarity")


def _other(similarities: Similarities) -> float:
    return similarities.text if similarities.reference is None else similarities.reference
