"""What a training draws from: framings of the references, and class images, encoded once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from customedit.concepts.class_images import class_images
from customedit.concepts.crops import Crop, full_frame, middle_square, random_crop
from customedit.concepts.noun_maps import noun_map
from customedit.concepts.prompts import FORMS, PLAIN, ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.devices import to_device
from customedit.diffusion.method import Method, Progress, Turn
from customedit.errors import InputError
from customedit.images.masks import picture_values

FEWEST, MOST = 1, 20

ENCODED: Final = 4
"""Pictures that are encoded between two turns of others."""


def check_references(references: Sequence[Image.Image]) -> None:
    """Raises InputError unless there are 1 to 20."""
    if not FEWEST <= len(references) <= MOST:
        raise InputError(
            "references",
            f"are {len(references)} images",
            f"give {FEWEST} to {MOST}, 3 to 6 are best",
        )


@dataclass(frozen=True)
class Dataset:
    """Pictures as a training sees them.

    latents: [n, C, h, w]; masks: [n, h, w] in [0, 1], how much the loss counts; texts: the prompt
    of each.
    """

    latents: Tensor
    masks: Tensor
    texts: tuple[str, ...]

    @classmethod
    def encode(
        cls, base: Base, crops: Sequence[Crop], texts: Sequence[str], batch: int = ENCODED
    ) -> Method[Dataset]:
        """Encode ``crops``, each with its prompt; a turn for others each ``batch``."""
        pixels = torch.from_numpy(np.stack([c.pixels for c in crops]))
        parts = []
        for part in pixels.split(batch):
            parts.append(base.encode_pixels(part))
            yield Turn()
        latents = torch.cat(parts)
        masks = torch.from_numpy(np.stack([c.mask for c in crops])).to(latents.device)
        return cls(latents, masks, tuple(texts))

    def select(self, numbers: NDArray[np.integer[Any]]) -> tuple[Tensor, Tensor]:
        """The latents [k, C, h, w] and masks [k, h, w] of the pictures with these numbers [k]."""
        at = to_device(torch.from_numpy(numbers), self.latents.device)
        return self.latents[at], self.masks[at]

    @classmethod
    def join(cls, parts: Sequence[Dataset]) -> Dataset:
        """Several as one."""
        return cls(
            torch.cat([p.latents for p in parts]),
            torch.cat([p.masks for p in parts]),
            tuple(t for p in parts for t in p.texts),
        )


@dataclass(frozen=True)
class Subject:
    """What one token is trained on: its references and its words.

    nouns: what each reference shows, where they show several classes, else empty; masks: of each
    reference, of its size, white where the look is that shall be learned, or its shares in [0, 1]
    in mode F, else empty. The loss counts there alone.
    """

    references: Sequence[Image.Image]
    prompts: ConceptPrompts
    nouns: Sequence[str] = ()
    masks: Sequence[Image.Image] = ()

    @property
    def each(self) -> list[ConceptPrompts]:
        """The words of each reference."""
        nouns = self.nouns or [self.prompts.noun] * len(self.references)
        return [dataclasses.replace(self.prompts, noun=noun) for noun in nouns]

    @property
    def classes(self) -> tuple[str, ...]:
        """The nouns that the references show, each once."""
        return tuple(dict.fromkeys(p.noun for p in self.each))


def encode_references(base: Base, subject: Subject, settings: TrainingSettings) -> Method[Dataset]:
    """The framings of the references that training draws from; each reference also whole."""
    rng = np.random.default_rng([settings.seed, 1])
    crops: list[Crop] = []
    texts: list[str] = []
    for number, (image, prompts) in enumerate(zip(subject.references, subject.each, strict=True)):
        region = None
        if subject.masks:
            region = mask_region(subject.masks[number], image)
        elif settings.focus == "noun":
            region = yield from noun_map(base, image, prompts.noun, settings.seed)
        own = [full_frame(image, base.side, base.factor, region)]
        if settings.augment_crops:
            for _ in range(settings.crops - 1):
                own.append(
                    random_crop(
                        image,
                        base.side,
                        base.factor,
                        rng,
                        least_cells=settings.crop_cells,
                        region=region,
                    )
                )
        crops += own
        forms = itertools.cycle(FORMS if settings.sentences == "varied" else [PLAIN])
        texts += [prompts.instance(c.prefix, form) for c, form in zip(own, forms, strict=False)]
    return (yield from Dataset.encode(base, crops, texts))


def mask_region(mask: Image.Image, image: Image.Image) -> Image.Image:
    """``mask`` as shares in [0, 1], mode F, at the size of ``image``."""
    shares = Image.fromarray(picture_values(mask, "masks"))
    if shares.size == image.size:
        return shares
    return shares.resize(image.size, Image.Resampling.BILINEAR)


def check_subjects(subjects: Sequence[Subject]) -> None:
    """Check the subjects of one training.

    Raises:
        InputError: for no subjects, tokens of one name, too few or too many references, nouns or
            masks that are not one for each of them, a mask without white in the middle square of
            its reference.
    """
    tokens = [s.prompts.token for s in subjects]
    if not tokens or len(set(tokens)) < len(tokens):
        raise InputError(
            "token", f"given are {', '.join(tokens) or 'none'}", "give each subject its own"
        )
    for subject in subjects:
        check_references(subject.references)
        for name in ("nouns", "masks"):
            given = len(getattr(subject, name))
            if given and given != len(subject.references):
                raise InputError(
                    name,
                    f"are {given} for {len(subject.references)} references",
                    "give one for each, in their order, or none",
                )
        subject.each  # noqa: B018  # refuses nouns that are no words
        for number, mask in enumerate(subject.masks):
            _check_mask(number + 1, mask, subject.references[number])


def _check_mask(number: int, mask: Image.Image, image: Image.Image) -> None:
    """Refuse a reference's mask with which nothing would be learned."""
    region = mask_region(mask, image)
    if _brightest(region) < 0.5:
        raise InputError("masks", f"number {number} has no white", "paint white what is learned")
    if _brightest(middle_square(region)) < 0.5:
        raise InputError(
            "masks",
            f"number {number} has no white in the middle square, which is what is learned from",
            "paint white there, or crop the reference around the look",
        )


def _brightest(region: Image.Image) -> float:
    return float(np.asarray(region).max())


def check_words(base: Base, subjects: Sequence[Subject]) -> None:
    """Raises InputError for words that take more tokens than the base reads."""
    known = [subject.prompts.token for subject in subjects]
    for prompts in (prompts for subject in subjects for prompts in dict.fromkeys(subject.each)):
        prompts.check(lambda prompt, field: base.tokens(prompt, known, field))


def build_datasets(
    base: Base, subjects: Sequence[Subject], settings: TrainingSettings, cache: Path | None
) -> Method[tuple[Dataset, Dataset | None]]:
    """The references' framings, and the class images of prior preservation if they are wanted."""
    wanted = [image for s in subjects for image in class_images(base, s.classes, settings)]
    own = []
    for number, subject in enumerate(subjects):
        own.append((yield from encode_references(base, subject, settings)))
        yield Progress("encode", number + 1, len(subjects))
    priors = []
    for images in wanted:
        latents = yield from images.draw(base, cache)
        texts = (images.prompt,) * len(latents)
        priors.append(Dataset(latents, torch.ones_like(latents[:, 0]), texts))
    return Dataset.join(own), Dataset.join(priors) if priors else None
