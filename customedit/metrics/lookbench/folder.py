"""LookBench as files, for editors that are not ours, and sets of another's making.

lookbench.json                   looks, sources and tuning sources in words
looks/LOOK/0.png ...             what each look is learned from
sources/SOURCE.png               what is edited
sources/SOURCE-mask.png          white where the thing is, black off it, grey at its edge
answers/LOOK/SOURCE.png          the right answer
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from customedit import images
from customedit.errors import InputError
from customedit.files import replacing
from customedit.metrics.lookbench.colour import Pixels
from customedit.metrics.lookbench.dataset import VERSION, Bench, SourcePicture, levels
from customedit.metrics.lookbench.looks import Look
from customedit.metrics.lookbench.sources import Source
from customedit.mini.samples.recipe import slug

INDEX: Final = "lookbench.json"

NAME: Final = r"^[a-z0-9][a-z0-9 _-]{0,40}$"
"""Names become files' names, so that they hold no more than this."""


class LookEntry(BaseModel):
    """A look in words; see :class:`customedit.metrics.lookbench.looks.Look`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=NAME)
    family: str
    noun: str
    attribute: str
    token: str
    words: tuple[str, ...] = Field(min_length=1)


class SourceEntry(BaseModel):
    """A source in words; see :class:`customedit.metrics.lookbench.sources.Source`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=NAME)
    noun: str
    prompt: str
    look_prompt: str = Field(pattern=r"\{look\}")


class Index(BaseModel):
    """The file ``lookbench.json``."""

    model_config = ConfigDict(extra="forbid")

    version: int
    looks: tuple[LookEntry, ...] = Field(min_length=1)
    sources: tuple[SourceEntry, ...] = Field(min_length=1)
    tuning: tuple[SourceEntry, ...] = ()


class FolderBench(Bench):
    """A set that lies in a folder."""

    def __init__(
        self,
        folder: Path,
        looks: Sequence[Look],
        sources: Sequence[Source],
        tuning: Sequence[Source],
    ) -> None:
        super().__init__(looks, sources, tuning)
        self.folder = folder

    def references(self, look: Look) -> list[Pixels]:
        """The PNG files in the look's folder, in the order of their names."""
        return [_read(path) for path in sorted((self.folder / "looks" / look.slug).glob("*.png"))]

    def picture(self, source: Source) -> SourcePicture:
        """The source's file and its mask's."""
        folder = self.folder / "sources"
        image, mask = (
            _read(folder / f"{source.name}.png"),
            _read(folder / f"{source.name}-mask.png"),
        )
        if image.shape != mask.shape:
            raise InputError(
                "bench",
                f"{source.name}.png is {_size(image)} and its mask {_size(mask)}",
                "make both of one size",
            )
        return SourcePicture(image, mask[..., 0] / 255)

    def answer(self, look: Look, source: Source) -> Pixels:
        """The answer's file."""
        picture = _read(self._answer(look, source))
        image = self.picture(source).image
        if picture.shape != image.shape:
            raise InputError(
                "bench",
                f"answers/{look.slug}/{source.name}.png is {_size(picture)}, its source "
                f"{_size(image)}",
                "make both of one size",
            )
        return picture

    def identity(self) -> dict[str, Any]:
        """All of the set as a whole: masks and right answers may be corrected, too.

        Of the answers those that there are: a run of some pairs needs no others.
        """
        whole = self.whole
        digest = hashlib.sha256(whole.digest_of_given().encode())
        for source in (*whole.sources, *whole.tuning):
            digest.update(levels(whole.picture(source).coverage).tobytes())
            for look in whole.looks:
                path = self._answer(look, source)
                digest.update(_read(path).tobytes() if path.is_file() else b"none")
        return {"digest": digest.hexdigest()[:16]}

    def _answer(self, look: Look, source: Source) -> Path:
        return self.folder / "answers" / look.slug / f"{source.name}.png"


def read(folder: Path) -> FolderBench:
    """The set in ``folder``.

    Raises InputError without a usable ``lookbench.json``, for one of another version, and for a
    look without references. Pictures are read when they are asked for.
    """
    path = folder / INDEX
    try:
        index = Index.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            "bench", f"{path} cannot be read ({error.strerror})", "write it by lookbench export"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError("bench", f"{path}: {where}: {first['msg']}") from error
    except ValueError as error:
        raise InputError("bench", f"{path} is not JSON ({error})") from error
    if index.version != VERSION:
        raise InputError(
            "bench", f"{path} is of version {index.version}, this is {VERSION}", "export it again"
        )
    for kind, entries in (("look", index.looks), ("source", (*index.sources, *index.tuning))):
        names = [slug(entry.name) for entry in entries]
        if len(set(names)) < len(names):
            raise InputError("bench", f"{path} names a {kind} twice", "give each its own name")
    bench = FolderBench(
        folder,
        [Look(**entry.model_dump()) for entry in index.looks],
        [Source(**entry.model_dump()) for entry in index.sources],
        [Source(**entry.model_dump()) for entry in index.tuning],
    )
    for look in bench.looks:
        if not bench.references(look):
            raise InputError(
                "bench", f"looks/{look.slug} holds no PNG file", "put the look's references there"
            )
    return bench


def export(bench: Bench, folder: Path) -> int:
    """Write ``bench`` into ``folder``; returns how many files there are.

    The tuning sources have answers, too: an editor's best plain words are chosen on them.
    """
    written = 0

    def save(pixels: Pixels, name: str) -> None:
        nonlocal written
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        images.write(Image.fromarray(pixels), path)
        written += 1

    for look in bench.looks:
        for number, reference in enumerate(bench.references(look)):
            save(reference, f"looks/{look.slug}/{number}.png")
    for source in (*bench.sources, *bench.tuning):
        picture = bench.picture(source)
        save(picture.image, f"sources/{source.name}.png")
        save(levels(picture.coverage), f"sources/{source.name}-mask.png")
        for look in bench.looks:
            save(bench.answer(look, source), f"answers/{look.slug}/{source.name}.png")
    _write(bench.words(), folder / INDEX)
    _write({"looks": [prompts(bench, look) for look in bench.looks]}, folder / "prompts.json")
    return written + 2


def prompts(bench: Bench, look: Look) -> dict[str, Any]:
    """Every prompt of ``look`` spelled out, for editors that build none themselves."""
    return {
        "look": look.name,
        "edits": [
            {
                "source": source.name,
                "source_prompt": source.prompt,
                "target_prompt": source.target_prompt(look.phrase),
                "words_prompts": {w: source.target_prompt(w) for w in look.words},
            }
            for source in (*bench.sources, *bench.tuning)
        ],
    }


def _write(value: dict[str, Any], path: Path) -> None:
    with replacing(path) as draft:
        draft.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _read(path: Path) -> Pixels:
    return np.asarray(images.read(path, field=f"bench: {path.name}").image)


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
