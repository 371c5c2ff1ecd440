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
from customedit.concepts.compress import LowRankConcept
from customedit.concepts.concept import Concept
from customedit.concepts.files import pickles
from customedit.concepts.files.own import portable
from customedit.concepts.files.state_dict import AGAIN, Found, foreign, plain
from customedit.concepts.low_rank import base_weight, restore
from customedit.errors import InputError

_WEIGHT = re.compile(r"(?:unet\.)?(.+\.attn2)\.(to_[kv])\.weight")


def save_adobe(concept: Concept, path: Path) -> None:
    """Write a ``delta.bin`` for adobe-research/custom-diffusion's diffusers code.

    Raises:
        InputError: for numbers that are not finite.
    """
    check_finite(concept.tokens | concept.weights, "it")
    tokens, weights = portable(concept.tokens), portable(concept.weights)
    pickles.write(path, {"modifier_token": tokens, "unet": weights})


def save_adobe_compressed(concept: LowRankConcept, path: Path) -> None:
    """Write a ``compressed_delta.bin`` for adobe-research/custom-diffusion's diffusers code."""
    thin = {f"{n}.weight": portable({"u": f.up, "v": f.down}) for n, f in concept.factors.items()}
    pickles.write(path, {"modifier_token": portable(concept.plain.tokens), "unet": thin})


def contents(
    held: Mapping[str, Any], path: Path, base_weights: Mapping[str, Tensor] | None
) -> Found:
    """Tokens and weights of a delta.

    Raises:
        InputError: naming the file, for an entry that no concept has, and for a compressed delta
            without the base's weights.
    """
    extra = sorted(held.keys() - {"unet", "modifier_token"})
    if extra:
        raise foreign(extra[0], path)
    tokens, unet = held.get("modifier_token") or {}, held.get("unet") or {}
    if not isinstance(tokens, Mapping) or not isinstance(unet, Mapping):
        raise InputError("concept", f"{path} has 'unet' or 'modifier_token' without names", AGAIN)
    weights: dict[str, Tensor] = {}
    for name, value in unet.items():
        match = _WEIGHT.fullmatch(str(name))
        if not match:
            raise foreign(str(name), path)
        own = f"{match[1]}.{match[2]}.weight"
        weights[own] = (
            _expanded(value, own, path, base_weights)
            if isinstance(value, Mapping)
            else plain(value, own, path)
        )
    return Found({str(t): plain(v, str(t), path) for t, v in tokens.items()}, weights)


def _expanded(
    value: Mapping[str, Any], name: str, path: Path, base_weights: Mapping[str, Tensor] | None
) -> Tensor:
    """W + u v of adobe's compressed delta."""
    if value.keys() != {"u", "v"}:
        raise InputError(
            "concept", f"{path} has {sorted(map(str, value))} for {name}, not u and v", AGAIN
        )
    up, down = (plain(value[k], f"{name}.{k}", path) for k in ("u", "v"))
    return restore(up, down, base_weight(base_weights, name, str(path)))
