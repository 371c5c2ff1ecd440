"""Class images for prior preservation: drawn by the base itself, once per base and class, kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from customedit.diffusion.base import Base
from customedit.diffusion.engine import Denoise, Method, Progress, ask
from customedit.files import replacing

ROWS: Final = 8
"""Class images drawn together."""


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
    cells = base.side // base.factor
    done: list[Tensor] = []
    pairs = base.schedule.downwards(steps)
    for first in range(0, count, ROWS):
        rows = min(ROWS, count - first)
        seeds = [torch.Generator().manual_seed(seed * 1_000_003 + first + k) for k in range(rows)]
        start = [torch.randn((base.channels, cells, cells), generator=g) for g in seeds]
        x = torch.stack(start).to(base.device)
        for k, (time, to) in enumerate(pairs):
            context = [empty] * rows + [text] * rows
            noise = (yield from ask(Denoise(torch.cat([x, x]), time, context))).noise
            none, worded = noise.chunk(2)
            x = base.schedule.step(
                x, none + base.profile.class_guidance * (worded - none), time, to
            )
            share = (first + rows * (k + 1) / len(pairs)) / count
            yield Progress("class images", round(share * count), count)
        done.append(x)
    latents = torch.cat(done)
    base.check_finite("the class images' latents", latents)
    if file is not None:
        with replacing(file) as draft:
            save_file({"latents": latents.cpu().contiguous()}, draft)
    return latents
