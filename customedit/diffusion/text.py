"""From a prompt to what the UNet reads: token states, and per layer the keys and values.

Concept tokens like ``<plaid>`` are never added to a tokenizer: they are given with the request and
enter as embeddings (``inputs_embeds`` in spirit), so that no two requests can collide and nothing
must be unloaded. A concept's key and value weights act here alone: K = K_base + s (K_concept -
K_base), on every column of the prompt or on those of its own tokens. The UNet sees per-row keys and
values and knows of no concept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from customedit.diffusion.adapters import TEXT_ENCODER, UNET, adapters_of
from customedit.diffusion.devices import to_device
from customedit.diffusion.row_adapters import RowAdapters
from customedit.errors import InputError, NumericalError
from customedit.prompt_syntax import CONCEPT, check_prompt

Columns = Literal["prompt", "token"]
"""Which columns of a prompt a concept's keys and values act on: all, or those of its tokens."""

WEIGHTS = (0.0, 2.0)
"""Least and greatest weight of a concept in a prompt."""


class Customization(Protocol):
    """What a prompt may name: see ``customedit.concepts.concept.Concept``.

    It may carry adapters as well (``adapters.Adapted``), and say the ``columns`` that its keys and
    values act on ("prompt" if it does not).
    """

    @property
    def tokens(self) -> Mapping[str, Tensor]:
        """Token to embedding: [width], or [n, width] for a token that takes n columns."""

    @property
    def keys(self) -> Mapping[str, Tensor]:
        """Cross-attention layer to its to_k weight [inner, width]."""

    @property
    def values(self) -> Mapping[str, Tensor]:
        """Cross-attention layer to its to_v weight [inner, width]."""


@dataclass(frozen=True)
class Weighted:
    """A concept given with a request, and how much of its change of weights to use.

    weight: 0 for none, 1 for all, at most 2. Raises InputError for any other number.
    """

    concept: Customization
    weight: float = 1.0

    def __post_init__(self) -> None:
        low, high = WEIGHTS
        if not (math.isfinite(self.weight) and low <= self.weight <= high):
            raise InputError(
                "weight",
                f"{self.weight} is not from {low:g} to {high:g}",
                "1 uses the concept as it was trained",
            )


@dataclass(frozen=True)
class Tokens:
    """A prompt in tokens.

    ids: [length], padded; words: as written; spans: (first, last + 1) columns of each word;
    concepts: column to concept token; named: the concept tokens that the prompt names, in order,
    also those without a column (of a concept that has adapters and no embedding).
    """

    ids: list[int]
    words: list[str]
    spans: list[tuple[int, int]]
    concepts: dict[int, str]
    named: tuple[str, ...] = ()

    def columns(self, word: int) -> range:
        """The columns of word number ``word``."""
        return range(*self.spans[word])


@dataclass(frozen=True)
class TextContext:
    """What one row of the UNet reads.

    states: [tokens, width]; keys, values: per cross-attention layer [tokens, inner]; prompt: in
    words; tokens: None for states that stand for no prompt (optimised null-texts); adapted: the
    concepts whose adapters the row uses.
    """

    prompt: str
    states: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    tokens: Tokens | None = None
    adapted: tuple[Weighted, ...] = ()


def tokenize(tokenizer: CLIPTokenizer, prompt: str, known: Collection[str], field: str) -> Tokens:
    """``prompt`` in tokens.

    known: the concept tokens that it may name, with their embeddings where they are known: each
    takes one column, or as many as its embedding has vectors. Concept columns get ids from the
    vocabulary's size upwards, one per vector in order of ``known``: equal tokens have equal ids,
    which is what alignment compares.

    Raises InputError for what ``check_prompt`` refuses (unknown tokens, the syntax of other
    programs) and for more tokens than the model reads. An empty prompt is fine.
    """
    check_prompt(prompt, known, field)
    words = prompt.split()
    own: dict[str, range] = {}  # the ids of each concept token
    first = len(tokenizer)
    for name in known:
        columns = len(torch.atleast_2d(known[name])) if isinstance(known, Mapping) else 1
        own[name] = range(first, first := first + columns)
    named: list[str] = []
    ids = [int(tokenizer.bos_token_id)]
    spans: list[tuple[int, int]] = []
    concepts: dict[int, str] = {}
    for word in words:
        start = len(ids)
        at = 0
        for found in CONCEPT.finditer(word):
            ids += _plain(tokenizer, word[at : found.start()])
            token = found.group()
            named.append(token)
            for number in own[token]:
                concepts[len(ids)] = token
                ids.append(number)
            at = found.end()
        ids += _plain(tokenizer, word[at:])
        spans.append((start, len(ids)))
    limit = int(tokenizer.model_max_length)
    if len(ids) + 1 > limit:
        raise InputError(
            field,
            f"takes {len(ids) + 1} tokens with start and end, the model reads {limit}",
            f"shorten it by {len(ids) + 1 - limit} tokens or more",
        )
    end = int(tokenizer.eos_token_id)
    pad = tokenizer.pad_token_id
    ids += [end] + [int(end if pad is None else pad)] * (limit - len(ids) - 1)
    return Tokens(ids, words, spans, concepts, tuple(dict.fromkeys(named)))


def _plain(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    if not text:
        return []
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def encode(
    encoder: CLIPTextModel,
    tokens: Tokens,
    vectors: Mapping[str, Tensor],
    adapted: Sequence[Weighted] = (),
) -> Tensor:
    """Final states [tokens, width]; columns of concepts start from ``vectors`` instead of a row.

    adapted: concepts whose adapters the encoder uses. Differentiable in all of them.
    """
    with RowAdapters([adapted]).applied(encoder, TEXT_ENCODER):
        return _states(encoder, tokens, vectors)


def _states(encoder: CLIPTextModel, tokens: Tokens, vectors: Mapping[str, Tensor]) -> Tensor:
    table: Any = encoder.get_input_embeddings()
    device = table.weight.device
    ids = to_device(torch.tensor(tokens.ids), device)
    plain = ids.masked_fill(ids >= table.num_embeddings, 0)
    if not tokens.concepts:
        return encoder(plain[None]).last_hidden_state[0]
    rows = table(plain)
    columns = to_device(torch.tensor(list(tokens.concepts)), device)
    given = torch.stack([to_device(v, device).to(rows) for v in _column_vectors(tokens, vectors)])
    embedded = rows.index_copy(0, columns, given)
    handle = table.register_forward_hook(lambda *_: embedded[None])
    try:  # the encoder takes no embeddings: its table gives ours for this one call
        return encoder(plain[None]).last_hidden_state[0]
    finally:
        handle.remove()


def _column_vectors(tokens: Tokens, vectors: Mapping[str, Tensor]) -> list[Tensor]:
    """The vector [width] of each concept column: a token's vectors follow each other."""
    seen: dict[str, int] = {}
    found = []
    for token in tokens.concepts.values():
        own = torch.atleast_2d(vectors[token])
        number = seen[token] = seen.get(token, -1) + 1
        found.append(own[number % len(own)])
    return found


def own_columns(concept: Customization, tokens: Tokens | None) -> list[int] | None:
    """The columns that keys and values of ``concept`` act on, None for all.

    tokens: of the prompt, None for states of no prompt, which name no token.
    """
    if getattr(concept, "columns", "prompt") == "prompt":
        return None
    named = {} if tokens is None else tokens.concepts
    return [column for column, token in named.items() if token in concept.tokens]


def project(
    states: Tensor,
    layers: Sequence[str],
    base: Mapping[str, Tensor],
    concepts: Sequence[Weighted],
    tokens: Tokens | None = None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Keys and values of ``states`` [..., tokens, width] for every layer, [..., tokens, inner].

    base: ``{layer}.to_k.weight`` and ``{layer}.to_v.weight``; the product is computed in their
    dtype. The changes of several concepts, and of their adapters of these layers, add up. tokens:
    of the prompt, for concepts that act on their own columns alone.
    """
    own = [(entry, own_columns(entry.concept, tokens)) for entry in concepts if entry.weight != 0]
    out: list[tuple[Tensor, ...]] = []
    for part in ("to_k", "to_v"):
        projected = []
        for layer in layers:
            weight = base[f"{layer}.{part}.weight"]
            whole, rest = weight, []
            for entry, columns in own:
                for change in _changes(entry, layer, part, weight):
                    if columns is None:
                        whole = whole + change
                    elif columns:
                        rest.append((columns, change))
            rows = states.to(weight.dtype)
            found = rows @ whole.T
            for columns, change in rest:
                found = add_columns(found, rows, columns, change)
            projected.append(found)
        out.append(tuple(projected))
    return out[0], out[1]


def _changes(entry: Weighted, layer: str, part: str, weight: Tensor) -> list[Tensor]:
    """What ``entry`` adds to ``weight``, that of ``{layer}.{part}``: by its own, by an adapter."""
    found = []
    kept = (entry.concept.keys if part == "to_k" else entry.concept.values).get(layer)
    if kept is not None:
        found.append(entry.weight * (to_device(kept, weight.device).to(weight) - weight))
    adapter = adapters_of(entry.concept).get(f"{UNET}{layer}.{part}")
    if adapter is not None:
        found.append(entry.weight * to_device(adapter.delta(), weight.device).to(weight))
    return found


def add_columns(found: Tensor, states: Tensor, columns: Sequence[int], change: Tensor) -> Tensor:
    """``found`` [..., tokens, inner] with ``change`` [inner, width] on ``states`` of ``columns``.

    Differentiable in all.
    """
    index = to_device(torch.tensor(columns), states.device)
    return found.index_add(-2, index, states.index_select(-2, index) @ change.T)


def check_text_finite(
    context: TextContext, concepts: Sequence[Weighted], dtype: torch.dtype
) -> None:
    """Check the numbers that a prompt with concepts gave, with one answer from the device.

    Raises:
        NumericalError: naming the concepts, for states, keys or values that are not finite in
            ``dtype``.
    """
    parts = (context.states, *context.keys, *context.values)
    finite = torch.stack([part.isfinite().all() for part in parts]).all().cpu()
    if not finite:
        names = ", ".join(t for entry in concepts for t in entry.concept.tokens)
        raise NumericalError(
            f"the concept {names} gives keys or values that are not finite in {dtype}; "
            "use a smaller weight or a wider dtype (float32, bfloat16), or train the concept again "
            "at a lower rate"
        )
