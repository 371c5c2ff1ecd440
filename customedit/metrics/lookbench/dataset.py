"""LookBench as a data set: looks, pictures to edit, and for each pair the right answer.

The renderer can draw a scene truly wearing a look: the same scene, of which only the thing's
pattern and colours change. So an edit is compared with the picture that it should have become.
Nothing is stored: the same pictures come out of the renderer every time.
"""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from customedit.errors import InputError
from customedit.metrics.lookbench import looks as look_list
from customedit.metrics.lookbench import sources as source_list
from customedit.metrics.lookbench.colour import Pixels
from customedit.metrics.lookbench.looks import Look, PaintedLook
from customedit.metrics.lookbench.sources import PaintedSource, Source, wearing
from customedit.mini.samples.recipe import views
from customedit.mini.scenes import Picture, Scene, render

VERSION: Final = 1
"""Of the set: raised when its pairs, words or pictures change, so that scores are not compared."""

Size = Literal["small", "public", "full"]
SIZES: Final[tuple[Size, ...]] = get_args(Size)

T = TypeVar("T")


class SourcePicture(NamedTuple):
    """A picture to edit: uint8 [h, w, 3], and the share of each pixel that the thing covers.

    coverage: float [h, w] in [0, 1]; 0 is off the thing, and a half or more is on it.
    """

    image: Pixels
    coverage: NDArray[np.floating[Any]]


class Bench(ABC):
    """Looks and sources, each look with each source; pictures come when they are asked for.

    tuning: sources that are never scored, on which the best plain words are chosen; whole: the set
    that this one was selected from, itself where it was not.
    """

    whole: Bench

    def __init__(
        self, looks: Sequence[Look], sources: Sequence[Source], tuning: Sequence[Source]
    ) -> None:
        self.looks, self.sources, self.tuning = tuple(looks), tuple(sources), tuple(tuning)
        self.whole = self

    @abstractmethod
    def references(self, look: Look) -> list[Pixels]:
        """The pictures that ``look`` is learned from, 3 to 6."""

    def nouns(self, look: Look) -> tuple[str, ...]:
        """What each reference of ``look`` shows; none: all show the look's noun."""
        return ()

    @abstractmethod
    def picture(self, source: Source) -> SourcePicture:
        """The picture of a source or a tuning source."""

    @abstractmethod
    def answer(self, look: Look, source: Source) -> Pixels:
        """The right answer: the source's picture truly wearing the look, of the same size."""

    @property
    def pairs(self) -> Iterator[tuple[Look, Source]]:
        """Every pair, look by look."""
        return ((look, source) for look in self.looks for source in self.sources)

    def __len__(self) -> int:
        return len(self.looks) * len(self.sources)

    def words(self) -> dict[str, Any]:
        """Everything but the pictures, as plain data."""
        return {
            "version": VERSION,
            "looks": [look_list.as_dict(look) for look in self.looks],
            "sources": [source_list.as_dict(source) for source in self.sources],
            "tuning": [source_list.as_dict(source) for source in self.tuning],
        }

    def digest(self) -> str:
        """Of all words and pictures: equal sets have equal digests. Renders every picture."""
        digest = hashlib.sha256(json.dumps(self.words(), sort_keys=True).encode())
        for look in self.looks:
            for reference in self.references(look):
                digest.update(reference.tobytes())
        for source in (*self.sources, *self.tuning):
            picture = self.picture(source)
            digest.update(picture.image.tobytes())
            digest.update(levels(picture.coverage).tobytes())
            for look in self.looks:
                digest.update(self.answer(look, source).tobytes())
        return digest.hexdigest()

    def select(self, looks: Sequence[str] = (), sources: int | None = None) -> Bench:
        """The same set with fewer pairs.

        looks: names, all without any; sources: how many, evenly spaced, all without a number.

        Raises InputError for a name that is unknown, and a number below 1 or above what there is.
        """
        known = [look.name for look in self.looks]
        for name in looks:
            if name not in known:
                raise InputError("look", f"{name!r} is unknown", f"take one of {', '.join(known)}")
        if sources is not None and not 1 <= sources <= len(self.sources):
            raise InputError("sources", f"{sources} is not from 1 to {len(self.sources)}")
        fewer = copy.copy(self)
        if looks:
            fewer.looks = tuple(look for look in self.looks if look.name in looks)
        if sources is not None:
            fewer.sources = spaced(self.sources, sources)
        return fewer

    def identity(self) -> dict[str, Any]:
        """What tells the set from others without its size, as plain data: for what is kept of runs.

        Of the set as a whole, so that a larger selection goes on from a smaller one. The words and
        pictures that an editor is given: the renderer, which made them, makes masks and answers.
        """
        return {"digest": self.whole.digest_of_given()[:16]}

    def digest_of_given(self) -> str:
        """Of the words and pictures that an editor is given."""
        digest = hashlib.sha256(json.dumps(self.words(), sort_keys=True).encode())
        for look in self.looks:
            for reference in self.references(look):
                digest.update(reference.tobytes())
        for source in (*self.sources, *self.tuning):
            digest.update(self.picture(source).image.tobytes())
        return digest.hexdigest()


def levels(coverage: NDArray[np.floating[Any]]) -> Pixels:
    """``coverage`` in [0, 1] as 8-bit levels; only 0 becomes 0, and a half or more 128 or more."""
    rounded = np.rint(coverage * 255)
    rounded = np.where((coverage > 0) & (rounded == 0), 1, rounded)
    rounded = np.where((coverage < 0.5) & (rounded >= 128), 127, rounded)
    rounded = np.where((coverage >= 0.5) & (rounded < 128), 128, rounded)
    return rounded.astype(np.uint8)


def spaced(items: Sequence[T], count: int) -> tuple[T, ...]:
    """``count`` of ``items``, evenly spaced from the first on."""
    return tuple(items[k * len(items) // count] for k in range(count))


@lru_cache(maxsize=2048)
def _rendered(scene: Scene) -> Picture:
    return render(scene)


class RenderedBench(Bench):
    """Sets that the renderer draws, 128 x 128 pixels a picture."""

    looks: tuple[PaintedLook, ...]
    sources: tuple[PaintedSource, ...]
    tuning: tuple[PaintedSource, ...]

    def references(self, look: Look) -> list[Pixels]:
        """The five views of ``look``: one kind of thing, in other light, place and proportions."""
        assert isinstance(look, PaintedLook)
        return [_rendered(s).image for s in views(look.pattern, look.recipe, look.number)]

    def picture(self, source: Source) -> SourcePicture:
        """The source's scene, rendered."""
        assert isinstance(source, PaintedSource)
        rendered = _rendered(source.scene)
        return SourcePicture(rendered.image, rendered.alpha)

    def answer(self, look: Look, source: Source) -> Pixels:
        """The source's scene, rendered with the look's pattern and colours."""
        assert isinstance(look, PaintedLook) and isinstance(source, PaintedSource)
        return _rendered(wearing(source.scene, look)).image


class BundledBench(RenderedBench):
    """LookBench itself: its sizes share their pairs, so that a run of one serves the others."""

    def identity(self) -> dict[str, Any]:
        """The version, and a digest that tells when the renderer has changed."""
        return {"version": VERSION, "renderer": bundled("small").digest()[:16]}


class SeveralClasses(RenderedBench):
    """A rendered set whose looks are learned from things of several classes.

    Of each look the first ``KEPT`` references stay, and its right answers on the tuning sources,
    which are never scored, come beside them.
    """

    KEPT: Final = 2

    def __init__(self, bench: RenderedBench) -> None:
        super().__init__(bench.looks, bench.sources, bench.tuning)
        self._of = bench.identity()

    def references(self, look: Look) -> list[Pixels]:
        """References of one class, and right answers on things of others."""
        return [
            *super().references(look)[: self.KEPT],
            *(self.answer(look, source) for source in self.tuning),
        ]

    def identity(self) -> dict[str, Any]:
        """That of the set that the pictures are of, and how the references are chosen from it."""
        return {**self._of, "references": f"{self.KEPT} of one class, answers on tuning sources"}

    def nouns(self, look: Look) -> tuple[str, ...]:
        """What each reference of ``look`` shows."""
        return (look.noun,) * self.KEPT + tuple(source.noun for source in self.tuning)


def bundled(size: Size = "public", looks: Sequence[PaintedLook] | None = None) -> RenderedBench:
    """LookBench.

    size: "small" is 2 looks x 4 sources, for a check in minutes; "public" the samples' 8 looks x 24
    sources; "full" 16 looks x 64 sources, 1,024 pairs. looks: instead of the size's own.

    Raises InputError for another size.
    """
    if size not in SIZES:
        raise InputError("size", f"{size!r} is unknown", f"take one of {', '.join(SIZES)}")
    all_looks, all_sources = look_list.bundled(), source_list.bundled()
    chosen_looks: tuple[PaintedLook, ...] = all_looks
    chosen_sources: tuple[PaintedSource, ...] = all_sources
    if size == "small":
        chosen_looks, chosen_sources = (all_looks[0], all_looks[7]), all_sources[:24:6]
    elif size == "public":
        chosen_looks, chosen_sources = all_looks[:8], all_sources[:24]
    if looks is not None:
        return RenderedBench(looks, chosen_sources, source_list.tuning())
    return BundledBench(chosen_looks, chosen_sources, source_list.tuning())


def opened(size: Size, path: Path | None = None) -> Bench:
    """LookBench of ``size``, or the set at ``path``.

    path: a JSON file of looks, which the renderer paints on the size's sources; or a folder as
    ``lookbench export`` writes it, which is taken as a whole.

    Raises InputError for a path that is neither.
    """
    from customedit.metrics.lookbench.folder import read

    if path is None:
        return bundled(size)
    if path.is_dir():
        return read(path)
    if not path.is_file():
        raise InputError("bench", f"{path} does not exist", "give a JSON file or a folder")
    return bundled(size, look_list.read(path))
