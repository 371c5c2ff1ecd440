"""What of an edit's request can be resolved and refused by its words alone, without a base.

Imports no torch: a front end refuses here, before a job is made. ``plan`` goes on from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from customedit.editing.prompt_words import find
from customedit.editing.region_words import ConceptWords, region_words
from customedit.editing.settings import (
    P2P_STRENGTH,
    SDEDIT_STRENGTH,
    P2PSettings,
    Strength,
    strength_of_change,
)
from customedit.errors import InputError
from customedit.prompt_syntax import check_prompt, tokens_in
from customedit.schemas.requests import BlendOver, EditMethod, EditOptions, P2POptions

PRESERVE: Final = True
"""Whether the source's own pixels are pasted outside the region, where an edit has one and the
request does not say."""


@dataclass(frozen=True)
class CheckedRequest:
    """A request whose words fit. p2p: all but the strength, None for SDEdit; seeds: one for p2p."""

    strengths: tuple[Strength, ...]
    seeds: tuple[int, ...]
    p2p: P2PSettings | None
    preserve: bool


def check_request(
    options: EditOptions, concepts: Sequence[ConceptWords] = (), *, mask: bool = False
) -> CheckedRequest:
    """Resolve and check all of a request that needs no base. Imports no torch.

    concepts: what is known of those given; mask: whether one is given.

    Raises InputError naming the field of the request.
    """
    _check_tokens(options, concepts)
    check_seeds(options.method, options.seeds)
    p2p = None
    if options.method == "p2p":
        p2p = _p2p_settings(options, concepts, mask)
    else:
        _check_sdedit(options)
    region = mask or (p2p is not None and p2p.blend_over != "none")
    if options.preserve and not region:
        raise InputError("preserve", "needs a region", "give a mask or, for p2p, blend words")
    preserve = PRESERVE and region if options.preserve is None else options.preserve
    strengths: tuple[Strength, ...]
    if options.change is not None:
        strengths = (strength_of_change(options.method, options.change),)
    else:
        usual = P2P_STRENGTH if p2p is not None else SDEDIT_STRENGTH
        strengths = tuple(Strength(s) for s in options.strengths or [usual])
    if p2p is None and options.change != 0 and any(s.strength == 0 for s in strengths):
        raise InputError("strengths", "hold 0, with which sdedit draws nothing", "use above 0")
    return CheckedRequest(strengths, tuple(options.seeds), p2p, preserve)


def check_seeds(method: EditMethod, seeds: Sequence[int]) -> None:
    """Refuse several seeds where nothing is drawn by chance.

    Raises InputError of ``seeds``.
    """
    if method == "p2p" and len(seeds) > 1:
        raise InputError(
            "seeds",
            f"are {len(seeds)}, and p2p draws nothing by chance: each would give the same picture",
            "give one seed, or use sdedit",
        )


def _check_tokens(options: EditOptions, concepts: Sequence[ConceptWords]) -> None:
    known = [token for concept in concepts for token in concept.tokens]
    for k, token in enumerate(known):
        if token in known[:k]:
            raise InputError("concepts", f"have {token} twice", "give one of the two")
    named = set[str]()
    for field in ("source_prompt", "target_prompt"):
        prompt = getattr(options, field)
        check_prompt(prompt, known, field)
        named |= set(tokens_in(prompt))
    if options.everywhere:
        if not known:
            raise InputError("everywhere", "has no concept to act", "give one, or leave it out")
        return
    for concept in concepts:
        if not named & set(concept.tokens):
            raise InputError(
                "target_prompt",
                f"names no token of the concept {', '.join(concept.tokens)}",
                "name it in the prompt, or leave the concept out",
            )


def _check_sdedit(options: EditOptions) -> None:
    given = options.model_fields_set
    if options.p2p is not None:
        raise InputError("p2p", "has no effect on sdedit", "leave it out, or use p2p")
    if "inversion" in given and options.inversion != "direct":
        raise InputError("inversion", "has no effect on sdedit", "leave it out, or use p2p")


def _p2p_settings(
    options: EditOptions, concepts: Sequence[ConceptWords], mask: bool
) -> P2PSettings:
    """The expert settings with the region resolved; every word is looked up in its prompt."""
    expert = options.p2p or P2POptions()
    over, words = _region(options, expert, concepts, mask)
    source, target = options.source_prompt.split(), options.target_prompt.split()
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in dict(expert).items()
        if value is not None
    }
    try:
        settings = P2PSettings(**values | {"blend_over": over, "blend_words": words})
    except InputError as error:
        raise InputError(f"p2p.{error.field}", error.problem, error.remedy) from None
    for word in (*settings.blend_words, *settings.subtract):
        find(source, word, field="source_prompt")
    for word in (*settings.words, *settings.reweight, *(settings.blend_target_words or ())):
        find(target, word, field="target_prompt")
    if settings.way == "replace" and len(source) != len(target):
        raise InputError(
            "target_prompt",
            f"has {len(target)} words and the source prompt has {len(source)}; a word swap needs "
            "as many",
            "use way refine for prompts of different length",
        )
    return settings


def _region(
    options: EditOptions, expert: P2POptions, concepts: Sequence[ConceptWords], mask: bool
) -> tuple[BlendOver, tuple[str, ...]]:
    """What the region is read from, and its words; see ``region`` for what each means."""
    over, words = expert.blend_over, tuple(expert.blend_words)
    if over == "none" and mask:
        raise InputError("mask", "contradicts p2p.blend_over none", "leave out one of the two")
    if over == "mask" and not mask:
        raise InputError("mask", "is missing", "give one, or leave out p2p.blend_over")
    if over in ("none", "mask") and words:
        raise InputError(
            "p2p.blend_words", f"have no effect with blend_over {over}", "leave out one of the two"
        )
    if over is None:
        over = "source" if words or not mask else "mask"
    if over in ("source", "union") and not words:
        words = region_words(options.source_prompt, options.target_prompt, concepts)
        if not words:  # a change of the whole picture
            if over == expert.blend_over:
                raise InputError("p2p.blend_words", "are missing", "name the source's words")
            over = "none"
    idle = {
        "subtract": over in ("none", "mask") and bool(expert.subtract),
        "threshold": over in ("none", "mask") and expert.threshold is not None,
        "blend_start": over == "none" and expert.blend_start is not None,
        "blend_target_words": over != "union" and expert.blend_target_words is not None,
    }
    for name, has_no_effect in idle.items():
        if has_no_effect:
            raise InputError(f"p2p.{name}", f"has no effect with blend_over {over}", "leave it out")
    return over, words
