"""SDEdit (Meng et al., arXiv 2108.01073): noise the source part of the way, draw it again.

Strength is the share of the way: higher takes more of the reference, lower keeps more of the
source. From noise alone it shows a concept by itself (``portrait``), also while it is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from PIL import Image
from torch import Tensor

from customedit.diffusion.base import Base
from customedit.diffusion.guided import ask_guided
from customedit.diffusion.method import Denoise, Method, Progress, ask, decode
from customedit.diffusion.schedule import CLEAN
from customedit.diffusion.text import Customization, TextContext, Weighted
from customedit.editing.guidance import Guidance
from customedit.editing.method_settings import STRENGTHS, first_noised_step
from customedit.editing.region import blend, latent_mask
from customedit.errors import InputError


def first_step(strength: float, steps: int) -> int:
    """The downward step that SDEdit starts with; 0 draws from noise alone.

    Raises InputError unless 0 < strength <= 1.
    """
    if not 0 < strength <= 1:
        raise InputError(
            "strength", f"{strength} is not above 0 and up to 1", "0.5 to 0.8 is usual"
        )
    return first_noised_step(strength, steps)


def sdedit(
    base: Base,
    latents: Tensor,
    target: TextContext,
    *,
    strength: float = STRENGTHS["sdedit"],
    steps: int = 50,
    guidance: Guidance | float = 7.5,
    seed: int = 0,
    mask: Tensor | None = None,
    empty: TextContext | None = None,
) -> Method[Tensor]:
    """Edit the picture whose latents [1, C, h, w] are given; returns latents of the same shape.

    Equal seeds give equal noise on every device: it is drawn on the CPU. mask: the user's, [height,
    width] in [0, 1]: outside of it each step goes on with the source at that step's noise, as in
    Blended Latent Diffusion (arXiv 2206.02779), so that the edit fits what stays.

    Raises InputError for a strength or a mask out of range.
    """
    guidance = Guidance.of(guidance)
    start = first_step(strength, steps)
    schedule = base.schedule.sized(*latents.shape[-2:])
    pairs = schedule.downwards(steps)[start:]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape, generator=generator).to(base.device)
    x = schedule.add_noise(latents.to(base.device), noise, pairs[0][0])
    empty = base.unconditional(empty or base.text(""), target)
    size = (int(latents.shape[2]), int(latents.shape[3]))
    bound = None if mask is None else latent_mask(mask.cpu(), size).to(base.device)
    for k, (time, to) in enumerate(pairs):
        if guidance.acts(start + k, steps):
            predicted = yield from ask_guided(base, x, time, target, empty, guidance.scale)
        else:
            predicted = (yield from ask(Denoise(x, time, [target]))).noise
        x = schedule.step(x, predicted, time, to)
        if bound is not None:
            source = latents.to(base.device)
            x = blend(source if to == CLEAN else schedule.add_noise(source, noise, to), x, bound)
        yield Progress("edit", k + 1, len(pairs))
    return x


PORTRAIT_STEPS: Final = 20
"""DDIM steps that show enough of a concept."""


def portrait(
    base: Base, concept: Customization, prompt: str, steps: int = PORTRAIT_STEPS, seed: int = 0
) -> Method[Image.Image]:
    """A square picture drawn for ``prompt``, from noise alone."""
    cells = base.side // base.factor
    entries: Sequence[Weighted] = [Weighted(concept)]
    latents = yield from sdedit(
        base,
        torch.zeros((1, base.channels, cells, cells)),
        base.text(prompt, entries),
        strength=1.0,
        steps=steps,
        guidance=base.guidance,
        seed=seed,
    )
    return (yield from decode(base, latents))
