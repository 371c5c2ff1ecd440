"""SDEdit (Meng et al., arXiv 2108.01073): noise the source part of the way, draw it again.

Strength is the share of the way: higher takes more of the reference, lower keeps more of the
source.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from customedit.diffusion.base import Base
from customedit.diffusion.engine import Denoise, Method, Progress, ask
from customedit.diffusion.text import TextContext
from customedit.errors import InputError

SDEDIT_STRENGTH: Final = 0.6
"""Of the way into noise, where nothing else is asked for."""


def first_step(strength: float, steps: int) -> int:
    """The downward step that SDEdit starts with; 0 draws from noise alone.

    Raises InputError unless 0 < strength <= 1.
    """
    if not 0 < strength <= 1:
        raise InputError(
            "strength", f"{strength} is not above 0 and up to 1", "0.5 to 0.8 is usual"
        )
    return steps - max(1, math.floor(strength * steps + 0.5))


def sdedit(
    base: Base,
    latents: Tensor,
    target: TextContext,
    *,
    strength: float = SDEDIT_STRENGTH,
    steps: int = 50,
    guidance: float = 7.5,
    seed: int = 0,
    empty: TextContext | None = None,
) -> Method[Tensor]:
    """Edit the picture whose latents [1, C, h, w] are given; returns latents of the same shape.

    Equal seeds give equal noise on every device: it is drawn on the CPU.
    """
    start = first_step(strength, steps)
    pairs = base.schedule.downwards(steps)[start:]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape, generator=generator).to(base.device)
    x = base.schedule.add_noise(latents.to(base.device), noise, pairs[0][0])
    empty = base.unconditional(empty or base.text(""), target)
    for k, (time, to) in enumerate(pairs):
        rows = x.expand(2, -1, -1, -1)
        none, worded = (yield from ask(Denoise(rows, time, [empty, target]))).noise.chunk(2)
        x = base.schedule.step(x, none + guidance * (worded - none), time, to)
        yield Progress("edit", k + 1, len(pairs))
    return x
