"""Strengths x seeds of one edit as one batched job: contact sheet, trade-off curve, a best one.

The best is the one with the greatest harmonic mean of source and reference similarity (of source
and text similarity without references): it neither forgets the source nor misses the look.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from PIL import Image, ImageDraw

from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine, Progress, Ticket, run
from customedit.diffusion.text import Weighted
from customedit.editing.edit import EditResult, EditSettings, edit
from customedit.editing.inversion import invert
from customedit.errors import InputError
from customedit.grids import tiled
from customedit.metrics import curves
from customedit.metrics.curves import Line, Point
from customedit.metrics.measure import Similarities, measure
from customedit.metrics.similarity import Similarity

STRENGTHS: Final = (0.2, 0.4, 0.5, 0.6, 0.8)
MOST: Final = 256
"""Most edits of one sweep."""

FRAME: Final = (30, 140, 60)
"""The colour of the frame around the best edit of a contact sheet."""


@dataclass(frozen=True)
class Swept:
    """One edit of a sweep."""

    strength: float
    seed: int
    result: EditResult
    similarities: Similarities


def score(found: Similarities) -> float:
    """The harmonic mean that the best edit has most of; 0 if either side is not positive."""
    other = _other(found)
    if found.source <= 0 or other <= 0:
        return 0.0
    return 2 * found.source * other / (found.source + other)


def best(edits: Sequence[Swept]) -> Swept:
    """The edit with the greatest ``score``; among equals the first."""
    return max(edits, key=lambda e: score(e.similarities))


def sweep(
    base: Base,
    image: Image.Image,
    settings: EditSettings,
    concepts: Sequence[Weighted],
    judge: Similarity,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seeds: Sequence[int] = (0,),
    references: Sequence[Image.Image] = (),
    mask: torch.Tensor | None = None,
    keep: Path | None = None,
    max_rows: int = 32,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Swept]:
    """Every strength with every seed, their UNet calls merged; the source is inverted once.

    Prompt-to-Prompt draws nothing by chance, so of several seeds it uses the first.

    Raises InputError for no strengths or seeds, or more than MOST edits.
    """
    if settings.method == "p2p":
        seeds = seeds[:1]
    pairs = [(strength, seed) for strength in strengths for seed in seeds]
    if not 1 <= len(pairs) <= MOST:
        raise InputError("strengths", f"with the seeds make {len(pairs)} edits", f"1 to {MOST}")
    if settings.method == "p2p" and keep is not None:
        invert_once(base, image, settings, keep, on_progress)
    engine = Engine(base, max_rows=max_rows)
    steps = [0] * len(pairs)

    def listen(number: int) -> Callable[[Progress], None]:
        def heard(progress: Progress) -> None:
            steps[number] = progress.step
            if on_progress is not None:
                on_progress(Progress("sweep", sum(steps), len(pairs) * progress.steps))

        return heard

    tickets: list[Ticket[EditResult]] = []
    for number, (strength, seed) in enumerate(pairs):
        p2p = settings.p2p
        if p2p is not None:
            p2p = dataclasses.replace(p2p, strength=strength)
        one = dataclasses.replace(settings, strength=strength, seed=seed, p2p=p2p)
        method = edit(base, image, one, concepts, mask=mask, keep=keep)
        tickets.append(engine.submit(method, on_progress=listen(number)))
    while not engine.idle:
        engine.tick()
    out = []
    for (strength, seed), ticket in zip(pairs, tickets, strict=True):
        result = ticket.result()
        found = measure(judge, result, settings.target_prompt, references, mask)
        out.append(Swept(strength, seed, result, found))
    return out


def invert_once(
    base: Base,
    image: Image.Image,
    settings: EditSettings,
    keep: Path,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """Put the source's inversion into ``keep``, where every edit of the sweep finds it."""
    method = invert(
        base,
        base.encode(image),
        settings.source_prompt,
        kind=settings.inversion,
        steps=settings.steps,
        guidance=base.guidance if settings.guidance is None else settings.guidance,
        keep=keep,
    )
    run(base, method, on_progress)


def contact_sheet(edits: Sequence[Swept], columns: int = 5) -> Image.Image:
    """The source and the edits with their labels; the best has a frame."""
    chosen = best(edits)
    cells = [_cell(edits[0].result.source, "source")]
    for swept in edits:
        found = swept.similarities
        reference = "" if found.reference is None else f" ref {found.reference:.2f}"
        text = (
            f"strength {swept.strength:g} seed {swept.seed}\n"
            f"src {found.source:.2f}{reference}\ntext {found.text:.2f}"
        )
        cells.append(_cell(swept.result.working, text, FRAME if swept is chosen else None))
    return tiled(cells, min(columns, len(cells)))


def _cell(
    picture: Image.Image, text: str, frame: tuple[int, int, int] | None = None
) -> Image.Image:
    """``picture`` over three lines of text, with a border in ``frame``'s colour."""
    width, height = picture.size
    cell = Image.new("RGB", (width + 8, height + 44), "white")
    pen = ImageDraw.Draw(cell)
    if frame is not None:
        pen.rectangle((1, -1, width + 6, height + 4), fill=frame)
    cell.paste(picture, (4, 2))
    pen.multiline_text((4, height + 5), text, fill="black", font_size=10, spacing=1)
    return cell


def curve(edits: Sequence[Swept]) -> str:
    """The trade-off as an SVG: source similarity to the right, reference (or text) upwards."""
    points = (
        Point(e.similarities.source, _other(e.similarities), f"{e.strength:g}") for e in edits
    )
    label = "text" if edits[0].similarities.reference is None else "reference"
    return curves.plot([Line(tuple(points))], "source similarity", f"{label} similarity")


def _other(found: Similarities) -> float:
    return found.text if found.reference is None else found.reference
