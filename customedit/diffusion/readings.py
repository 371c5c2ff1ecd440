"""From a prompt whose concepts have regions to what a row reads at each position."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from customedit.diffusion.concept_regions import Reading, Readings, sets_anywhere
from customedit.diffusion.devices import to_device
from customedit.diffusion.text import (
    Customization,
    PromptRow,
    TextContext,
    Tokens,
    Weighted,
    check_text_finite,
)
from customedit.errors import InputError
from customedit.prompt_syntax import CONCEPT, separate_words

if TYPE_CHECKING:
    from customedit.diffusion.families.family import Family

MOST_READINGS: Final = 32
"""Most ways in which regions may overlap: each has keys and values of its own."""

_EDGES: Final = ".,;:!?\"'()"


def bound_columns(concept: Customization, tokens: Tokens) -> list[int]:
    """The columns that act in the concept's region alone.

    Those of its tokens, and of its attribute ("patterned", or one of those that a merged concept
    has) where that directly follows a token: the two together say the look. Not those of its noun:
    the noun says the thing, which is the base's own word, whose map is the source's, and which goes
    on where the region ends.
    """
    columns = {c for c, token in tokens.concepts.items() if token in concept.tokens}
    attributes = separate_words(str(getattr(concept, "attribute", "")).casefold())
    for k, word in enumerate(tokens.words):
        named = CONCEPT.findall(word)
        if not named or named[-1] not in concept.tokens or not word.endswith(named[-1]):
            continue
        following = [w.strip(_EDGES).casefold() for w in tokens.words[k + 1 :]]
        for attribute in map(str.split, attributes):
            if following[: len(attribute)] == attribute:
                first, end = tokens.spans[k + 1][0], tokens.spans[k + len(attribute)][1]
                columns |= set(range(first, end))
    return sorted(columns)


def without(tokens: Tokens, concepts: Sequence[Customization]) -> Tokens:
    """``tokens`` in which no other word sees the columns bound to ``concepts``."""
    hidden = {column for concept in concepts for column in bound_columns(concept, tokens)}
    further = tuple(without(part, concepts) for part in tokens.further)
    return dataclasses.replace(tokens, hidden=tuple(sorted(hidden)), further=further)


def read_by_region(
    family: Family,
    prompt: str,
    tokens: Tokens,
    vectors: Mapping[str, Tensor],
    acting: Sequence[Weighted],
    size: tuple[int, int],
    dtype: torch.dtype,
) -> TextContext:
    """What a row reads with ``prompt``, some of whose concepts have regions.

    acting: the concepts that act; those without a region act everywhere; size: (h, w) of the
    latents. What the row reads beside keys and values (pooled text, adapters) is that of the
    prompt without the concepts that have regions: it acts on the whole picture.

    Raises InputError for regions that overlap in too many ways, NumericalError for concepts whose
    numbers are too large.
    """
    everywhere = [entry for entry in acting if entry.region is None]
    placed = [(entry, entry.region) for entry in acting if entry.region is not None]
    shares = torch.stack([region.shares(*size) for _, region in placed])
    grids = family.cross_grids(*size)
    sets = sets_anywhere(shares, grids)
    check_overlaps(len(sets))
    outside: TextContext | None = None
    readings = []
    for number in sets:
        absent = [entry.concept for k, (entry, _) in enumerate(placed) if k not in number]
        here = everywhere + [entry for k, (entry, _) in enumerate(placed) if k in number]
        seen = without(tokens, absent)
        (encoded,) = family.encode([PromptRow(seen, vectors, here)])
        context = family.row(prompt, encoded, here, tokens)
        check_text_finite(context, here, dtype)
        attended = [c for c in range(len(tokens.ids)) if c not in set(seen.hidden)]
        columns = to_device(torch.tensor(attended), context.keys[0].device)
        readings.append(Reading(number, context.keys, context.values, columns))
        outside = outside or context
    assert outside is not None, "the first set is the empty one"
    return dataclasses.replace(outside, readings=Readings(shares, grids, tuple(readings)))


def check_overlaps(count: int) -> None:
    """Raise InputError for more than ``MOST_READINGS`` sets of concepts that act together."""
    if count > MOST_READINGS:
        raise InputError(
            "concepts",
            f"have regions that overlap in {count} ways, at most {MOST_READINGS} can be drawn",
            "give fewer regions, or let them overlap less",
        )
