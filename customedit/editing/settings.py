"""The settings of the editing methods, resolved: what the algorithms read and a plan records.

Imports no torch. What a user may leave out is in ``customedit.schemas.requests``; ``plan`` fills it
in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, get_args

from customedit.errors import InputError
from customedit.schemas.requests import BlendOver, EditMethod, InversionKind, P2PWay

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
