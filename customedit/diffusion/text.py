"""From a prompt to what a denoiser reads: token states, and per layer the keys and values.

Concept tokens like ``<plaid>`` are never added to a tokenizer: they are given with the request and
enter as embeddings (``inputs_embeds`` in spirit), so that no two requests can collide and nothing
must be unloaded. A concept's key and value weights act here alone: K = K_base + s (K_concept -
K_base). The denoiser sees per-row keys and values and knows of no concept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from customedit.diffusion.concept_regions import ConceptRegion, Readings
from customedit.diffusion.devices import to_device
from customedit.diffusion.facts import check_length
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
        """Token to embedding: [width], or [n, width] for a token that takes n columns.

        Where a base has several text encoders, an embedding holds their vectors one after another.
        """

    @property
    def keys(self) -> Mapping[str, Tensor]:
        """Cross-attention layer to its to_k weight [inner, width]."""

    @property
    def values(self) -> Mapping[str, Tensor]:
        """Cross-attention layer to its to_v weight [inner, width]."""


@dataclass(frozen=True)
class Weighted:
    """A concept given with a request, how much of its change of weights to use, and where.

    weight: 0 for none, 1 for all, at most 2; region: where in the picture it acts, None for
    everywhere (``concept_regions``). Raises InputError for any other number.
    """

    concept: Customization
    weight: float = 1.0
    region: ConceptRegion | None = None

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
    also those without a column (of a concept that has adapters and no embedding); further: the
    same prompt for the base's further tokenizers; hidden: columns that no other column sees in the
    text encoder.
    """

    ids: list[int]
    words: list[str]
    spans: list[tuple[int, int]]
    concepts: dict[int, str]
    named: tuple[str, ...] = ()
    further: tuple[Tokens, ...] = ()
    hidden: tuple[int, ...] = ()

    def joined(self, others: Sequence[Tokens]) -> Tokens:
        """The same with what further tokenizers made of the prompt."""
        return dataclasses.replace(self, further=tuple(others)) if others else self

    def columns(self, word: int) -> Sequence[int]:
        """The columns of word number ``word``."""
        return range(*self.spans[word])


@dataclass(frozen=True)
class TextContext:
    """What one row of a denoiser reads.

    prompt: in words; states: [tokens, width]; keys, values: per cross-attention layer [tokens,
    inner], () where keys and values change with the step; tokens: None for states that stand for no
    prompt (optimised null-texts); adapted: the concepts whose adapters act while the row is
    predicted; pooled: [pooled width], the prompt in one vector, for denoisers that read it; sizes:
    (height, width) of the original, (top, left) of its crop and (height, width) of the picture that
    shall be drawn, in pixels, for denoisers that are told of them; None for an uncropped picture of
    the latents' size; guidance: for denoisers that are told of it, None for none; readings: what is
    read at each position, where concepts have regions: then keys and values are those outside.
    """

    prompt: str
    states: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    tokens: Tokens | None = None
    adapted: tuple[Weighted, ...] = ()
    pooled: Tensor | None = None
    sizes: tuple[int, int, int, int, int, int] | None = None
    guidance: float | None = None
    readings: Readings | None = None


@dataclass(frozen=True)
class Encoded:
    """What text encoders made of a prompt: states [tokens, width], pooled [pooled width] or None.

    tokens: the prompt itself, None where it is of no use or the states are of none. Differentiable
    in embeddings and adapters.
    """

    states: Tensor
    pooled: Tensor | None = None
    tokens: Tokens | None = None


@dataclass(frozen=True)
class PromptRow:
    """A prompt for text encoders, which take several at once.

    tokens: of the prompt; vectors: the embeddings of the concept tokens that it names; adapted:
    concepts whose adapters the encoders use on it.
    """

    tokens: Tokens
    vectors: Mapping[str, Tensor]
    adapted: Sequence[Weighted] = ()


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder of a base with its tokenizer.

    prefix: what its adapters' paths begin with, such as "text_encoder."; model, tokenizer: of
    transformers; start: where its part of a concept token's embedding begins.
    """

    prefix: str
    model: Any
    tokenizer: Any
    start: int = 0

    @property
    def width(self) -> int:
        """Of its token embeddings."""
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def is_t5(self) -> bool:
        """Whether it is T5, and not CLIP."""
        return bool(self.model.config.model_type == "t5")

    def first_token(self, ids: Sequence[int]) -> int:
        """The first of a word's ``ids`` that stands for letters: T5 may have one of the space."""
        texts = self.tokenizer.convert_ids_to_tokens(list(ids))
        lettered = [i for i, text in zip(ids, texts, strict=True) if text.strip("\u2581")]
        return int((lettered or list(ids))[0])

    def run(self, rows: Sequence[PromptRow], **options: Any) -> Any:
        """The encoder's output for prompts, whose concept columns start from their vectors.

        rows: in this encoder's tokens; their vectors are whole embeddings [..., width of all
        encoders], of which this one takes its part; options: of the encoder's forward.
        Differentiable in vectors and adapters.
        """
        part = slice(self.start, self.start + self.width)
        given = [own[..., part] for row in rows for own in _column_vectors(row.tokens, row.vectors)]
        with RowAdapters([row.adapted for row in rows]).applied(self.model, self.prefix):
            return _run(self.model, [row.tokens for row in rows], given, options)


def text_encoders(parts: Sequence[tuple[str, Any, Any]]) -> tuple[TextEncoder, ...]:
    """Encoders of (part, model, tokenizer), in the order in which embeddings hold their vectors."""
    found: list[TextEncoder] = []
    start = 0
    for part, model, tokenizer in parts:
        found.append(TextEncoder(f"{part}.", model, tokenizer, start))
        start += found[-1].width
    return tuple(found)


def tokenize(
    tokenizer: Any,
    prompt: str,
    known: Collection[str],
    field: str,
    *,
    length: int | None = None,
    cut: bool = False,
) -> Tokens:
    """``prompt`` in tokens of CLIP or T5.

    known: the concept tokens that it may name, with their embeddings where they are known: each
    takes one column, or as many as its embedding has vectors. Concept columns get ids from the
    vocabulary's size upwards, one per vector in order of ``known``: equal tokens have equal ids,
    which is what alignment compares. length: of the row, None for the tokenizer's own; cut: whether
    a prompt that is too long is read up to its length.

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
    ids = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
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
    limit = int(tokenizer.model_max_length) if length is None else length
    if cut and len(ids) + 1 > limit:
        last = limit - 1
        ids, concepts = ids[:last], {c: t for c, t in concepts.items() if c < last}
        spans = [(min(a, last), min(b, last)) for a, b in spans]
    check_length(len(ids) + 1, limit, field)
    end = int(tokenizer.eos_token_id)
    pad = tokenizer.pad_token_id
    ids += [end] + [int(end if pad is None else pad)] * (limit - len(ids) - 1)
    return Tokens(ids, words, spans, concepts, tuple(dict.fromkeys(named)))


def _plain(tokenizer: Any, text: str) -> list[int]:
    if not text:
        return []
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _run(
    encoder: Any, rows: Sequence[Tokens], given: Sequence[Tensor], options: Mapping[str, Any]
) -> Any:
    """The output for ``rows``. given: the embedding [width] of each of their concept columns."""
    table = _table(encoder)
    device = table.weight.device
    ids = to_device(torch.tensor([row.ids for row in rows]), device)  # [rows, length]
    plain = ids.masked_fill(ids >= table.num_embeddings, 0)
    if any(row.hidden for row in rows):
        seen = torch.ones_like(ids)
        for row, tokens in zip(seen, rows, strict=True):
            row[list(tokens.hidden)] = 0
        options = {**options, "attention_mask": seen}
    if not given:
        return encoder(plain, **options)
    length = len(rows[0].ids)
    places = [k * length + column for k, row in enumerate(rows) for column in row.concepts]
    index = to_device(torch.tensor(places), device)
    read = table(plain)
    vectors = torch.stack([to_device(v, device).to(read) for v in given])
    embedded = read.flatten(0, 1).index_copy(0, index, vectors).unflatten(0, ids.shape)
    handle = table.register_forward_hook(lambda *_: embedded)
    try:  # the encoder takes no embeddings: its table gives ours for this one call
        return encoder(plain, **options)
    finally:
        handle.remove()


def _table(encoder: Any) -> Any:
    """The embedding that ``encoder`` calls; T5 has a second name for its own."""
    inner = getattr(encoder, "encoder", None)
    return getattr(inner, "embed_tokens", None) or encoder.get_input_embeddings()


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
    pooled = () if context.pooled is None else (context.pooled,)
    parts = (context.states, *pooled, *context.keys, *context.values)
    finite = torch.stack([part.isfinite().all() for part in parts]).all().cpu()
    if not finite:
        names = ", ".join(t for entry in concepts for t in entry.concept.tokens)
        raise NumericalError(
            f"the concept {names} gives keys or values that are not finite in {dtype}; "
            "use a smaller weight or a wider dtype (float32, bfloat16), or train the concept again "
            "at a lower rate"
        )
