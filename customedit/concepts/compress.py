"""Concepts made small: what they change of each weight, as two thin factors, and back.

After adobe-research/custom-diffusion's compression: the singular value decomposition of W' - W per
layer, cut where the cumulative share of the singular values passes a bound (0.6: about 15 MB of
77 MB for Stable Diffusion 1.x).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from customedit.concepts.checks import check_finite, shape_text
from customedit.concepts.concept import Concept
from customedit.errors import InputError


@dataclass(frozen=True, eq=False)
class Factors:
    """A weight's change, W' - W = up down: up [inner, r], down [r, width].

    error: relative Frobenius error |W' - W - up down| / |W' - W|, 0 to 1, 0 if nothing changed;
    size: |W' - W|.
    """

    up: Tensor
    down: Tensor
    error: float
    size: float

    @property
    def rank(self) -> int:
        """r, 0 where the concept changes nothing."""
        return self.up.shape[1]


@dataclass(frozen=True, eq=False)
class LowRankConcept:
    """A concept whose weights are kept as changes of the base's.

    plain: its tokens and all that is told of it, without weights; factors: ``{layer}.to_k`` and
    ``{layer}.to_v`` to the factors of that weight's change.
    """

    plain: Concept
    factors: dict[str, Factors]

    @property
    def errors(self) -> dict[str, float]:
        """Relative Frobenius error of each weight's change, by ``{layer}.to_k``."""
        return {n: f.error for n, f in self.factors.items()}

    @property
    def error(self) -> float:
        """Relative Frobenius error of all changes taken as one long vector."""
        lost = sum((f.error * f.size) ** 2 for f in self.factors.values())
        total = sum(f.size**2 for f in self.factors.values())
        return float((lost / total) ** 0.5) if total else 0.0

    def restore(self, base_weights: Mapping[str, Tensor]) -> Concept:
        """The concept with whole weights, in the factors' dtype.

        base_weights: ``{layer}.to_k.weight`` and ``{layer}.to_v.weight`` (``Base.weights``).

        Raises:
            InputError: if a weight is missing or of another shape.
        """
        whole = {
            n: restore_weight(f.up, f.down, base_weight(base_weights, f"{n}.weight", "the concept"))
            for n, f in self.factors.items()
        }
        return dataclasses.replace(
            self.plain,
            keys={n.removesuffix(".to_k"): w for n, w in whole.items() if n.endswith(".to_k")},
            values={n.removesuffix(".to_v"): w for n, w in whole.items() if n.endswith(".to_v")},
        )

    def save(self, path: Path) -> None:
        """Write it as a concept's own file with factors; ``Concept.load`` reads it.

        The errors are not kept: they are of the concept that was compressed.
        """
        from customedit.concepts.files import own  # which imports this module

        thin: dict[str, Tensor] = {}
        for name, factors in self.factors.items():
            thin |= {f"{name}.up": factors.up, f"{name}.down": factors.down}
        own.write(path, self.plain, thin)


def compress(
    concept: Concept,
    base_weights: Mapping[str, Tensor],
    *,
    keep: float = 0.6,
    rank: int | None = None,
) -> LowRankConcept:
    """``concept`` with each W' - W cut to low rank, in the concept's dtype.

    base_weights: ``{layer}.to_k.weight`` and ``{layer}.to_v.weight`` of the base it was made for;
    keep: in (0, 1], the least share of the sum of singular values that each layer keeps; the value
    that passes the bound is kept too (adobe's code leaves it out, and with it the whole of a change
    of rank 1); rank: 1 or more, the same for every layer, instead of ``keep``.
    Adapters stay as they are. Errors are measured on the factors after rounding.

    Raises:
        InputError: for ``keep`` or ``rank`` out of range, weights that are missing, of another
            shape, or not finite.
    """
    if not 0 < keep <= 1:
        raise InputError("keep", f"is {keep}", "give a share above 0, 1 at most")
    if rank is not None and rank < 1:
        raise InputError("rank", f"is {rank}", "give 1 or more")
    check_finite(concept.weights, "concept")
    factors = {
        name.removesuffix(".weight"): _factorize(
            weight, base_weight(base_weights, name, "the concept"), name, keep, rank
        )
        for name, weight in concept.weights.items()
    }
    return LowRankConcept(dataclasses.replace(concept, keys={}, values={}), factors)


def _factorize(weight: Tensor, base: Tensor, name: str, keep: float, rank: int | None) -> Factors:
    """W' - W as factors. weight: W' [inner, width]; base: W."""
    if weight.shape != base.shape:
        raise InputError(
            "base_weights",
            f"{name} is {tuple(base.shape)}, the concept's is {tuple(weight.shape)}",
            "give the weights of the base it was made for",
        )
    fine = torch.promote_types(weight.dtype, torch.float32)
    change = weight.detach().to(fine) - base.detach().to(weight.device, fine)
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    r = rank_of_share(s, keep) if rank is None else min(rank, int((s > 0).sum()))
    # the root goes to both sides: half precision then has the same room in each
    root = s[:r].sqrt()
    up = (u[:, :r] * root).to(weight.dtype).contiguous()
    down = (root[:, None] * v[:r]).to(weight.dtype).contiguous()
    size = float(torch.linalg.norm(change))
    lost = float(torch.linalg.norm(change - up.to(fine) @ down.to(fine)))
    return Factors(up, down, lost / size if size else 0.0, size)


def rank_of_share(singular: Tensor, keep: float) -> int:
    """How many of the falling values [n] it takes for their sum to reach the share ``keep``.

    0 if all are zero.
    """
    shares = singular.double().cumsum(0)
    if not len(shares) or shares[-1] == 0:
        return 0
    return min(int((shares < keep * shares[-1]).sum()) + 1, int((singular > 0).sum()))


def restore_weight(up: Tensor, down: Tensor, base: Tensor) -> Tensor:
    """W + up down [inner, width], computed in float32 or wider, in the factors' dtype.

    up: [inner, r]; down: [r, width]; base: W [inner, width].

    Raises:
        InputError: for shapes that do not go together, with the numbers.
    """
    fits = up.ndim == down.ndim == 2 and up.shape[1] == down.shape[0]
    if not fits or base.shape != (up.shape[0], down.shape[1]):
        raise InputError(
            "concept",
            f"was made for another base: factors {shape_text(up.shape)} and "
            f"{shape_text(down.shape)} do not go with a weight {shape_text(base.shape)}",
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
