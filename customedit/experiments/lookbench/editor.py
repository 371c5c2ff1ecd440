"""What LookBench asks of an editor, and the library's own one: all that it calls of the library."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from customedit import images
from customedit.concepts.concept import Concept
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.method import Progress
from customedit.diffusion.text import Weighted
from customedit.editing import editor as editing
from customedit.editing.method_settings import RANDOM
from customedit.editing.settings import INVERSIONS, check_request
from customedit.errors import InputError
from customedit.experiments.result_cache import TRAININGS, Lesson, OnProgress, learned
from customedit.metrics.lookbench.colour import Pixels
from customedit.metrics.lookbench.looks import Look
from customedit.schemas.methods import EditMethod, InversionKind
from customedit.schemas.requests import EditOptions
from customedit.schemas.validation import input_error

EDITS: Final = 3
"""Raised when edits change under equal settings, so that kept pictures are drawn again."""


@dataclass(frozen=True)
class Taught:
    """A look that an editor is to learn first.

    references: uint8 [h, w, 3] each; seed: of the training; nouns: what each reference shows, empty
    where all show the look's noun.
    """

    look: Look
    references: tuple[Pixels, ...] = field(compare=False, repr=False)
    seed: int
    nouns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One edit.

    picture: uint8 [h, w, 3]; coverage: how much of each pixel the thing covers, [h, w] in [0, 1],
    for editors that are scored with the true mask; noun: what the thing is; source_prompt: the
    picture in words; target_prompt: what it is to become; taught: the look that the target prompt
    names, None for plain words; seed: of what is drawn by chance for plain words, which for a look
    is that of its training.
    """

    picture: Pixels = field(compare=False, repr=False)
    coverage: NDArray[np.floating[Any]] = field(compare=False, repr=False)
    noun: str
    source_prompt: str
    target_prompt: str
    taught: Taught | None = None
    seed: int = 0


class Editor(Protocol):
    """Anything that LookBench can run."""

    @property
    def by_chance(self) -> bool:
        """Whether edits by plain words differ from seed to seed."""

    def about(self) -> dict[str, Any]:
        """All that decides its pictures, as plain data: what is kept is found again by it."""

    def edit(self, tasks: Sequence[Task]) -> list[Pixels]:
        """The edited pictures, uint8 [h, w, 3] in each source's aspect."""

    def copy(self, picture: Pixels) -> Pixels:
        """``picture`` as the editor gives it back when it changes nothing: its autoencoder's."""


@dataclass(frozen=True)
class Recipe:
    """How our editor learns and edits; None for the library's defaults.

    method to feather: as in ``EditOptions``, but that ``change`` is a number; true_mask: whether
    edits keep to the thing's true mask, which a user would have to draw; training: what differs
    from ``TrainingSettings.of`` the base, None for nothing.
    """

    method: EditMethod = "p2p"
    inversion: InversionKind = "direct"
    strength: float | None = None
    change: float | None = None
    steps: int = 50
    guidance: float | None = None
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    preserve: bool | None = None
    feather: float | None = None
    true_mask: bool = False
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.inversion not in INVERSIONS:
            raise InputError(
                "inversion",
                f"{self.inversion!r} is unknown",
                f"take one of {', '.join(INVERSIONS)}",
            )
        if isinstance(self.change, str):
            raise InputError("change", "has to be a number here", "give 0 to 1")
        options = self._options("a cup", "a red cup", "cup", 0)  # refuses what no edit takes
        check_request(options, mask=self.true_mask)

    def options(self, task: Task) -> EditOptions:
        """The edit of ``task``; chance, if any, follows the seed of the look's training.

        The region is the source's noun, for plain words, too.
        """
        seed = task.seed if task.taught is None else task.taught.seed
        return self._options(task.source_prompt, task.target_prompt, task.noun, seed)

    def _options(self, source: str, target: str, noun: str, seed: int) -> EditOptions:
        expert: dict[str, Any] = {self.method: {} if self.true_mask else {"blend_words": [noun]}}
        try:
            return EditOptions(
                source_prompt=source,
                target_prompt=target,
                method=self.method,
                strengths=None if self.strength is None else [self.strength],
                change=self.change,
                steps=self.steps,
                guidance=self.guidance,
                guidance_start=self.guidance_start,
                guidance_end=self.guidance_end,
                seeds=[seed],
                inversion=self.inversion,
                preserve=self.preserve,
                feather=self.feather,
                **expert,
            )
        except ValidationError as error:
            refused = input_error(error)
            name = "strength" if refused.field.startswith("strengths") else refused.field
            raise InputError(name, refused.problem, refused.remedy) from None

    def about(self) -> dict[str, Any]:
        """Every setting, as plain data of which ``Recipe`` makes the same again.

        A guidance interval, a change and a feather only where there is one: so pictures of versions
        without them are found again.
        """
        settings = dataclasses.asdict(self)
        if (self.guidance_start, self.guidance_end) == (0, 1):
            del settings["guidance_start"], settings["guidance_end"]
        for name in ("change", "feather"):
            if settings[name] is None:
                del settings[name]
        given = {name: value for name, value in self.training.items() if value is not None}
        return {**settings, "training": given}

    def mask(self, task: Task) -> Tensor | None:
        """The mask that the edit of ``task`` is given, [h, w] in [0, 1]."""
        if not self.true_mask:
            return None
        return torch.from_numpy(np.asarray(task.coverage, np.float32))


class LibraryEditor:
    """The library's editor on ``base``.

    folder: keeps concepts, class images and inversions between runs; on_progress: gets that of
    trainings.
    """

    def __init__(
        self, base: Base, recipe: Recipe, folder: Path, on_progress: OnProgress | None = None
    ) -> None:
        self.base, self.recipe, self.folder, self.on_progress = base, recipe, folder, on_progress
        self._concepts: dict[tuple[str, int], Concept] = {}
        self.training(0)  # refuses unusable settings before any work

    @property
    def by_chance(self) -> bool:
        """Whether its method draws noise."""
        return self.recipe.method in RANDOM

    def training(self, seed: int) -> TrainingSettings:
        """The training of a look by ``seed``."""
        return TrainingSettings.of(self.base, **self.recipe.training, seed=seed)

    def about(self) -> dict[str, Any]:
        """The base's weights, every setting, and the versions of edits and trainings."""
        return {
            "version": EDITS,
            "trainings": TRAININGS,
            "base": {
                "name": self.base.name,
                "weights": weights_digest(self.base),
                "dtype": str(self.base.dtype),
                "guidance": self.base.guidance,
            },
            "recipe": self.recipe.about(),
            "training": dataclasses.asdict(self.training(0)),
        }

    def edit(self, tasks: Sequence[Task]) -> list[Pixels]:
        """The edits, which share forwards; looks that are not learned yet are learned first."""
        store = self.folder / "inversions"
        editor = editing.Editor(self.base, inversions=store, max_rows=24)
        orders = []
        for task in tasks:
            concepts = [] if task.taught is None else [Weighted(self.concept(task.taught))]
            options, mask = self.recipe.options(task), self.recipe.mask(task)
            session = editor.open(Image.fromarray(task.picture), options.source_prompt)
            (plan,) = session.plan_options(options, concepts=concepts, mask=mask)
            orders.append(editing.Order(session, plan, concepts, mask))
        return [np.asarray(result.image) for result in editor.edit_all(orders)]

    def copy(self, picture: Pixels) -> Pixels:
        """The picture through the base's autoencoder, which works at sizes of its own."""
        height, width = picture.shape[:2]
        copied = self.base.decode(self.base.encode(Image.fromarray(picture)))[0]
        if copied.size != (width, height):  # as an edit
            copied = copied.resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(copied)

    def concept(self, taught: Taught) -> Concept:
        """The concept of a look, learned once."""
        key = taught.look.name, taught.seed
        if key not in self._concepts:
            kind = "references-classes" if taught.nouns else "references"
            files = write_references(self.folder / kind, taught.look, taught.references)
            prompts = ConceptPrompts(taught.look.token, taught.look.noun, taught.look.attribute)
            lesson = Lesson(
                f"{taught.look.slug}-{taught.seed}",
                files,
                prompts,
                self.training(taught.seed),
                taught.nouns,
            )
            concepts, classes = self.folder / "concepts", self.folder / "classes"
            self._concepts[key], _ = learned(
                self.base, lesson, concepts, classes, self._labelled(key)
            )
        return self._concepts[key]

    def _labelled(self, key: tuple[str, int]) -> OnProgress | None:
        on_progress = self.on_progress
        if on_progress is None:
            return None

        def label(progress: Progress) -> None:
            named = dataclasses.replace(progress, phase=f"{progress.phase} {key[0]} {key[1]}")
            on_progress(named)

        return label


def write_references(folder: Path, look: Look, references: Sequence[Pixels]) -> list[Path]:
    """The references of ``look`` as PNG files in ``folder``."""
    place = folder / look.slug
    place.mkdir(parents=True, exist_ok=True)
    files = [place / f"{number}.png" for number in range(len(references))]
    for path, pixels in zip(files, references, strict=True):
        images.write(Image.fromarray(pixels), path)
    return files


def weights_digest(base: Base) -> str:
    """Of every weight of the base: pictures of another base are never taken for its own."""
    digest = hashlib.sha256()
    layout = base.family.layout
    for part in (layout.denoiser, "vae", *(encoder.part for encoder in layout.encoders)):
        for name, weight in sorted(getattr(base.pipeline, part).state_dict().items()):
            digest.update(f"{part} {name} {tuple(weight.shape)}".encode())
            digest.update(weight.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
