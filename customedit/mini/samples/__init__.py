"""Pictures to try things on: looks to teach, sources to edit, and a few photographs.

The renders come from :mod:`customedit.mini.scenes` with seeds that training never uses; the looks
are those that training never shows (``vocabulary.LOOKS``). All are 128 x 128 PNG files in this
folder, written by ``python -m customedit.mini.samples``; finding them takes no other module.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent
"""The folder of the samples that ship."""


@dataclass(frozen=True)
class Look:
    """A look the base has never seen, on one class of thing: what a concept is learnt from.

    name: as in ``vocabulary.LOOKS``; noun: the class noun of all images; attribute: a word the base
    knows that says what is to be learnt; token: a name for the concept, such as ``<plaid>``;
    images: five RGB PNG files.
    """

    name: str
    noun: str
    attribute: str
    token: str
    images: tuple[Path, ...]

    @property
    def phrase(self) -> str:
        """What stands before a noun to call the look: "<plaid> patterned"."""
        return f"{self.token} {self.attribute}"


@dataclass(frozen=True)
class Source:
    """A picture to edit, with the words for it and its thing's true mask.

    image: RGB PNG; mask: PNG of one channel, 255 where the thing is and 0 elsewhere; prompt: a true
    caption in words the base knows. look_prompt: the same picture wearing a look, with ``{look}``
    where :attr:`Look.phrase` goes; colour_prompt, pattern_prompt: edits that need no concept, a new
    colour and a new pattern for the thing.
    """

    name: str
    noun: str
    image: Path
    mask: Path
    prompt: str
    look_prompt: str
    colour_prompt: str
    pattern_prompt: str

    def target_prompt(self, look: Look) -> str:
        """The target prompt that paints ``look`` on the thing of this picture."""
        return self.look_prompt.format(look=look.phrase)


@dataclass(frozen=True)
class Photo:
    """A real photograph, cropped and made small. ``prompt`` may hold words the base doesn't know.

    noun: the thing's class noun if the base knows the class, else None; look_prompt: as in
    :class:`Source`, None without a noun. ``LICENSES.md`` beside the images names their authors.
    """

    name: str
    noun: str | None
    image: Path
    prompt: str
    look_prompt: str | None


def looks(root: Path = ROOT) -> tuple[Look, ...]:
    """The looks, in the order of ``vocabulary.LOOKS``."""
    folders = [root / "looks" / slug for slug in _read(root / "looks" / "index.json")]
    return tuple(_look(folder) for folder in folders)


def sources(root: Path = ROOT) -> tuple[Source, ...]:
    """The pictures to edit, at least two of each class."""
    folder = root / "sources"
    return tuple(
        Source(
            name=entry["name"],
            noun=entry["scene"]["noun"],
            image=folder / entry["image"],
            mask=folder / entry["mask"],
            prompt=entry["prompt"],
            look_prompt=entry["look_prompt"],
            colour_prompt=entry["colour_prompt"],
            pattern_prompt=entry["pattern_prompt"],
        )
        for entry in _read(folder / "sources.json")
    )


def photos(root: Path = ROOT) -> tuple[Photo, ...]:
    """The photographs."""
    folder = root / "photos"
    return tuple(
        Photo(
            name=entry["name"],
            noun=entry["noun"],
            image=folder / entry["image"],
            prompt=entry["prompt"],
            look_prompt=entry["look_prompt"],
        )
        for entry in _read(folder / "photos.json")
    )


def _look(folder: Path) -> Look:
    note = _read(folder / "look.json")
    return Look(
        name=note["name"],
        noun=note["noun"],
        attribute=note["attribute"],
        token=note["token"],
        images=tuple(folder / entry["image"] for entry in note["images"]),
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
