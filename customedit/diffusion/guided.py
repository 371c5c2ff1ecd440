"""Guidance in the terms of a base: which rows make one guided prediction, and how.

Most bases predict twice, without and with the text (classifier-free guidance, arXiv 2207.12598);
some are told the guidance and predict once. Which is a question to the family (``Family.guided``).
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor

from customedit.diffusion.base import Base, Prediction
from customedit.diffusion.method import Denoise, Request, ask
from customedit.diffusion.schedule import Time
from customedit.diffusion.text import TextContext


def combine(noise: Tensor, rows: int, guidance: float) -> Tensor:
    """The guided prediction [n, C, h, w] from those of the ``rows`` rows of ``Family.guided``.

    noise: [rows n, C, h, w], the unconditional ones first; one row is guided already.
    """
    if rows == 1:
        return noise
    none, worded = noise.chunk(2)
    return none + guidance * (worded - none)


def ask_guided(
    base: Base, latents: Tensor, time: Time, target: TextContext, empty: TextContext,
    guidance: float,
) -> Generator[Request, Prediction | None, Tensor]:  # fmt: skip
    """The guided prediction for latents [n, C, h, w] that all read ``target``.

    empty: what unconditional rows read, where there are any.
    """
    rows = base.family.guided(target, empty, guidance)
    context = [text for text in rows for _ in range(len(latents))]
    stacked = latents.expand(len(rows), -1, -1, -1) if len(latents) == 1 else None
    request = Denoise(
        torch.cat([latents] * len(rows)) if stacked is None else stacked, time, context
    )
    return combine((yield from ask(request)).noise, len(rows), guidance)
