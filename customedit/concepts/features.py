"""Token features that merging weighs: of ordinary captions, and of a concept's own prompts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from customedit.concepts.concept import Concept
from customedit.diffusion.base import Base
from customedit.errors import InputError
from customedit.words import article

COUNT: Final = 200
"""Captions that stand for everything a merged concept shall leave alone, as the paper takes."""

_THINGS: Final = (
    "dog", "cat", "horse", "bird", "man", "woman", "child", "car", "bicycle", "train", "house",
    "church", "bridge", "street", "mountain", "river", "beach", "forest", "flower", "tree", "apple",
    "cake", "cup", "chair", "table", "lamp", "book", "guitar", "shoe", "hat",
)  # fmt: skip
_FORMS: Final = (
    "a photo of {}", "a painting of {}", "{} in the snow", "{} at night", "a close up of {}",
    "a drawing of {} on white paper", "{} in front of a window",
)  # fmt: skip


def captions(base: Base) -> list[str]:
    """COUNT ordinary captions in words that ``base`` knows."""
    if base.name == "mini":
        from customedit.mini.captions import full
        from customedit.mini.scenes import sample_scene

        return [full(sample_scene(5_000_000 + k), k % 5) for k in range(COUNT)]
    pairs = itertools.product(_FORMS, _THINGS)
    return [form.format(article(thing)) for form, thing in itertools.islice(pairs, COUNT)]


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
