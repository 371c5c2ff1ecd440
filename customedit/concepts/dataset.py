"""What a training draws from: framings of the references, and class images, encoded once.

Class images, for prior preservation, are drawn by the base itself, once per base and class, and
kept.

References are framed by crop augmentation as Custom Diffusion does it (arXiv 2212.04488 and its
public code). With chance 2/3 the picture is brought to a side in [S/3, S], else in [1.2 S, 1.4 S].
Below 0.6 S it is pasted at a random place, and the prompt says "far away" or "very small"; the loss
counts inside the pasted box less one latent cell. Above S a random crop is taken, "zoomed in" or
"close up".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.devices import to_device
from customedit.diffusion.engine import Method, Progress, Turn
from customedit.diffusion.guided import ask_guided
from customedit.errors import InputError
from customedit.files import replacing

FEWEST, MOST = 1, 20

ROWS: Final = 8
"""Class images drawn together."""


@dataclass(frozen=True)
class Crop:
    """One framing of a reference.

    pixels: float32 [3, S, S] in [-1, 1]; mask: float32 [cells, cells], 1 where the loss counts;
    prefix: what the prompt says of the framing.
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.float32]
    prefix: str


def square(image: Image.Image, side: int) -> Image.Image:
    """``image`` cropped in the middle to a square and brought to ``side``."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    box = image.crop((left, top, left + edge, top + edge))
    return box.resize((side, side), Image.Resampling.LANCZOS)


def full_frame(image: Image.Image, side: int, factor: int) -> Crop:
    """The middle square of ``image``, all of it counted."""
    cells = side // factor
    return Crop(_pixels(square(image, side)), np.ones((cells, cells), np.float32), "")


def random_crop(image: Image.Image, side: int, factor: int, rng: np.random.Generator) -> Crop:
    """A random framing of ``image`` at ``side`` pixels; ``factor`` pixels make a latent cell."""
    cells = side // factor
    share = rng.uniform(1 / 3, 1) if rng.random() < 2 / 3 else rng.uniform(1.2, 1.4)
    scaled = max(factor * 3, round(side * share))
    picture = _pixels(square(image, scaled))
    if rng.random() < 0.5:
        picture = picture[:, :, ::-1].copy()
    if scaled > side:
        top, left = rng.integers(0, scaled - side + 1, 2)
        prefix = str(rng.choice(["zoomed in", "close up"]))
        found = picture[:, top : top + side, left : left + side]
        return Crop(found.copy(), np.ones((cells, cells), np.float32), prefix)
    canvas = np.zeros((3, side, side), np.float32)  # mid-grey, as zeros are in [-1, 1]
    top, left = rng.integers(0, side - scaled + 1, 2)
    canvas[:, top : top + scaled, left : left + scaled] = picture
    mask = np.zeros((cells, cells), np.float32)
    y0, x0 = (-(-v // factor) + 1 for v in (top, left))
    y1, x1 = ((v + scaled) // factor - 1 for v in (top, left))
    mask[y0:y1, x0:x1] = 1
    if scaled == side:
        mask[:] = 1
    prefix = str(rng.choice(["far away", "very small"])) if share < 0.6 else ""
    return Crop(canvas, mask, prefix)


def _pixels(image: Image.Image) -> NDArray[np.float32]:
    levels = np.asarray(image.convert("RGB"), np.float32)
    return (levels / 127.5 - 1).transpose(2, 0, 1).copy()


def class_images_file(base: Base, prompt: str, count: int, steps: int, seed: int = 0) -> str:
    """The name of the file in ``cache`` that keeps such class images."""
    guidance = base.profile.class_guidance
    name = f"{base.fingerprint}|{base.schedule.key}|{guidance}|{prompt}|{count}|{steps}|{seed}"
    return f"class-{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"


def draw_class_images(
    base: Base, prompt: str, count: int, steps: int, cache: Path | None = None, seed: int = 0
) -> Method[Tensor]:
    """Latents float32 [count, C, h, w] of pictures that the base draws for ``prompt``.

    cache: a folder that keeps them per (base, prompt, count, steps, seed).

    Raises:
        NumericalError: for latents that are not finite; they are not kept.
    """
    file = cache / class_images_file(base, prompt, count, steps, seed) if cache else None
    if file is not None and file.exists():
        return load_file(file)["latents"].to(base.device)
    empty, text = base.text(""), base.text(prompt, field="noun")
    cells, guidance = base.side // base.factor, base.profile.class_guidance
    done: list[Tensor] = []
    schedule = base.schedule.sized(cells, cells)
    pairs = schedule.downwards(steps)
    for first in range(0, count, ROWS):
        rows = min(ROWS, count - first)
        seeds = [torch.Generator().manual_seed(seed * 1_000_003 + first + k) for k in range(rows)]
        start = [torch.randn((base.channels, cells, cells), generator=g) for g in seeds]
        x = torch.stack(start).to(base.device)
        for k, (time, to) in enumerate(pairs):
            predicted = yield from ask_guided(base, x, time, text, empty, guidance)
            x = schedule.step(x, predicted, time, to)
            share = (first + rows * (k + 1) / len(pairs)) / count
            yield Progress("class images", round(share * count), count)
        done.append(x)
    latents = torch.cat(done)
    base.check_finite("the class images' latents", latents)
    if file is not None:
        with replacing(file) as draft:
            save_file({"latents": latents.cpu().contiguous()}, draft)
    return latents


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

    latents: [n, C, h, w]; masks: [n, h, w], 1 where the loss counts; texts: the prompt of each.
    """

    latents: Tensor
    masks: Tensor
    texts: tuple[str, ...]

    @classmethod
    def encode(
        cls, base: Base, crops: Sequence[Crop], prompts: ConceptPrompts, batch: int = 4
    ) -> Method[Dataset]:
        """Encode ``crops``, whose prompts tell their framing; a turn for others each ``batch``."""
        pixels = torch.from_numpy(np.stack([c.pixels for c in crops]))
        parts = []
        for part in pixels.split(batch):
            parts.append(base.encode_pixels(part))
            yield Turn()
        latents = torch.cat(parts)
        masks = torch.from_numpy(np.stack([c.mask for c in crops])).to(latents.device)
        return cls(latents, masks, tuple(prompts.instance(c.prefix) for c in crops))

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
    """What one token is trained on: its references and its words."""

    references: Sequence[Image.Image]
    prompts: ConceptPrompts


def encode_references(base: Base, subject: Subject, settings: TrainingSettings) -> Method[Dataset]:
    """The framings of the references that training draws from; each reference also whole."""
    rng = np.random.default_rng([settings.seed, 1])
    crops: list[Crop] = []
    for image in subject.references:
        crops.append(full_frame(image, base.side, base.factor))
        if settings.augment_crops:
            more = range(settings.crops - 1)
            crops += [random_crop(image, base.side, base.factor, rng) for _ in more]
    return (yield from Dataset.encode(base, crops, subject.prompts))


def check_subjects(subjects: Sequence[Subject]) -> None:
    """Raises InputError for no subjects, tokens of one name, too few or too many references."""
    tokens = [s.prompts.token for s in subjects]
    if not tokens or len(set(tokens)) < len(tokens):
        raise InputError(
            "token", f"given are {', '.join(tokens) or 'none'}", "give each subject its own"
        )
    for subject in subjects:
        check_references(subject.references)


def check_words(base: Base, subjects: Sequence[Subject]) -> None:
    """Raises InputError for words that take more tokens than the base reads."""
    known = [subject.prompts.token for subject in subjects]
    for subject in subjects:
        subject.prompts.check(lambda prompt, field: base.tokens(prompt, known, field))


def build_datasets(
    base: Base, subjects: Sequence[Subject], settings: TrainingSettings, cache: Path | None
) -> Method[tuple[Dataset, Dataset | None]]:
    """The references' framings, and the class images of prior preservation if they are wanted."""
    own = []
    for number, subject in enumerate(subjects):
        own.append((yield from encode_references(base, subject, settings)))
        yield Progress("encode", number + 1, len(subjects))
    priors = []
    for subject in subjects:
        found = yield from draw_prior(base, subject.prompts, settings, cache)
        priors += [found] if found is not None else []
    return Dataset.join(own), Dataset.join(priors) if priors else None


def draw_prior(
    base: Base, prompts: ConceptPrompts, settings: TrainingSettings, cache: Path | None
) -> Method[Dataset | None]:
    """The class images of prior preservation, None if the settings want none."""
    if (
        not settings.class_images
        or not settings.prior_weight
        or settings.way == "textual-inversion"
    ):
        return None
    prompt = base.profile.class_prompt(prompts.noun)
    latents = yield from draw_class_images(
        base, prompt, settings.class_images, settings.class_steps, cache
    )
    return Dataset(latents, torch.ones_like(latents[:, 0]), (prompt,) * len(latents))
