"""What is known of a base where no model is: enough to refuse a prompt that it cannot read.

A worker makes the facts of the base that it runs (``BaseFacts.of``); front ends count tokens by
them. Imports no torch: the tokenizer is the library's ``tokenizers``, which transformers uses too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from customedit.errors import InputError
from customedit.prompt_syntax import CONCEPT, unknown_words

CACHED_WORDS: Final = 4096
CACHED_LETTERS: Final = 32
"""Words whose counts are cached, and their longest: prompts use the same words again."""


def check_length(tokens: int, limit: int, field: str) -> None:
    """Check that a prompt of so many tokens, start and end included, can be read.

    Raises:
        InputError: naming ``field``, both numbers and by how many it is too long.
    """
    if tokens > limit:
        raise InputError(
            field,
            f"takes {tokens} tokens with start and end, the model reads {limit}",
            f"shorten it by {tokens - limit} tokens or more",
        )


def check_concept_base(named: str, fingerprints: Sequence[str], base: str) -> None:
    """Check the base that a concept names, "" for none, against those that ``base`` goes by.

    fingerprints: for concepts, today's first; base: its name, for people.

    Raises:
        InputError: if it is another base.
    """
    if named and named not in fingerprints:
        raise InputError(
            "concept",
            f"was made for the base {named}, this is {fingerprints[0]} ({base})",
            "use the base that it was made for, or train it again on this one",
        )


class _Facts(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)  # a newer worker's facts can be read


class TokenizerFacts(_Facts):
    """A tokenizer of a base.

    length: tokens in a row of its text encoder, start and end included; definition: the whole
    tokenizer, as JSON of the library ``tokenizers``; marks: how many of start and end there are.
    """

    length: int = Field(ge=2)
    definition: str
    marks: int = Field(default=2, ge=1, le=2)

    @classmethod
    def of(cls, tokenizer: Any, length: int | None = None) -> Self:
        """The facts of a tokenizer of transformers; length: of a row, None for its own."""
        return cls(
            length=int(tokenizer.model_max_length) if length is None else length,
            definition=tokenizer.backend_tokenizer.to_str(),
            marks=1 if tokenizer.bos_token_id is None else 2,
        )

    def count(self, prompt: str, columns: Mapping[str, int]) -> int:
        """Tokens of ``prompt``, start and end included: as many as ``text.tokenize`` makes.

        columns: concept token to the columns that it takes; one that is left out takes none.
        """
        total = self.marks
        for word in prompt.split():
            total += sum(columns.get(token, 0) for token in CONCEPT.findall(word))
            total += sum(self._count(part) for part in CONCEPT.split(word) if part)
        return total

    @cached_property
    def _count(self) -> Callable[[str], int]:
        """Tokens of a text without concepts; those of usual words are cached."""
        from tokenizers import Tokenizer

        tokenizer: Any = Tokenizer.from_str(self.definition)
        tokenizer.no_truncation()  # a former call may have left a limit in it
        tokenizer.no_padding()

        def count(text: str) -> int:
            return len(tokenizer.encode(text, add_special_tokens=False).ids)

        of_word = lru_cache(maxsize=CACHED_WORDS)(count)
        return lambda text: of_word(text) if len(text) <= CACHED_LETTERS else count(text)


@dataclass(frozen=True)
class Reading:
    """How a base reads a prompt.

    tokens: with start and end; limit: of them; unknown: the words that it was not trained with,
    each with known words that are spelt nearly so.
    """

    tokens: int
    limit: int
    unknown: dict[str, list[str]]


class BaseFacts(_Facts):
    """Facts of a base.

    fingerprint: of its weights; tokenizers: those that limit a prompt; name: for people;
    concept_fingerprints: what concepts of the base name, empty where it is not known; words: all
    that it was trained with, empty where they are too many to list.
    """

    version: Literal[1] = 1
    fingerprint: str
    tokenizers: tuple[TokenizerFacts, ...] = Field(min_length=1)
    name: str = ""
    concept_fingerprints: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        tokenizers: Sequence[Any],
        fingerprint: str,
        lengths: Sequence[int] | None = None,
        **more: Any,
    ) -> Self:
        """The facts of a base that is loaded.

        tokenizers: of transformers, whose rows a prompt must keep to; lengths: of their rows, None
        for the tokenizers' own; more: further fields.
        """
        each = [None] * len(tokenizers) if lengths is None else lengths
        facts = tuple(map(TokenizerFacts.of, tokenizers, each))
        return cls(fingerprint=fingerprint, tokenizers=facts, **more)

    def check(self, prompt: str, columns: Mapping[str, int], field: str) -> None:
        """Check that the base can read ``prompt``.

        columns: as for ``TokenizerFacts.count``.

        Raises:
            InputError: as ``check_length``.
        """
        reading = self.read(prompt, columns)
        check_length(reading.tokens, reading.limit, field)

    def read(self, prompt: str, columns: Mapping[str, int]) -> Reading:
        """How the base reads ``prompt``: by the tokenizer that leaves it the fewest tokens.

        columns: as for ``TokenizerFacts.count``.
        """
        counted = [(t.count(prompt, columns), t.length) for t in self.tokenizers]
        tokens, limit = max(counted, key=lambda pair: pair[0] - pair[1])
        unknown = unknown_words(prompt, set(self.words)) if self.words else []
        near = {word: get_close_matches(word, self.words, n=2) for word in unknown}
        return Reading(tokens, limit, near)

    def check_concept(self, named: str) -> None:
        """Check that a concept which names the base ``named`` is of this one.

        Raises:
            InputError: as ``check_concept_base``.
        """
        if self.concept_fingerprints:
            check_concept_base(named, self.concept_fingerprints, self.name)
