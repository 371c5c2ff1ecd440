"""The settings of the editing methods, resolved from a request and checked by its words alone.

Imports no torch: a front end refuses here, before a job is made. What a user may leave out is in
``customedit.schemas.requests``; ``plan`` goes on from what is resolved here, with a base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from customedit.editing.effect import (
    check_experts,
    check_feather,
    check_guided,
    check_methods,
    check_strengths_act,
)
from customedit.editing.method_settings import (
    INVERTING,
    RANDOM,
    SETTINGS,
    STRENGTHS,
    P2PSettings,
    RegionSettings,
    Strength,
    strength_of_change,
)
from customedit.editing.prompt_words import find
from customedit.editing.region_words import (
    ConceptWords,
    keeps_things,
    union_words,
    words_beside_regions,
)
from customedit.errors import InputError
from customedit.prompt_syntax import check_prompt, tokens_in
from customedit.schemas.change import AUTO_CHANGES
from customedit.schemas.methods import EXPERTS, BlendOver, EditMethod, InversionKind, RegionOptions
from customedit.schemas.requests import EditOptions

INVERSIONS: Final = get_args(InversionKind)

PRESERVE: Final = True
"""Whether the source's own pixels are pasted outside the region, where an edit has one and the
request does not say."""

FEATHER: Final = 8.0
"""Pixels over which the edit fades out beyond its region, at the size that the model draws at: a
cell of the latents. In pixels of the source it is as many times more as the source is larger."""

OUTLINE_FEATHER: Final = 1.0
"""Pixels of the source over which it does where the region ends at the outline of its thing."""

MASK_FEATHER: Final = 2.0
"""The same where it ends at the edge of the user's mask, or of regions of concepts alone."""


@dataclass(frozen=True)
class CheckedRequest:
    """A request whose words fit.

    strengths: one of each picture, with ``changes`` that they stand for, None where a strength was
    asked for; seeds: one where nothing is random; settings: all but the strength.
    outline: whether the region ends where its things do in the source (``EditPlan``); masked:
    whether its edge is one that the user drew; feather: the width of its soft edge that was asked
    for, None for that of ``feather_width``.
    """

    strengths: tuple[Strength, ...]
    changes: tuple[float | None, ...]
    seeds: tuple[int, ...]
    settings: RegionSettings
    preserve: bool
    outline: bool
    masked: bool
    feather: float | None

    def feather_width(self, source: tuple[int, int], working: tuple[int, int]) -> float:
        """The width of the region's soft edge, in pixels of the source.

        source: (width, height) of the picture; working: at which the model draws.
        """
        own = self.own_feather
        return FEATHER * max(source) / max(working) if own is None else own

    @property
    def own_feather(self) -> float | None:
        """``feather_width`` where it is the same at every size, else None."""
        if self.feather is not None:
            return self.feather
        if self.outline:
            return OUTLINE_FEATHER
        return MASK_FEATHER if self.masked else None

    @property
    def p2p(self) -> P2PSettings | None:
        """The settings, where the method is Prompt-to-Prompt."""
        return self.settings if isinstance(self.settings, P2PSettings) else None


def check_request(
    options: EditOptions, concepts: Sequence[ConceptWords] = (), *, mask: bool = False
) -> CheckedRequest:
    """Resolve and check all of a request that needs no base. Imports no torch.

    concepts: what is known of those given; mask: whether one is given.

    Raises InputError naming the field of the request.
    """
    method = options.method
    _check_tokens(options, concepts)
    _check_placed(options, concepts)
    check_seeds(method, options.seeds)
    check_methods(options)
    check_strengths_act(options)
    settings = _settings(options, concepts, mask)
    region = mask or settings.blend_over != "none"
    if options.preserve and not region:
        worded = "blend words" if options.source_prompt else "a source prompt"
        raise InputError("preserve", "needs a region", f"give a mask or {worded}")
    if getattr(settings, "within_region", None) and not region:
        raise InputError(f"{method}.within_region", "needs a region", "give a mask or blend words")
    preserve = PRESERVE and region if options.preserve is None else options.preserve
    if options.change is None:
        strengths = tuple(Strength(s) for s in options.strengths or [STRENGTHS[method]])
        _check_strengths(method, strengths)
        changes: tuple[float | None, ...] = (None,) * len(strengths)
    else:
        wanted = AUTO_CHANGES if options.change == "auto" else (options.change,)
        strengths = tuple(strength_of_change(method, change) for change in wanted)
        changes = wanted
    check_experts(options, strengths)
    check_guided(options, strengths)
    check_feather(options, preserve=preserve, region=region)
    outline = _outlined(options, settings)
    drawn = bool(settings.concept_regions) and not settings.blend_words
    seeds, masked = tuple(options.seeds), mask or drawn
    return CheckedRequest(
        strengths, changes, seeds, settings, preserve, outline, masked, options.feather
    )


def _outlined(options: EditOptions, settings: RegionSettings) -> bool:
    """Whether the region is that of things which stay what they are: ``keeps_things``."""
    return (
        settings.blend_over == "source"
        and not settings.subtract
        and not settings.concept_regions
        and keeps_things(options.source_prompt, options.target_prompt, settings.blend_words)
    )


def _check_strengths(method: EditMethod, strengths: Sequence[Strength]) -> None:
    """Refuse strengths with which a method draws nothing."""
    if method in ("sdedit", "flowedit") and any(s.strength == 0 for s in strengths):
        raise InputError("strengths", f"hold 0, with which {method} draws nothing", "use above 0")
    if method == "ddpm" and any(s.strength == 1 for s in strengths):
        raise InputError("strengths", "hold 1, with which ddpm draws nothing", "use below 1")


def check_seeds(method: EditMethod, seeds: Sequence[int]) -> None:
    """Refuse several seeds where nothing is drawn by chance.

    Raises InputError of ``seeds``.
    """
    if method not in RANDOM and len(seeds) > 1:
        raise InputError(
            "seeds",
            f"are {len(seeds)}, and {method} draws nothing by chance: each would give the same "
            "picture",
            "give one seed, or use sdedit",
        )


def _check_tokens(options: EditOptions, concepts: Sequence[ConceptWords]) -> None:
    known = [token for concept in concepts for token in concept.tokens]
    for k, token in enumerate(known):
        if token in known[:k]:
            raise InputError("concepts", f"have {token} twice", "give one of the two")
    named = set[str]()
    for name in ("source_prompt", "target_prompt"):
        prompt = getattr(options, name)
        check_prompt(prompt, known, name)
        named |= set(tokens_in(prompt))
    taught = tokens_in(options.source_prompt)
    if taught and options.method in INVERTING:
        raise InputError(
            "source_prompt",
            f"names {taught[0]}; an inversion is made with the base alone",
            f"describe the picture without {taught[0]}",
        )
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


def _check_placed(options: EditOptions, concepts: Sequence[ConceptWords]) -> None:
    """Refuse regions of concepts that would have no effect."""
    named = set(tokens_in(options.target_prompt))
    for concept in concepts:
        if concept.region and options.everywhere:
            raise InputError(concept.region, "contradicts everywhere", "leave out one of the two")
        if concept.region and not named & set(concept.tokens):
            raise InputError(
                concept.region,
                f"has no effect: the target prompt does not name {', '.join(concept.tokens)}",
                "name the concept in the target prompt, or leave its region out",
            )


def _settings(options: EditOptions, concepts: Sequence[ConceptWords], mask: bool) -> RegionSettings:
    """The expert settings with the region resolved; every word is looked up in its prompt."""
    method = options.method
    expert = options.expert or EXPERTS[method]()
    over, words, placed = _region(options, expert, concepts, mask)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in dict(expert).items()
        if value is not None
    }
    source, target = options.source_prompt.split(), options.target_prompt.split()
    try:
        values |= {"blend_over": over, "blend_words": words, "concept_regions": placed}
        if method == "sdedit" and over == "mask":  # which it keeps to from the first step on
            values.setdefault("blend_start", 0.0)
        settings = SETTINGS[method](**values)
        of_target = union_words(settings, target)
    except InputError as error:
        raise InputError(f"{method}.{error.field}", error.problem, error.remedy) from None
    for word in (*settings.blend_words, *settings.subtract):
        find(source, word, field="source_prompt")
    for word in of_target:
        find(target, word, field="target_prompt")
    if isinstance(settings, P2PSettings):
        _check_words(settings, source, target)
    return settings


def _check_words(settings: P2PSettings, source: Sequence[str], target: Sequence[str]) -> None:
    for word in (*settings.words, *settings.reweight):
        find(target, word, field="target_prompt")
    if settings.way == "replace" and len(source) != len(target):
        raise InputError(
            "target_prompt",
            f"has {len(target)} words and the source prompt has {len(source)}; a word swap needs "
            "as many",
            "use way refine for prompts of different length",
        )


def _region(
    options: EditOptions, expert: RegionOptions, concepts: Sequence[ConceptWords], mask: bool
) -> tuple[BlendOver, tuple[str, ...], bool]:
    """What the region is read from, its words, and whether the concepts' regions belong to it.

    See ``region`` for what each means. Without a source prompt there is nothing to read or to
    derive: an SDEdit then keeps to the mask, or may change the whole picture.
    """
    method, over, words = options.method, expert.blend_over, tuple(expert.blend_words)
    if over == "none" and mask:
        raise InputError(
            "mask", f"contradicts {method}.blend_over none", "leave out one of the two"
        )
    if over == "mask" and not mask:
        raise InputError("mask", "is missing", f"give one, or leave out {method}.blend_over")
    if over in ("none", "mask") and words:
        raise InputError(
            f"{method}.blend_words",
            f"have no effect with blend_over {over}",
            "leave out one of the two",
        )
    if not options.source_prompt:  # of sdedit alone
        if words or over in ("source", "union"):
            what = "sdedit.blend_words are" if words else f"sdedit.blend_over {over} is"
            remedy = "describe the picture, or leave out that"
            raise InputError("source_prompt", f"is empty, and {what} read in it", remedy)
        over = "mask" if mask else "none"
    if over is None:
        over = "source" if words or not mask else "mask"
    placed = False
    if over in ("source", "union") and not words:
        derived = _derived_words(options, concepts)
        placed = derived is not None and any(concept.region for concept in concepts)
        words = derived or ()
        if not words and over == expert.blend_over:
            raise InputError(f"{method}.blend_words", "are missing", "name the source's words")
        if derived is None:  # a change of the whole picture
            over = "none"
    unread = over in ("none", "mask") or not words
    idle = {
        "subtract": unread and bool(expert.subtract),
        "threshold": unread and expert.threshold is not None,
        "blend_start": over == "none" and expert.blend_start is not None,
        "blend_target_words": over != "union" and expert.blend_target_words is not None,
    }
    for name, has_no_effect in idle.items():
        if has_no_effect:
            why = f"with blend_over {over}" if over in ("none", "mask") else "on concepts' regions"
            if not options.source_prompt:
                why = "without a source prompt"
            raise InputError(f"{method}.{name}", f"has no effect {why}", "leave it out")
    return over, words, placed


def _derived_words(
    options: EditOptions, concepts: Sequence[ConceptWords]
) -> tuple[str, ...] | None:
    """``words_beside_regions``, whose refusal names the field of this method."""
    try:
        return words_beside_regions(options.source_prompt, options.target_prompt, concepts)
    except InputError as error:
        field = error.field.replace("p2p.", f"{options.method}.")
        raise InputError(field, error.problem, error.remedy) from None
