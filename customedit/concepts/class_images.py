"""Class images, for prior preservation: drawn by the base, once per base and class, and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.guided import ask_guided
from customedit.diffusion.method import Method, Progress
from customedit.files import replacing

ROWS: Final = 8
"""Class images drawn together."""


@dataclass(frozen=True)
class ClassImages:
    """How many pictures are drawn for which prompt, in how many steps."""

    prompt: str
    count: int
    steps: int
    seed: int = 0

    def file(self, base: Base) -> str:
        """The name of the file that keeps them."""
        guidance = base.profile.class_guidance
        about = [base.fingerprint, base.schedule.key, guidance]
        about += [self.prompt, self.count, self.steps, self.seed]
        if base.dtype != torch.float32:  # whose files had no dtype in their names
            about.append(base.dtype)
        name = "|".join(map(str, about))
        return f"class-{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"

    def draw(self, base: Base, cache: Path | None = None) -> Method[Tensor]:
        """Latents float32 [count, C, h, w] of what the base draws. cache: a folder that keeps them.

        Raises:
            NumericalError: for latents that are not finite; they are not kept.
        """
        file = cache / self.file(base) if cache else None
        if file is not None and file.exists():
            return load_file(file)["latents"].to(base.device)
        empty, text = base.text(""), base.text(self.prompt, field="noun")
        cells, guidance = base.side // base.factor, base.profile.class_guidance
        done: list[Tensor] = []
        schedule = base.schedule.sized(cells, cells)
        pairs = schedule.downwards(self.steps)
        for first in range(0, self.count, ROWS):
            rows = min(ROWS, self.count - first)
            numbers = [self.seed * 1_000_003 + first + k for k in range(rows)]
            seeds = [torch.Generator().manual_seed(number) for number in numbers]
            start = [torch.randn((base.channels, cells, cells), generator=g) for g in seeds]
            x = torch.stack(start).to(base.device)
            for k, (time, to) in enumerate(pairs):
                predicted = yield from ask_guided(base, x, time, text, empty, guidance)
                x = schedule.step(x, predicted, time, to)
                share = (first + rows * (k + 1) / len(pairs)) / self.count
                yield Progress("class images", round(share * self.count), self.count)
            done.append(x)
        latents = torch.cat(done)
        base.check_finite("the class images' latents", latents)
        if file is not None:
            with replacing(file) as draft:
                save_file({"latents": latents.cpu().contiguous()}, draft)
        return latents


def class_images(base: Base, nouns: Sequence[str], settings: TrainingSettings) -> list[ClassImages]:
    """The class images of one subject, none if the settings want none.

    nouns: what its references show. With ``prior_classes`` above their number further classes come
    from the profile, as many as it names; the pictures are shared out evenly.
    """
    if not settings.has_prior:
        return []
    classes = list(dict.fromkeys(nouns))
    more = [noun for noun in base.profile.nouns if noun not in classes]
    classes += more[: max(0, settings.prior_classes - len(classes))]
    whole, rest = divmod(settings.class_images, len(classes))
    counts = [whole + (k < rest) for k in range(len(classes))]
    return [
        ClassImages(base.profile.class_prompt(noun), count, settings.class_steps)
        for noun, count in zip(classes, counts, strict=True)
        if count
    ]
