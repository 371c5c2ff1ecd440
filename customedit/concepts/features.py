"""Token features that merging weighs: of ordinary captions, and of a concept's own prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from customedit.concepts.concept import Concept
from customedit.diffusion.base import Base
from customedit.errors import InputError


@torch.no_grad()
def encode_captions(base: Base, texts: Sequence[str]) -> Tensor:
    """The text encoder's states at the words of ``texts``, [n, width]; no start, end or padding."""
    parts = []
    for text in texts:
        tokens = base.tokens(text)
        last = tokens.spans[-1][1] if tokens.spans else 1
        parts.append(base.states(tokens, {})[1:last])
    return torch.cat(parts)


@torch.no_grad()
def encode_concept_prompts(base: Base, concept: Concept) -> Tensor:
    """The states of ``concept``'s prompts from its token on, [m, width].

    Raises InputError for a concept that names no prompts (an imported one without them).
    """
    if not concept.prompts:
        raise InputError("concept", "names no prompts", "import it with --prompt")
    parts = []
    for prompt in concept.prompts:
        tokens = base.tokens(prompt, concept.tokens)
        first = min(tokens.concepts, default=1)
        parts.append(base.states(tokens, concept.tokens)[first : tokens.spans[-1][1]])
    return torch.cat(parts)
