"""CLIP text encoders and their tokenizers: whether they go together."""

from __future__ import annotations

from typing import Any, Final

from customedit.errors import InputError

_PADDING: Final = 128
"""Rows by which a text encoder's table may exceed the vocabulary: some are padded to a multiple."""


def check_clip(encoder: Any, tokenizer: Any, name: str) -> None:
    """Raises InputError unless tokenizer and text encoder go together.

    A tokenizer that has no length of its own takes the text encoder's.
    """
    positions = int(encoder.config.max_position_embeddings)
    if tokenizer.model_max_length > 1_000_000:  # transformers' number for "not said"
        tokenizer.model_max_length = positions
    if not 3 <= tokenizer.model_max_length <= positions:
        raise InputError(
            "base",
            f"{name} has a tokenizer for {tokenizer.model_max_length} tokens, its text encoder "
            f"reads {positions}",
            "use the tokenizer that the base was trained with",
        )
    rows, words = encoder.get_input_embeddings().num_embeddings, len(tokenizer)
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    if not rows - _PADDING < words <= rows or None in special:
        raise InputError(
            "base",
            f"{name} has a tokenizer with {words} tokens, its text encoder knows {rows}",
            "use the tokenizer that the base was trained with",
        )
