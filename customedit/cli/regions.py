"""``--region TOKEN=BOX`` and ``--region TOKEN=FILE``: where in the picture a concept acts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from customedit.cli import console
from customedit.errors import InputError
from customedit.prompt_syntax import CONCEPT, tokens_in

if TYPE_CHECKING:
    from customedit.diffusion.concept_regions import ConceptRegion
    from customedit.diffusion.text import Weighted

RegionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        metavar="TOKEN=BOX|FILE",
        help="Where a concept acts: '<look>=0.1,0.2,0.6,0.9' (left, top, right, bottom as "
        "fractions of the picture) or '<look>=mask.png', white inside; repeatable.",
    ),
]

_REMEDY = "give '<look>=0.1,0.2,0.6,0.9' or '<look>=mask.png'"


def read_regions(
    texts: Sequence[str], size: tuple[int, int], prompt: str | None = None
) -> dict[str, ConceptRegion]:
    """The regions of ``texts`` by token. size: (width, height) of the picture; prompt: the target.

    Raises:
        InputError: for another syntax, a token twice or one that the prompt does not name, a box
            out of range, and a file that is no mask of the picture.
    """
    found: dict[str, ConceptRegion] = {}
    for text in texts:
        token, _, place = text.partition("=")
        if not CONCEPT.fullmatch(token) or not place:
            raise InputError("region", f"{text!r} is not TOKEN=BOX or TOKEN=FILE", _REMEDY)
        if token in found:
            raise InputError("region", f"of {token} is given twice", "give one")
        if prompt is not None and token not in tokens_in(prompt):
            raise InputError(
                "region",
                f"of {token} has no effect: the target prompt does not name {token}",
                "name it in --target-prompt, or leave the region out",
            )
        found[token] = _region(token, place, size)
    return found


def _region(token: str, place: str, size: tuple[int, int]) -> ConceptRegion:
    from customedit.diffusion.concept_regions import ConceptRegion

    try:
        numbers = tuple(float(part) for part in place.split(","))
    except ValueError:
        return ConceptRegion(mask=console.read_mask(Path(place), size, "region"))
    if len(numbers) != 4:
        raise InputError("region", f"of {token} has {len(numbers)} numbers", _REMEDY)
    try:
        return ConceptRegion(box=(numbers[0], numbers[1], numbers[2], numbers[3]))
    except InputError as error:
        raise InputError("region", f"of {token} {error.problem}", error.remedy) from None


def placed(concepts: Sequence[Weighted], regions: Mapping[str, ConceptRegion]) -> list[Weighted]:
    """``concepts`` with their ``regions``, by token.

    Raises:
        InputError: for a token that no concept has, and two regions of one concept.
    """
    there = [token for entry in concepts for token in entry.concept.tokens]
    for token in regions:
        if token not in there:
            given = ", ".join(there) or "none"
            raise InputError(
                "region", f"is of {token}, no --concept has that token ({given})", "correct it"
            )
    out = []
    for entry in concepts:
        own = [token for token in entry.concept.tokens if token in regions]
        if len(own) > 1:
            raise InputError("region", f"of the concept {own[0]} is given twice", "give one")
        out.append(dataclasses.replace(entry, region=regions[own[0]]) if own else entry)
    return out


@contextmanager
def named_by_option(concepts: Sequence[Weighted]) -> Iterator[None]:
    """Inside, errors of ``concepts[k].box`` and ``.mask`` name the option and the token."""
    try:
        yield
    except InputError as error:
        match = re.fullmatch(r"concepts\[(\d+)\]\.(?:box|mask)", error.field)
        if match is None:
            raise
        tokens = ", ".join(concepts[int(match[1])].concept.tokens)
        raise InputError("region", f"of {tokens} {error.problem}", error.remedy) from None
