"""A concept's contents in one name, by which recipes find it in any file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from customedit.diffusion.text import Customization


def content_digest(concept: Customization) -> str:
    """The sha256 of a concept's tokens and weights in hex; words and recipe do not count.

    That of the file it was read from (``Concept.digest``), whatever device and dtype it was brought
    to since; of a concept that was made in this process, the one that its file will have.
    """
    known: str = getattr(concept, "digest", "")
    if known:
        return known
    tensors = {f"token.{name}": vector for name, vector in concept.tokens.items()}
    for part, weights in (("to_k", concept.keys), ("to_v", concept.values)):
        tensors |= {f"{layer}.{part}.weight": weight for layer, weight in weights.items()}
    return tensors_digest(tensors)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of named tensors, in hex: names, dtypes, shapes and bytes, in order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
