"""The sheets of docs/quality.md: ``python -m customedit.experiments.quality RUN``.

RUN is a folder that ``customedit lookbench run`` has drawn and scored, on LookBench's own pairs. A
sheet of every look has its references, the edits nearest to and furthest from the right answers,
each between its source and the right answer; one more has the real photographs of the samples,
edited with a look of the run by the run's settings. Only the photographs are drawn, each once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console

from customedit import images
from customedit.diffusion.base import Base
from customedit.errors import InputError
from customedit.experiments.lookbench.editor import Editor, LibraryEditor, Recipe, Task, Taught
from customedit.files import replacing
from customedit.images.layout import labelled, tiled
from customedit.metrics.lookbench import results
from customedit.metrics.lookbench.colour import Pixels
from customedit.metrics.lookbench.dataset import Bench, bundled
from customedit.metrics.lookbench.looks import Look
from customedit.metrics.lookbench.measures import reduced
from customedit.metrics.lookbench.report import SCORES
from customedit.metrics.lookbench.scores import Row
from customedit.metrics.lookbench.sheets import beyond_copy
from customedit.metrics.lookbench.sources import Source
from customedit.mini import samples

EACH: Final = 4
"""Edits of the best and of the worst on a look's sheet."""

COLUMNS: Final = 6
"""Tiles in a line: two edits, each between its source and its right answer."""

JPEG_QUALITY: Final = 88
"""Sheets are for a page: about 100 kB each."""

PHOTOS: Final = "photos"


@dataclass(frozen=True)
class Scored:
    """A run with its report. about: what made the pictures; rows: every measured picture."""

    folder: Path
    about: dict[str, Any]
    looks: tuple[Look, ...]
    bench: Bench
    rows: tuple[Row, ...]

    def look(self, name: str) -> Look:
        """The look of that name. Raises InputError for one that the run has not."""
        for look in self.looks:
            if look.name == name:
                return look
        known = ", ".join(look.name for look in self.looks)
        raise InputError("look", f"{name!r} is not of the run", f"take one of {known}")


def read(folder: Path) -> Scored:
    """The run in ``folder``.

    Raises InputError for a folder without a report, and for one of another set than LookBench's
    own, whose pictures are not at hand.
    """
    path = folder / "report" / SCORES
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            "run", f"{path} cannot be read ({error.strerror})", "give a folder of lookbench run"
        ) from error
    except ValueError as error:
        raise InputError("run", f"{path} is not JSON ({error})", "score the run again") from error
    bench, about = bundled("full"), document.get("about") or {}
    told = document.get("lookbench", {})
    if {**told, **bench.identity()} != told or "editor" not in about:
        raise InputError(
            "run", f"{path} is not of a run on LookBench's own pairs", "give another folder"
        )
    known = {look.name: look for look in bench.looks}
    return Scored(
        folder,
        about,
        tuple(known[name] for name in told["looks"]),
        bench,
        tuple(Row.of(row) for row in document["rows"]),
    )


class Extremes(NamedTuple):
    """The edits of a look that are nearest to the right answers, and the furthest; in order."""

    best: list[Row]
    worst: list[Row]


def extremes(rows: Sequence[Row], look: str, each: int = EACH) -> Extremes:
    """At most ``each`` of both, of half of the edits each; none is in both.

    What counts is the distance beyond that of the autoencoder's copy, which no edit can help.
    """
    own = [entry for entry in beyond_copy(rows) if entry[1].look == look]
    ranked = [row for _, row in sorted(own, key=lambda entry: entry[0])]
    count = min(each, (len(ranked) + 1) // 2)
    return Extremes(ranked[:count], ranked[count:][-count:][::-1])


def look_sheet(run: Scored, look: Look) -> Image.Image:
    """References in the first line, below them the best edits, then the worst."""
    best, worst = extremes(run.rows, look.name)
    references = [
        _tile(pixels, [look.name, "reference"]) for pixels in run.bench.references(look)[:COLUMNS]
    ]
    tiles = _whole_lines(references)
    for words, rows in (("nearest", best), ("furthest", worst)):
        shown = [_edit_tiles(run, look, row, f"{words} {k + 1}") for k, row in enumerate(rows)]
        tiles += _whole_lines([tile for three in shown for tile in three])
    return tiled(tiles, COLUMNS)


def _edit_tiles(run: Scored, look: Look, row: Row, place: str) -> list[Image.Image]:
    """Source, edit and right answer of a row."""
    source = next(s for s in run.bench.sources if s.name == row.source)
    uploaded = run.bench.picture(source).image
    folder = run.folder / f"seed-{row.seed}"
    path = results.find(folder, look.slug, source.name)
    if path is None:
        raise InputError("run", f"{folder} lacks {look.slug}/{source.name}.png", "run it again")
    edit = results.load(path, uploaded)
    return [
        _tile(uploaded, [source.name, "source"]),
        _tile(edit, [f"edit, {place}", f"{row.measures.distance:.1f} Lab"]),
        _tile(run.bench.answer(look, source), [source.name, "right answer"]),
    ]


def _tile(pixels: Pixels, lines: Sequence[str]) -> Image.Image:
    """``pixels`` as on a sheet, with two ``lines``."""
    return labelled(Image.fromarray(reduced(pixels)), lines)


def _whole_lines(tiles: Sequence[Image.Image]) -> list[Image.Image | None]:
    """``tiles``, and empty cells up to the end of the line."""
    return [*tiles, *[None] * (-len(tiles) % COLUMNS)]


def worded(photo: samples.Photo) -> Source:
    """A photograph as a source; a thing that the base knows no noun of is the prompt's last word.

    There, words are told that the base has never seen: what comes of it belongs on the sheet, too.
    """
    noun = photo.noun or photo.prompt.split()[-1]
    wearing = photo.look_prompt or photo.prompt.replace(f"a {noun}", f"a {{look}} {noun}")
    return Source(photo.name, noun, photo.prompt, wearing)


def photo_edits(
    run: Scored, editor: Editor, look: Look, seed: int = 0
) -> list[tuple[Pixels, Pixels]]:
    """Every photograph of the samples with its edit, uint8 [h, w, 3]; what is kept is not drawn.

    seed: of the training whose concept is taken.
    """
    taught = Taught(look, tuple(run.bench.references(look)), seed, run.bench.nouns(look))
    pairs = []
    for photo in samples.photos():
        picture = np.asarray(images.read(photo.image, field=PHOTOS).image)
        kept = run.folder / PHOTOS / f"seed-{seed}" / look.slug / f"{photo.name}.png"
        if not kept.exists():
            source = worded(photo)
            task = Task(
                picture,
                np.zeros(picture.shape[:2]),  # nobody has drawn a mask
                source.noun,
                source.prompt,
                source.target_prompt(look.phrase),
                taught,
            )
            (edited,) = editor.edit([task])
            kept.parent.mkdir(parents=True, exist_ok=True)
            images.write(Image.fromarray(edited), kept)
        pairs.append((picture, results.load(kept, picture)))
    return pairs


def photo_sheet(run: Scored, editor: Editor, looks: Sequence[Look]) -> Image.Image:
    """A line of each look: every photograph and, to its right, its edit."""
    names = [photo.name for photo in samples.photos()]
    tiles: list[Image.Image | None] = []
    for look in looks:
        edits = photo_edits(run, editor, look)
        line = [
            tile
            for name, (source, edit) in zip(names, edits, strict=True)
            for tile in (
                _tile(source, [name, "source"]),
                _tile(edit, [name, f"edit, {look.name}"]),
            )
        ]
        tiles += _whole_lines(line)
    return tiled(tiles, COLUMNS)


def editor_of(run: Scored, base: Base) -> LibraryEditor:
    """The editor that made the run, with the concepts that it learned.

    Raises InputError where ``base`` or this version does not make the run's pictures, and for a run
    whose edits had the true mask, which photographs have not.
    """
    about = run.about["editor"]
    recipe = Recipe(**about["recipe"])
    if recipe.true_mask:
        raise InputError("run", "gave edits the true mask, and photographs have none", "another")
    editor = LibraryEditor(base, recipe, run.folder.parent)
    if json.loads(json.dumps(editor.about())) != about:
        raise InputError("base", f"{base.name} is not the one of the run", "give --base as there")
    return editor


def write(sheet: Image.Image, path: Path) -> None:
    """Write ``sheet`` as a JPEG file of modest size."""
    with replacing(path) as draft:
        sheet.convert("RGB").save(draft, "JPEG", quality=JPEG_QUALITY)


def main(
    run: Annotated[
        Path, typer.Argument(help="A folder run-... of lookbench run, with its report.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the sheets go.")] = Path(
        "docs/quality"
    ),
    look: Annotated[
        list[str] | None,
        typer.Option(help="Look for the photographs; repeatable, the run's first if left out."),
    ] = None,
    base: Annotated[str, typer.Option(help="The base of the run: a folder, or mini.")] = "mini",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Write a sheet of every look of a scored run, and one of photographs: LOOK.jpg, photos.jpg."""
    console, scored = Console(), read(run)
    wanted = [scored.look(name) for name in look or [scored.looks[0].name]]
    for one in scored.looks:
        write(look_sheet(scored, one), out / f"{one.slug}.jpg")
        console.print(f"{out / one.slug}.jpg")
    dtype = getattr(torch, scored.about["editor"]["base"]["dtype"].removeprefix("torch."))
    editor = editor_of(scored, Base.load(base, device=device, dtype=dtype))
    write(photo_sheet(scored, editor, wanted), out / f"{PHOTOS}.jpg")
    console.print(f"{out / PHOTOS}.jpg")


if __name__ == "__main__":
    typer.run(main)
