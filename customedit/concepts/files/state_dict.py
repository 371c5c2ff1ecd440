"""Entries of other programs' files, looked at one by one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from customedit.concepts.checks import check_finite
from customedit.errors import InputError

AGAIN = "copy or download it again, whole, from someone you trust"


@dataclass(frozen=True)
class Found:
    """What one or more files hold: tokens to [1, width] or [width]; weights as in ``Concept``."""

    tokens: dict[str, Tensor]
    weights: dict[str, Tensor]


def plain(value: Any, name: str, path: Path) -> Tensor:
    """``value`` as a tensor of its own, without gradient or strides of zero.

    Raises:
        InputError: naming file and entry, for one that is no tensor, or holds no finite floats.
    """
    if not isinstance(value, Tensor):
        raise InputError(
            "concept", f"{path} holds a {type(value).__name__} for {name}, no tensor", AGAIN
        )
    own = value.detach().contiguous()
    check_finite({name: own}, str(path))
    return own


def foreign(name: str, path: Path) -> InputError:
    """The error for an entry that no concept has."""
    return InputError(
        "concept",
        f"{path} holds {name}; a concept has tokens and cross-attention keys and values only",
        "train it without queries, outputs or text encoder (freeze_model crossattn_kv)",
    )
