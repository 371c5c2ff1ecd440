"""What is known of a base where no model is: enough to refuse a prompt that it cannot read.

A worker makes the facts of the base that it runs (``BaseFacts.of``); front ends count tokens by
them. Imports no torch: the tokenizer is the library's ``tokenizers``, which transformers uses too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from customedit.errors import InputError
from customedit.prompt_syntax import CONCEPT

if TYPE_CHECKING:
    from tokenizers import Tokenizer


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


class _Facts(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)  # a newer worker's facts can be read


class TokenizerFacts(_Facts):
    """A tokenizer of a base.

    length: tokens in a row of its text encoder, start and end included; definition: the whole
    tokenizer, as JSON of the library ``tokenizers``.
    """

    length: int = Field(ge=2)
    definition: str

    @classmethod
    def of(cls, tokenizer: Any) -> Self:
        """The facts of a tokenizer of transformers."""
        return cls(
            length=int(tokenizer.model_max_length),
            definition=tokenizer.backend_tokenizer.to_str(),
        )

    def count(self, prompt: str, columns: Mapping[str, int]) -> int:
        """Tokens of ``prompt``, start and end included: as many as ``text.tokenize`` makes.

        columns: concept token to the columns that it takes; one that is left out takes none.
        """
        total = 2
        for word in prompt.split():
            total += sum(columns.get(token, 0) for token in CONCEPT.findall(word))
            total += sum(len(self._encode(part)) for part in CONCEPT.split(word) if part)
        return total

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        made: Any = Tokenizer.from_str(self.definition)
        made.no_truncation()  # a former call may have left a limit in it
        made.no_padding()
        return made


class BaseFacts(_Facts):
    """Facts of a base. fingerprint: of its weights; tokenizers: in the order of its encoders."""

    version: Literal[1] = 1
    fingerprint: str
    tokenizers: tuple[TokenizerFacts, ...] = Field(min_length=1)

    @classmethod
    def of(cls, tokenizers: Sequence[Any], fingerprint: str) -> Self:
        """The facts of a base that is loaded, with its tokenizers (of transformers)."""
        return cls(fingerprint=fingerprint, tokenizers=tuple(map(TokenizerFacts.of, tokenizers)))

    def check(self, prompt: str, columns: Mapping[str, int], field: str) -> None:
        """Check that the base can read ``prompt``.

        columns: as for ``TokenizerFacts.count``.

        Raises:
            InputError: as ``check_length``.
        """
        for tokenizer in self.tokenizers:
            check_length(tokenizer.count(prompt, columns), tokenizer.length, field)
