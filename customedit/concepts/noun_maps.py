"""Where in its references a base sees their noun: soft masks for losses that count there alone.

The cross-attention maps of the noun's columns at a middle time, which Prompt-to-Prompt reads its
regions from (arXiv 2208.01626): the mean over several noises, stretched so that the least is 0 and
the most 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from customedit import pixels
from customedit.concepts.crops import square
from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.method import Denoise, Method, ask

NOISES: Final = 4
"""Draws of the noise that the maps are the mean of."""

TIME: Final = 0.5
"""Share of the schedule at which the maps are read: shapes stand, textures do not yet."""


def noun_map(base: Base, image: Image.Image, noun: str, seed: int = 0) -> Method[Image.Image]:
    """Where the middle square of ``image`` shows ``noun``: mode F in [0, 1], ``side`` pixels."""
    text = base.text(base.profile.class_prompt(noun), field="noun")
    assert text.tokens is not None
    columns = noun_columns(text.tokens.words, text.tokens.spans, noun)
    latents = base.encode_pixels(pixels.to_tensor(square(image, base.side), (base.side,) * 2))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((NOISES, *latents.shape[1:]), generator=generator).to(base.device)
    schedule = base.schedule.sized(*latents.shape[2:])
    time = schedule.time_at(TIME)
    noisy = schedule.add_noise(latents.expand(NOISES, -1, -1, -1), noise, time)
    control = dataclasses.replace(
        AttentionControl.none(NOISES, base.family.mapped_tokens),
        record=torch.ones(NOISES, dtype=torch.bool),
    )
    found = yield from ask(Denoise(noisy, time, [text] * NOISES, control))
    assert found.maps is not None
    return soft_mask(found.maps[..., columns].sum(-1).mean(0), base.side)


def noun_columns(words: Sequence[str], spans: Sequence[tuple[int, int]], noun: str) -> list[int]:
    """The columns of the last words of a class prompt that are ``noun``'s."""
    wanted = [w.lower() for w in noun.split()]
    plain = [w.lower() for w in words]
    for start in range(len(plain) - len(wanted), -1, -1):
        if plain[start : start + len(wanted)] == wanted:
            return list(range(spans[start][0], spans[start + len(wanted) - 1][1]))
    return list(range(*spans[-1]))


def soft_mask(heat: Tensor, side: int) -> Image.Image:
    """``heat`` [h, w] of any scale as a picture of ``side`` pixels, mode F: least 0, most 1."""
    grown = F.interpolate(heat[None, None].float().cpu(), size=(side, side), mode="bilinear")[0, 0]
    low, high = grown.min(), grown.max()
    shares = (grown - low) / (high - low).clamp(min=1e-12)
    return Image.fromarray(shares.numpy(), mode="F")
