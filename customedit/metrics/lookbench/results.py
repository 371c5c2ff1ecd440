"""An editor's pictures in a folder, as ``lookbench score`` reads them.

    LOOK/SOURCE.png                  the edits; or, of several trainings of each look,
    seed-0/LOOK/SOURCE.png ...       the edits of each
    words/LOOK/SOURCE.png            optional: the same by the editor's best plain words; or
    words/seed-0/LOOK/SOURCE.png ... as many times as trainings, of an editor that draws by chance
    copies/LOOK/SOURCE.png           optional: the right answers through the editor's autoencoder

PNG, JPEG or WebP. A picture may be larger or smaller than its source, not of another aspect.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from customedit import images
from customedit.errors import InputError
from customedit.metrics.lookbench.colour import Pixels
from customedit.metrics.lookbench.dataset import Bench

Files: TypeAlias = Mapping[tuple[str, str], Path]
"""(name of the look, name of the source) to a picture."""

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
SEED: Final = re.compile(r"seed-(\d{1,9})")
WORDS: Final = "words"
COPIES: Final = "copies"


@dataclass(frozen=True)
class Results:
    """Where the pictures are; words and copies are None if they are not given.

    edits: training seed to files; words: seed of what is drawn by chance to files, one or as many
    as trainings.
    """

    edits: Mapping[int, Files]
    words: Mapping[int, Files] | None = None
    copies: Files | None = None


def read(
    folder: Path,
    bench: Bench,
    trainings: Collection[int] | None = None,
    words: bool | None = None,
) -> Results:
    """The pictures in ``folder`` of every pair of ``bench``.

    trainings: the seeds whose edits are wanted, None for all that are there. words: whether edits
    by plain words are wanted, None for as many as there are. What is not wanted is not looked at:
    the folder of a run may hold a part of it, left by a run of other pairs or seeds.

    Raises InputError for a folder that is none, or lacks pictures: it names the first of them; and
    for words of another number of seeds than the edits.
    """
    if not folder.is_dir():
        raise InputError("folder", f"{folder} is not a folder", "give the one with the edits")
    seeds = _seeds(folder)
    if trainings is not None:
        seeds = {seed: folder / f"seed-{seed}" for seed in trainings}
    places = dict(sorted(seeds.items())) or {0: folder}
    if words is None:
        words = (folder / WORDS).is_dir()
    worded = _seeds(folder / WORDS) if words else {}
    if worded and trainings is not None:
        worded = {seed: folder / WORDS / f"seed-{seed}" for seed in trainings}
    if len(worded) > 1 and len(worded) != len(places):
        raise InputError(
            "folder",
            f"{folder / WORDS} has {len(worded)} seeds, the edits {len(places)}",
            "give words of one seed, or of as many as the edits",
        )
    worded = dict(sorted(worded.items())) or {0: folder / WORDS}
    return Results(
        {seed: _all(place, bench) for seed, place in places.items()},
        {seed: _all(place, bench) for seed, place in worded.items()} if words else None,
        _all(folder / COPIES, bench) if (folder / COPIES).is_dir() else None,
    )


def _seeds(folder: Path) -> dict[int, Path]:
    """The folders of seeds in ``folder``, which may be missing."""
    return {
        int(match[1]): path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if path.is_dir() and (match := SEED.fullmatch(path.name))
    }


def find(folder: Path, look_slug: str, source: str) -> Path | None:
    """The picture of one pair in ``folder``, whatever its suffix; None if it is not there."""
    for suffix in SUFFIXES:
        path = folder / look_slug / f"{source}{suffix}"
        if path.is_file():
            return path
    return None


def _all(folder: Path, bench: Bench) -> Files:
    files: dict[tuple[str, str], Path] = {}
    missing = []
    for look, source in bench.pairs:
        path = find(folder, look.slug, source.name)
        if path is None:
            missing.append(f"{look.slug}/{source.name}.png")
        else:
            files[look.name, source.name] = path
    if missing:
        more = f" and {len(missing) - 1} more pictures" if len(missing) > 1 else ""
        raise InputError(
            "folder",
            f"{folder} lacks {missing[0]}{more} of {len(bench)}",
            "add them, or score fewer: --size, --look, --sources",
        )
    return files


def load(path: Path, like: Pixels) -> Pixels:
    """The picture in ``path``, uint8 [h, w, 3].

    like: its source; Raises InputError unless both have the same aspect, to one pixel in a hundred.
    """
    picture = np.asarray(images.read(path, field="folder").image)
    (h, w), (height, width) = picture.shape[:2], like.shape[:2]
    if abs(w * height - h * width) > 0.01 * w * height:
        raise InputError(
            "folder", f"{path} is {w} x {h}, its source {width} x {height}", "keep the aspect"
        )
    return picture
