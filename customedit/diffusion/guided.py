"""Guidance in the terms of a base: which rows make one guided prediction, and how.

Most bases predict twice, without and with the text (classifier-free guidance, arXiv 2207.12598);
some are told the guidance and predict once. Which is a question to the family (``Family.guided``).
"""

from __future__ import annotations

from collections.abc import Generator

from torch import Tensor

from customedit.diffusion.base import Base, Prediction
from customedit.diffusion.engine import Denoise, Request, ask
from customedit.diffusion.schedule import Time
from customedit.diffusion.text import TextContext


def guided_rows(
    base: Base, target: TextContext, empty: TextContext, guidance: float | None
) -> tuple[TextContext, ...]:
    """What the rows read that make a guided prediction for ``target``, which comes last.

    guidance: None for a prediction without guidance, of the conditional row alone.
    """
    return (target,) if guidance is None else base.family.guided(target, empty, guidance)


def combine(noise: Tensor, rows: int, guidance: float | None) -> Tensor:
    """The guided prediction [n, C, h, w] from those of the ``rows`` rows of ``guided_rows``.

    noise: [rows n, C, h, w], the unconditional ones first; one row is guided already.
    """
    if rows == 1:
        return noise
    assert guidance is not None, "without guidance there is one row"
    none, worded = noise.chunk(2)
    return none + guidance * (worded - none)


def ask_guided(
    base: Base, latents: Tensor, time: Time, target: TextContext, empty: TextContext,
    guidance: float | None,
) -> Generator[Request, Prediction | None, Tensor]:  # fmt: skip
    """The guided prediction for latents [n, C, h, w] that all read ``target``.

    empty: what unconditional rows read, where there are any; guidance: as for ``guided_rows``.
    """
    rows = guided_rows(base, target, empty, guidance)
    context = [text for text in rows for _ in range(len(latents))]
    request = Denoise(latents.repeat(len(rows), 1, 1, 1), time, context)
    return combine((yield from ask(request)).noise, len(rows), guidance)
