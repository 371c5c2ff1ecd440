"""Which attention map of the source prompt each token of the target prompt takes, and how long.

After Prompt-to-Prompt (Hertz et al., arXiv 2208.01626) and google/prompt-to-prompt's
``seq_aligner.py`` and ``ptp_utils.py``: refinement, word swap, reweighting and cross-replace steps.
Prompts are read word by word, split at any white space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from customedit.editing.prompt_words import align
from customedit.errors import InputError

Span = tuple[int, int]
"""First and last + 1 token column of a word."""


def refine(source: Sequence[int], target: Sequence[int], length: int) -> tuple[Tensor, Tensor]:
    """Refinement: a target token that the source has takes that token's map, others keep their own.

    source, target: [length] token ids: start, words, then end tokens as padding. Needleman-Wunsch
    over what stands before the padding (one end token included); columns after the target's end
    token map to themselves, as in ``get_mapper``.

    Returns:
        mapper: [length, length] float32; mapper[i, j] = 1 where target token j takes source token
        i's map. A column is one-hot, or zero where the token keeps its own map.
        taken: [length] float32 in {0, 1}: 1 where the map is the source's, 0 for inserted or
        changed tokens.

    Raises:
        InputError: if a prompt is not ``length`` ids long.
    """
    for name, ids in (("source prompt", source), ("target prompt", target)):
        if len(ids) != length:
            raise InputError(name, f"is {len(ids)} tokens long, not {length}", "pad it")
    before, after = _unpadded(source), _unpadded(target)
    mapper = torch.zeros(length, length)
    for i, j in align(before, after):
        mapper[i, j] = 1
    for j in range(len(after), length):
        mapper[j, j] = 1
    return mapper, mapper.sum(0)


def _unpadded(ids: Sequence[int]) -> Sequence[int]:
    """``ids`` up to the first of the equal tokens that they end in."""
    end = len(ids)
    while end > 1 and ids[end - 2] == ids[-1]:
        end -= 1
    return ids[:end]


def replace(source_spans: Sequence[Span], target_spans: Sequence[Span], length: int) -> Tensor:
    """Word swap: each target word takes the maps of the source word in its place.

    Words of equally many tokens map token to token; else each of the n target tokens takes 1/n of
    the sum over the source word's tokens (``get_replacement_mapper_``). Start maps to start and
    end to end; columns after the target's end map to themselves. Unlike the reference, words after
    the last changed one follow their word, not their column.

    source_spans, target_spans: of each word, in order and without gaps, from column 1 on.

    Returns:
        mapper: [length, length] float32, source columns to target columns.

    Raises:
        InputError: if the prompts differ in how many words they have, or do not fit in ``length``.
    """
    if len(source_spans) != len(target_spans):
        raise InputError(
            "target prompt",
            f"has {len(target_spans)} words and the source prompt has {len(source_spans)}, "
            "a word swap needs as many",
            "use refine for prompts of different length",
        )
    ends = [spans[-1][1] if spans else 1 for spans in (source_spans, target_spans)]
    if max(ends) >= length:
        raise InputError("prompt", f"ends at column {max(ends)} of {length}", "shorten it")
    mapper = torch.zeros(length, length)
    mapper[0, 0] = mapper[ends[0], ends[1]] = 1
    for j in range(ends[1] + 1, length):
        mapper[j, j] = 1
    for (a, b), (c, d) in zip(source_spans, target_spans, strict=True):
        if c < d:  # a word of a concept without an embedding has no columns
            mapper[a:b, c:d] = torch.eye(d - c) if b - a == d - c else 1 / (d - c)
    return mapper


def equalizer(length: int, factors: Mapping[int, float]) -> Tensor:
    """Reweighting: what each token's map is multiplied by, [length] float32, 1 where not given.

    factors: column to factor, any finite number; below 1 weakens a word, above strengthens it.

    Raises:
        InputError: for a column outside [0, length) or a factor that is no finite number.
    """
    out = torch.ones(length)
    for column, factor in factors.items():
        _check_column(column, length)
        if not math.isfinite(factor):
            raise InputError("factors", f"column {column} has {factor}", "give a finite number")
        out[column] = factor
    return out


def cross_replace(
    length: int,
    steps: int,
    default: float | tuple[float, float],
    per_column: Mapping[int, tuple[float, float]] | None = None,
) -> Tensor:
    """At which steps each token takes the replaced map: alpha [steps, length] float32 in {0, 1}.

    Alpha is 1 for steps in [int(start (steps + 1)), int(end (steps + 1))), as
    ``get_time_words_attention_alpha`` counts them; the map is replaced x alpha + own x (1 - alpha).

    default: (start, end) as shares of the steps, or the end alone, starting at 0; per_column: the
    same for single columns, instead of the default.

    Raises:
        InputError: unless 0 <= start <= end <= 1, or for a column outside [0, length).
    """
    if steps < 1:
        raise InputError("steps", f"is {steps}", "give 1 or more")
    whole = default if isinstance(default, tuple) else (0.0, float(default))
    alpha = _switched(whole, steps)[:, None].repeat(1, length)
    for column, bounds in (per_column or {}).items():
        _check_column(column, length)
        alpha[:, column] = _switched(bounds, steps)
    return alpha


def _switched(bounds: tuple[float, float], steps: int) -> Tensor:
    """[steps], 1 from the first bound to the second."""
    start, end = bounds
    if not 0 <= start <= end <= 1:
        raise InputError(
            "cross_replace", f"is ({start}, {end})", "give shares with 0 <= start <= end <= 1"
        )
    out = torch.zeros(steps)
    out[int(start * (steps + 1)) : int(end * (steps + 1))] = 1
    return out


def _check_column(column: int, length: int) -> None:
    if not 0 <= column < length:
        raise InputError("column", f"is {column}", f"give 0 to {length - 1}")
