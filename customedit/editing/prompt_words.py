"""Prompts as words: split at white space, compared without punctuation, aligned with each other.

Imports no torch, so that a request can be checked where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from enum import Enum
from typing import Final

from customedit.errors import InputError

GAP, MATCH, MISMATCH = 0, 1, -1
"""Scores of the alignment, Prompt-to-Prompt's."""

_EDGES: Final = re.compile(r"^[^\w<]+|[^\w>]+$")  # <plaid> is a word with its brackets


class _Move(Enum):
    LEFT = 1  # the target's item is inserted
    UP = 2  # the source's item is left out
    DIAGONAL = 3


def align(source: Sequence[Hashable], target: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Pairs (source position, target position) of an optimal Needleman-Wunsch alignment, ascending.

    source, target: words or token ids. Scores are GAP, MATCH and MISMATCH; among equals the move
    left is preferred, then up: of two equal items the earlier is taken. With these scores a
    mismatch never pays, so the two items of a pair are equal.
    """
    moves = _moves(source, target)
    i, j = len(source), len(target)
    pairs = []
    while i > 0 and j > 0:
        move = moves[i][j]
        if move is _Move.DIAGONAL:
            pairs.append((i - 1, j - 1))
        i -= move is not _Move.LEFT
        j -= move is not _Move.UP
    return pairs[::-1]


def _moves(source: Sequence[Hashable], target: Sequence[Hashable]) -> list[list[_Move]]:
    """The best last move at each (source items read, target items read); the edges are unread."""
    above = [GAP * j for j in range(len(target) + 1)]
    moves = [[_Move.LEFT] * len(above)]
    for i, item in enumerate(source, 1):
        row, taken = [GAP * i], [_Move.UP]
        for j, other in enumerate(target, 1):
            left, up = row[j - 1] + GAP, above[j] + GAP
            diagonal = above[j - 1] + (MATCH if item == other else MISMATCH)
            best = max(left, up, diagonal)
            row.append(best)
            taken.append(_Move.LEFT if best == left else _Move.UP if best == up else _Move.DIAGONAL)
        moves.append(taken)
        above = row
    return moves


def find(prompt_words: Sequence[str], word: str, *, field: str = "prompt") -> list[int]:
    """Positions of ``word`` among ``prompt_words``, ascending; case and attached punctuation aside.

    ``<cat>`` (a concept) and ``cat`` are different words. field: the prompt's name in the error.

    Raises:
        InputError: if the prompt has no such word; lists the words it has.
    """
    wanted = bare(word)
    places = [k for k, other in enumerate(prompt_words) if bare(other) == wanted]
    if not places:
        there = ", ".join(prompt_words) or "none"
        raise InputError(field, f"has no word {word!r} (its words: {there})", "name one of these")
    return places


def bare(word: str) -> str:
    """``word`` in lower case without punctuation around it; as it is if it is nothing else."""
    word = word.strip().casefold()
    return _EDGES.sub("", word) or word
