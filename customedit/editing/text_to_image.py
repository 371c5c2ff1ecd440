"""A concept shown by itself: a picture drawn with it from noise alone, also while it is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from PIL import Image

from customedit.diffusion.base import Base
from customedit.diffusion.engine import Method
from customedit.diffusion.text import Customization, Weighted
from customedit.editing.sdedit import sdedit

STEPS: Final = 20
"""DDIM steps that show enough of a concept."""


def portrait(
    base: Base, concept: Customization, prompt: str, steps: int = STEPS, seed: int = 0
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
    return base.decode(latents)[0]
