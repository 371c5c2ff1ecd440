"""What a concept changes, measured on the base itself: an import is proven by it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from typing import Final

import torch

from customedit.concepts.concept import Concept
from customedit.diffusion.base import Base
from customedit.diffusion.method import Answer, Denoise, Method, Request, ask
from customedit.diffusion.text import Weighted
from customedit.errors import InputError

NO_EFFECT: Final = 1e-5
"""A change of the noise prediction, relative to it, below which a concept changes nothing."""

_TIMES: Final = (0.9, 0.5, 0.1)
"""Shares of the schedule at which the prediction is looked at."""


def measure_effect(base: Base, concept: Concept) -> Generator[Request, Answer, float]:
    """How much the concept's weights and adapters change what the base predicts.

    The largest |changed - plain| / |plain| (root mean squares) of the noise predicted for one
    picture of noise at three times, both rows reading the same prompt, which names a token.
    0 for a concept of embeddings alone.

    Raises:
        InputError: if the concept's prediction has numbers that are not finite; NumericalError: if
            already that of the base without it has.
    """
    token = next(iter(concept.tokens))
    prompt = " ".join(w for w in ("a photo of a", token, concept.noun) if w)
    rows = [base.text(prompt, [Weighted(concept, w)], everywhere=True) for w in (1.0, 0.0)]
    cells = base.side // base.factor
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((1, base.channels, cells, cells), generator=generator)
    effect = 0.0
    for share in _TIMES:
        time = base.schedule.time_at(share)
        prediction = yield from ask(Denoise(noise.repeat(2, 1, 1, 1), time, rows))
        changed, plain = prediction.noise.double()
        base.check_finite("the base's own predictions", plain)
        part = float((changed - plain).square().mean().sqrt() / plain.square().mean().sqrt())
        if not math.isfinite(part):
            raise InputError(
                "concept",
                f"makes the base predict numbers that are not finite in {base.dtype}",
                "train or export it again",
            )
        effect = max(effect, part)
    return effect


def prove_effect(base: Base, concept: Concept, *, allow_none: bool = False) -> Method[Concept]:
    """``concept`` as one of ``base``, if it changes what the base predicts.

    The recipe of one that was imported then says how much it changes.

    allow_none: take one that changes nothing.

    Raises:
        InputError: for one that changes nothing, or makes numbers that are not finite.
    """
    effect = yield from measure_effect(base, concept)
    embeddings_alone = not concept.keys and not concept.adapters
    if effect < NO_EFFECT and not embeddings_alone and not allow_none:
        raise InputError(
            "concept",
            f"has no effect: its weights change the base's prediction by {effect:g} of it",
            "import another file; `allow_unused` takes it as it is",
        )
    imported = concept.recipe.get("imported")
    if not isinstance(imported, dict) or embeddings_alone:
        return dataclasses.replace(concept, base=base.concept_fingerprint)
    recipe = {**concept.recipe, "imported": {**imported, "effect": round(effect, 6)}}
    return dataclasses.replace(concept, base=base.concept_fingerprint, recipe=recipe)
