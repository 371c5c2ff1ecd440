"""Weights kept as what they change of the base's, as two thin factors: put together again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from customedit.concepts.checks import size
from customedit.errors import InputError


def restore(up: Tensor, down: Tensor, base: Tensor) -> Tensor:
    """W + up down [inner, width], reckoned in float32 or wider, in the factors' dtype.

    up: [inner, r]; down: [r, width]; base: W [inner, width].

    Raises:
        InputError: for shapes that do not go together, with the numbers.
    """
    fits = up.ndim == down.ndim == 2 and up.shape[1] == down.shape[0]
    if not fits or base.shape != (up.shape[0], down.shape[1]):
        raise InputError(
            "concept",
            f"was made for another base: factors {size(up.shape)} and {size(down.shape)} do not "
            f"go with a weight {size(base.shape)}",
            "give the weights of the base it was made for",
        )
    fine = torch.promote_types(up.dtype, torch.float32)
    return (base.to(up.device, fine) + up.to(fine) @ down.to(fine)).to(up.dtype)


def base_weight(base_weights: Mapping[str, Tensor] | None, name: str, what: str) -> Tensor:
    """The base's weight that factors in ``what`` are added to.

    Raises:
        InputError: if no weights were given, or not this one.
    """
    if base_weights is None:
        raise InputError(
            "base_weights", f"is missing, {what} is low-rank", "give the base's, as Base.weights"
        )
    if name not in base_weights:
        raise InputError(
            "base_weights",
            f"has no {name}: {what} was made for another base",
            "give the weights of the base it was made for",
        )
    return base_weights[name]
