"""What a concept must be, wherever it comes from, and whether it fits a base."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from customedit.errors import InputError

if TYPE_CHECKING:
    from customedit.concepts.concept import Concept
    from customedit.diffusion.base import Base

MAX_TOKENS: Final = 16
MAX_LAYERS: Final = 512  # SDXL has 70
MAX_BYTES: Final = 2 * 2**30
"""Of a concept's file."""

FLOATS: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

LARGEST_STATE: Final = 64.0
"""Text states behind CLIP's last layer norm stay below it; what a weight may be follows from it."""


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise InputError, naming ``what`` and the tensor, for a number that is no finite float."""
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise InputError("concept", f"{what} has {name} in {tensor.dtype}", "save it as floats")
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise InputError(
                "concept",
                f"{what} has {name} with {bad} of {tensor.numel()} numbers not finite",
                "train or export it again",
            )


def check_counts(tokens: int, layers: int) -> None:
    """Raise InputError for no tokens or too many, and for too many layers."""
    if not 1 <= tokens <= MAX_TOKENS:
        raise InputError("tokens", f"are {tokens}", f"give 1 to {MAX_TOKENS}")
    if layers > MAX_LAYERS:
        raise InputError("layers", f"are {layers}, the limit is {MAX_LAYERS}", "leave some out")


def check_concept(concept: Concept, base: Base) -> None:
    """Whether ``concept`` can be used on ``base``: made for it, of its shapes, within its dtype.

    Raises:
        InputError: naming what does not fit, with the numbers.
    """
    base.check_concept_base(concept.base)
    concept.check(base.shapes, base.width)
    _check_adapted_layers(concept, base)
    _check_range(concept, base.dtype)


def _check_adapted_layers(concept: Concept, base: Base) -> None:
    if not concept.adapters:
        return
    layers = base.family.adaptable
    remedy = "use it with the base it was made for"
    for path, adapter in concept.adapters.items():
        if path not in layers:
            raise InputError("concept", f"was made for another base: {path} is not in it", remedy)
        if adapter.shape != tuple(layers[path].weight.shape):
            raise InputError(
                "concept",
                f"was made for another base: it changes {path} by {shape_text(adapter.shape)}, "
                f"this base's weight is {shape_text(tuple(layers[path].weight.shape))}",
                remedy,
            )


def _check_range(concept: Concept, dtype: torch.dtype) -> None:
    """Finite numbers can still overflow: in ``dtype``, or in the keys and values made of them."""
    from customedit.diffusion.text import WEIGHTS  # seconds to import, and a base has done so

    largest = torch.finfo(dtype).max
    limit = largest / (WEIGHTS[1] * LARGEST_STATE)
    weights = concept.weights.keys()
    for name, tensor in concept.tensors.items():
        wide = tensor.detach().double().abs()
        is_weight = name in weights
        top = float(wide.sum(1).max() if is_weight else wide.max()) if wide.numel() else 0.0
        if top > (limit if is_weight else largest) or not math.isfinite(top):
            raise InputError(
                "concept",
                f"its {name} has {float(wide.max()):g}, more than {dtype} computes with",
                "train or export it again, or use the base in bfloat16 or float32",
            )


def shape_text(shape: torch.Size | tuple[int, ...]) -> str:
    """``shape`` in words, for errors: "6 x 8"."""
    return " x ".join(map(str, shape)) or "a scalar"
