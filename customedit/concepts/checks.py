"""What a concept's numbers must be, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from customedit.errors import InputError

MAX_TOKENS = 16
MAX_LAYERS = 512  # SDXL has 70

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise InputError, naming ``what`` and the tensor, for a number that is no finite float."""
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise InputError("concept", f"{what} has {name} in {tensor.dtype}", "save it as floats")
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise InputError(
                "concept",
                f"{what} is poisoned: {name} has {bad} of {tensor.numel()} numbers not finite",
                "train or export it again",
            )


def check_range(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Raise InputError, naming the tensor, for a number that is too large for ``dtype``."""
    limit = torch.finfo(dtype).max
    for name, tensor in tensors.items():
        most = float(tensor.detach().abs().max())
        if most > limit:
            raise InputError(
                "concept",
                f"its {name} has {most:g}, more than {dtype} holds",
                "use the base in float32 or bfloat16, or train it again at a lower rate",
            )


def check_counts(tokens: int, layers: int) -> None:
    """Raise InputError for no tokens or too many, and for too many layers."""
    if not 1 <= tokens <= MAX_TOKENS:
        raise InputError("tokens", f"are {tokens}, 1 to {MAX_TOKENS} can be", "give as many")
    if layers > MAX_LAYERS:
        raise InputError("layers", f"are {layers}, the limit is {MAX_LAYERS}", "leave some out")


def size(shape: torch.Size | tuple[int, ...]) -> str:
    """``shape`` in words, for errors: "6 x 8"."""
    return " x ".join(map(str, shape)) or "a scalar"
