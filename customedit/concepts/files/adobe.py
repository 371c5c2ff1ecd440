"""Files of adobe-research/custom-diffusion's diffusers code, written and read.

``delta.bin``, ``{"unet": {"{layer}.to_k.weight": W'}, "modifier_token": {"<new1>": vector}}``;
compressed, each W' is ``{"u": [inner, r], "v": [r, width]}`` with W' = W + u v.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from customedit.concepts.checks import check_finite
from customedit.concepts.compress import LowRankConcept, base_weight, restore_weight
from customedit.concepts.concept import Concept
from customedit.concepts.files.entries import (
    TRUSTED,
    Parts,
    foreign_entry,
    plain_tensor,
    portable,
    write_pickle,
)
from customedit.errors import InputError

_WEIGHT = re.compile(r"(?:unet\.)?(.+\.attn2)\.(to_[kv])\.weight")


def save_adobe(concept: Concept, path: Path) -> None:
    """Write a ``delta.bin`` for adobe-research/custom-diffusion's diffusers code.

    Raises:
        InputError: for numbers that are not finite.
    """
    check_finite(concept.tokens | concept.weights, "concept")
    tokens, weights = portable(concept.tokens), portable(concept.weights)
    write_pickle(path, {"modifier_token": tokens, "unet": weights})


def save_adobe_compressed(concept: LowRankConcept, path: Path) -> None:
    """Write a ``compressed_delta.bin`` for adobe-research/custom-diffusion's diffusers code."""
    thin = {f"{n}.weight": portable({"u": f.up, "v": f.down}) for n, f in concept.factors.items()}
    write_pickle(path, {"modifier_token": portable(concept.plain.tokens), "unet": thin})


def read_delta(
    entries: Mapping[str, Any], path: Path, base_weights: Mapping[str, Tensor] | None
) -> Parts:
    """Tokens and weights of a delta.

    Raises:
        InputError: naming the file, for an entry that no concept has, and for a compressed delta
            without the base's weights.
    """
    extra = sorted(entries.keys() - {"unet", "modifier_token"})
    if extra:
        raise foreign_entry(extra[0], path)
    tokens, unet = entries.get("modifier_token") or {}, entries.get("unet") or {}
    if not isinstance(tokens, Mapping) or not isinstance(unet, Mapping):
        raise InputError("concept", f"{path} has 'unet' or 'modifier_token' without names", TRUSTED)
    weights: dict[str, Tensor] = {}
    for name, value in unet.items():
        match = _WEIGHT.fullmatch(str(name))
        if not match:
            raise foreign_entry(str(name), path)
        target = f"{match[1]}.{match[2]}.weight"
        weights[target] = (
            _expanded(value, target, path, base_weights)
            if isinstance(value, Mapping)
            else plain_tensor(value, target, path)
        )
    return Parts({str(t): plain_tensor(v, str(t), path) for t, v in tokens.items()}, weights)


def _expanded(
    value: Mapping[str, Any], name: str, path: Path, base_weights: Mapping[str, Tensor] | None
) -> Tensor:
    """W + u v of adobe's compressed delta."""
    if value.keys() != {"u", "v"}:
        raise InputError(
            "concept", f"{path} has {sorted(map(str, value))} for {name}, not u and v", TRUSTED
        )
    up, down = (plain_tensor(value[k], f"{name}.{k}", path) for k in ("u", "v"))
    return restore_weight(up, down, base_weight(base_weights, name, str(path)))
