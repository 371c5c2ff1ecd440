"""The settings of the editing methods, resolved from a request and checked by its words alone.

Imports no torch: a front end refuses here, before a job is made. What a user may leave out is in
``customedit.schemas.requests``; ``plan`` goes on from what is resolved here, with a base.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from customedit.editing.prompt_words import find
from customedit.editing.region_words import ConceptWords, region_words
from customedit.errors import InputError
from customedit.prompt_syntax import check_prompt, tokens_in
from customedit.schemas.requests import (
    BlendOver,
    EditMethod,
    EditOptions,
    InversionKind,
    P2POptions,
    P2PWay,
)

INVERSIONS: Final = get_args(InversionKind)

P2P_STRENGTH: Final = 0.5
"""The middle of the range 0.4 to 0.6 that Custom-Edit recommends."""

SDEDIT_STRENGTH: Final = 0.6
"""Of the way into noise, where nothing else is asked for."""


@dataclass(frozen=True)
class P2PSettings:
    """How the target follows the source in Prompt-to-Prompt.

    way: refine or replace (word swap). strength: the share of the steps, in [0, 1], during which
    the source's cross and self maps are taken: higher keeps more of the source. cross_steps,
    self_steps: the two apart, None for the strength. words: per word of the target (start, end)
    shares of the steps for its cross maps. reweight: per word of the target a factor on its maps.
    start: the share of the steps, in [0, 1], before which the target is the source itself.

    blend_over: whose maps make the region that the edit is kept to: the source's, the union of
    both, none but the user's mask, or none at all. A user's mask bounds the region in any case.
    blend_words: of the source prompt; blend_target_words: of the target prompt (union only), None
    for the same words; subtract: source words taken out of the region. threshold: share of the
    map's maximum; blend_start: share of the steps before which nothing is blended.

    Raises InputError for settings out of range.
    """

    way: P2PWay = "refine"
    strength: float = P2P_STRENGTH
    cross_steps: float | None = None
    self_steps: float | None = None
    words: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    reweight: Mapping[str, float] = field(default_factory=dict)
    start: float = 0.0
    blend_over: BlendOver = "none"
    blend_words: tuple[str, ...] = ()
    blend_target_words: tuple[str, ...] | None = None
    subtract: tuple[str, ...] = ()
    threshold: float = 0.3
    blend_start: float = 0.2

    def __post_init__(self) -> None:
        for name, values in (("way", get_args(P2PWay)), ("blend_over", get_args(BlendOver))):
            if getattr(self, name) not in values:
                raise InputError(name, f"is {getattr(self, name)!r}", f"use {', '.join(values)}")
        for name in ("strength", "cross_steps", "self_steps", "start"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InputError(name, f"{value} is not from 0 to 1", "0.4 to 0.6 is usual")
        if not 0 <= self.threshold < 1:
            raise InputError("threshold", f"is {self.threshold}", "give 0 or more, below 1")
        if not 0 <= self.blend_start <= 1:
            raise InputError("blend_start", f"is {self.blend_start}", "give 0 to 1")
        for word, (start, end) in self.words.items():
            if not 0 <= start <= end <= 1:
                raise InputError(
                    "words", f"{word!r} has ({start}, {end})", "give 0 <= start <= end <= 1"
                )
        for word, factor in self.reweight.items():
            if not math.isfinite(factor):
                raise InputError("reweight", f"{word!r} has {factor}", "give a finite number")
        if self.blend_over in ("source", "union") and not self.blend_words:
            raise InputError(
                "blend_words", "are missing", "name the words that the edit may change"
            )

    @property
    def cross(self) -> float:
        """Share of the steps with the source's cross maps."""
        return self.strength if self.cross_steps is None else self.cross_steps

    @property
    def own(self) -> float:
        """Share of the steps with the source's self maps."""
        return self.strength if self.self_steps is None else self.self_steps


def step_of(share: float, steps: int) -> int:
    """The step that a share of ``steps`` falls on: floor(share steps), in [0, steps] for [0, 1].

    Of self-replacement and blends. Cross-replacement counts in steps + 1, as the paper's code does
    (``prompt_to_prompt.cross_replace``).
    """
    # 0.29 * 100 is 28.999999999999996, and means 29.
    return math.floor(share * steps + 1e-9)


@dataclass(frozen=True)
class Strength:
    """What ``change`` stands for in one method. start: of ``P2PSettings``, 0 for SDEdit."""

    strength: float
    start: float = 0.0


def strength_of_change(method: EditMethod, change: float) -> Strength:
    """The method's own knobs for ``change``, which runs the same way for every method.

    change: in [0, 1]; 0 is the source (``edit`` then returns it without drawing), 1 changes most.

    SDEdit: strength = change. Prompt-to-Prompt: strength = 1 - change; below 1/2 the edit also
    begins later, with start = 1 - 2 change, since the source's maps alone never give the source
    back: words that only the target has keep their own. At 1/2 both knobs are at their defaults.

    Raises InputError unless 0 <= change <= 1.
    """
    if not 0 <= change <= 1:
        raise InputError("change", f"{change} is not from 0 to 1", "0.5 is usual")
    if method == "sdedit":
        return Strength(change)
    return Strength(1 - change, max(0.0, 1 - 2 * change))


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
    for name in ("source_prompt", "target_prompt"):
        prompt = getattr(options, name)
        check_prompt(prompt, known, name)
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
