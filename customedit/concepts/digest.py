"""The digest of anything that acts as a concept, by which recipes find it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from customedit.diffusion.text import Customization


def concept_digest(concept: Customization) -> str:
    """``Concept.digest``; of what is no ``Concept``, the sha256 of its tokens and weights."""
    known: str = getattr(concept, "digest", "")
    if known:
        return known
    tensors = {f"token.{name}": vector for name, vector in concept.tokens.items()}
    for part, weights in (("to_k", concept.keys), ("to_v", concept.values)):
        tensors |= {f"{layer}.{part}.weight": weight for layer, weight in weights.items()}
    return _tensors_digest(tensors)


def _tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of named tensors, in hex: names, dtypes, shapes and bytes, in order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
