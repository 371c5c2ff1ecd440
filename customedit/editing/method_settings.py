"""The settings of each editing method, resolved, and what ``strength`` and ``change`` mean in it.

Imports no torch. What a user may leave out is in ``customedit.schemas.methods``.

| method | strength is | more strength | default |
|---|---|---|---|
| p2p | share of the steps with the source's attention maps | keeps more | 0.5 |
| masactrl | share of the steps, the last, with the source's keys and values | keeps more | 0.92 |
| pnp | share of the steps with the source's features | keeps more | 0.8 |
| ddpm | share of the steps that are skipped, with the source's own noise | keeps more | 0.36 |
| directedit | share of the steps with the source's values | keeps more | 0.3 |
| sdedit | share of the way into noise | changes more | 0.6 |
| flowedit | share of the steps that are taken, the last ones | changes more | 0.66 |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, get_args

from customedit.errors import InputError
from customedit.schemas.methods import BlendOver, EditMethod, P2PWay

STRENGTHS: Final[Mapping[EditMethod, float]] = {
    "p2p": 0.5,  # the middle of the range 0.4 to 0.6 that Custom-Edit recommends
    "sdedit": 0.6,
    "masactrl": 0.92,  # from step 4 of 50 on
    "pnp": 0.8,  # 40 of 50 steps
    "ddpm": 0.36,  # 36 of 100 steps
    "directedit": 0.3,  # as the paper's code has on Stable Diffusion 3.5
    "flowedit": 0.66,  # 33 of 50 steps, as the paper has on Stable Diffusion 3
}
"""The strength of each method where nothing else is asked for: its paper's."""


def share(name: str, value: float | None, usual: str = "") -> None:
    """Raise InputError, naming the field, unless ``value`` is None or in [0, 1]."""
    if value is not None and not 0 <= value <= 1:
        raise InputError(name, f"{value} is not from 0 to 1", usual or "give a share of the steps")


@dataclass(frozen=True)
class RegionSettings:
    """Where an edit may change the picture; every method has these.

    blend_over: whose maps make the region that the edit is kept to: the source's, the union of
    both, none but the user's mask, or none at all. A user's mask bounds the region in any case.
    blend_words: of the source prompt; blend_target_words: of the target prompt (union only), None
    for the same words; subtract: source words taken out of the region. threshold: share of the
    map's maximum; blend_start: share of the steps before which nothing is blended;
    concept_regions: whether the regions of the target's concepts belong to the region.

    Raises InputError for settings out of range.
    """

    blend_over: BlendOver = "none"
    blend_words: tuple[str, ...] = ()
    blend_target_words: tuple[str, ...] | None = None
    subtract: tuple[str, ...] = ()
    threshold: float = 0.3
    blend_start: float = 0.2
    concept_regions: bool = False

    def __post_init__(self) -> None:
        if self.blend_over not in get_args(BlendOver):
            names = ", ".join(get_args(BlendOver))
            raise InputError("blend_over", f"is {self.blend_over!r}", f"use {names}")
        if not 0 <= self.threshold < 1:
            raise InputError("threshold", f"is {self.threshold}", "give 0 or more, below 1")
        if not 0 <= self.blend_start <= 1:
            raise InputError("blend_start", f"is {self.blend_start}", "give 0 to 1")
        read = self.blend_over in ("source", "union")
        if self.concept_regions and not read:
            raise InputError(
                "concept_regions", f"have no effect with blend_over {self.blend_over}", "leave out"
            )
        if read and not (self.blend_words or self.concept_regions):
            raise InputError(
                "blend_words", "are missing", "name the words that the edit may change"
            )


@dataclass(frozen=True)
class P2PSettings(RegionSettings):
    """How the target follows the source in Prompt-to-Prompt.

    way: refine or replace (word swap). strength: the share of the steps, in [0, 1], during which
    the source's cross and self maps are taken: higher keeps more of the source. cross_steps,
    self_steps: the two apart, None for the strength. words: per word of the target (start, end)
    shares of the steps for its cross maps. reweight: per word of the target a factor on its maps.
    start: the share of the steps, in [0, 1], before which the target is the source itself; the last
    step is taken in any case.

    Raises InputError for settings out of range.
    """

    way: P2PWay = "refine"
    strength: float = STRENGTHS["p2p"]
    cross_steps: float | None = None
    self_steps: float | None = None
    words: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    reweight: Mapping[str, float] = field(default_factory=dict)
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.way not in get_args(P2PWay):
            raise InputError("way", f"is {self.way!r}", f"use {', '.join(get_args(P2PWay))}")
        for name in ("strength", "cross_steps", "self_steps", "start"):
            share(name, getattr(self, name), "0.4 to 0.6 is usual")
        for word, (start, end) in self.words.items():
            if not 0 <= start <= end <= 1:
                raise InputError(
                    "words", f"{word!r} has ({start}, {end})", "give 0 <= start <= end <= 1"
                )
        for word, factor in self.reweight.items():
            if not math.isfinite(factor):
                raise InputError("reweight", f"{word!r} has {factor}", "give a finite number")
        super().__post_init__()

    @property
    def map_features(self) -> dict[str, str]:
        """What of the settings mixes cross maps, which not every family has: name to field."""
        asked = {
            "replace": ("p2p.way", self.way == "replace"),
            "cross_steps": ("p2p.cross_steps", self.cross_steps is not None),
            "words": ("p2p.words", bool(self.words)),
            "reweight": ("p2p.reweight", bool(self.reweight)),
        }
        return {name: field for name, (field, given) in asked.items() if given}

    @property
    def cross(self) -> float:
        """Share of the steps with the source's cross maps."""
        return self.strength if self.cross_steps is None else self.cross_steps

    @property
    def own(self) -> float:
        """Share of the steps with the source's self maps."""
        return self.strength if self.self_steps is None else self.self_steps


@dataclass(frozen=True)
class SDEditSettings(RegionSettings):
    """The source noised part of the way and drawn again (SDEdit, arXiv 2108.01073).

    strength: the share of the way into noise, in (0, 1].

    Raises InputError for settings out of range.
    """

    strength: float = STRENGTHS["sdedit"]

    def __post_init__(self) -> None:
        share("strength", self.strength, "0.5 to 0.8 is usual")
        super().__post_init__()


@dataclass(frozen=True)
class MasaCtrlSettings(RegionSettings):
    """Mutual self-attention (MasaCtrl, arXiv 2304.08465).

    strength: the share of the steps, the last ones, with the source's keys and values; layer: the
    share of the self-attention layers, from the UNet's input, that keep the target's own;
    within_region: whether attention stays within the region and outside of it (the mask-guided
    variant), None for wherever the edit has a region; start: as in Prompt-to-Prompt.

    Raises InputError for settings out of range.
    """

    strength: float = STRENGTHS["masactrl"]
    layer: float = 0.625
    within_region: bool | None = None
    start: float = 0.0

    def __post_init__(self) -> None:
        for name in ("strength", "layer", "start"):
            share(name, getattr(self, name))
        super().__post_init__()


@dataclass(frozen=True)
class PlugAndPlaySettings(RegionSettings):
    """Features of the source in the target (Plug-and-Play, arXiv 2211.12572).

    strength: the share of the steps with the source's features of a decoder block;
    attention_steps: of those with its self-attention maps, None for 5/8 of the strength (25 and 40
    of 50 steps in the paper); block: which of the decoder's residual blocks, as a share of their
    number (block 4 of 12); layer: the share of the self-attention layers, from the UNet's input,
    that keep the target's own maps; start: as in Prompt-to-Prompt.

    Raises InputError for settings out of range.
    """

    strength: float = STRENGTHS["pnp"]
    attention_steps: float | None = None
    block: float = 1 / 3
    layer: float = 0.5
    start: float = 0.0

    def __post_init__(self) -> None:
        for name in ("strength", "attention_steps", "layer", "start"):
            share(name, getattr(self, name))
        if not 0 <= self.block < 1:
            raise InputError("block", f"is {self.block}", "give 0 or more, below 1")
        super().__post_init__()

    @property
    def attention(self) -> float:
        """Share of the steps with the source's self-attention maps."""
        return self.strength * 5 / 8 if self.attention_steps is None else self.attention_steps


@dataclass(frozen=True)
class EditFriendlySettings(RegionSettings):
    """An edit-friendly DDPM noise space (arXiv 2304.06140).

    strength: the share of the steps that are skipped, of which one is drawn in any case: the edit
    starts from the source's noisy latents there; source_guidance: with which the source's noise
    maps are read.

    Raises InputError for settings out of range.
    """

    strength: float = STRENGTHS["ddpm"]
    source_guidance: float = 3.5

    def __post_init__(self) -> None:
        share("strength", self.strength)
        if not 0 <= self.source_guidance <= 50:
            raise InputError("source_guidance", f"is {self.source_guidance}", "give 0 to 50")
        super().__post_init__()


@dataclass(frozen=True)
class DirectEditSettings(RegionSettings):
    """The target shifted by what the inversion's steps differ by (DirectEdit, arXiv 2605.02417).

    strength: the share of the steps with the source's values in self-attention; start: as in
    Prompt-to-Prompt.

    Raises InputError for settings out of range.
    """

    strength: float = STRENGTHS["directedit"]
    start: float = 0.0

    def __post_init__(self) -> None:
        share("strength", self.strength)
        share("start", self.start)
        super().__post_init__()


@dataclass(frozen=True)
class FlowEditSettings(RegionSettings):
    """The difference of two velocities (FlowEdit, arXiv 2412.08629).

    strength: the share of the steps that are taken, in (0, 1], the last ones; source_guidance: of
    the source's velocity, None for a quarter of the guidance, but not below 1 (the paper has 3.5
    and 13.5 on Stable Diffusion 3, 1.5 and 5.5 on FLUX); samples: drawings of noise that a step
    averages over.

    Raises InputError for settings out of range.
    """

    strength: float = STRENGTHS["flowedit"]
    source_guidance: float | None = None
    samples: int = 1

    def __post_init__(self) -> None:
        share("strength", self.strength)
        if self.source_guidance is not None and not 0 <= self.source_guidance <= 50:
            raise InputError("source_guidance", f"is {self.source_guidance}", "give 0 to 50")
        if not 1 <= self.samples <= 8:
            raise InputError("samples", f"are {self.samples}", "give 1 to 8")
        super().__post_init__()

    def source_scale(self, guidance: float) -> float:
        """The guidance of the source's velocity, where that of the target's is ``guidance``."""
        return max(1.0, guidance / 4) if self.source_guidance is None else self.source_guidance


SETTINGS: Final[Mapping[EditMethod, type[RegionSettings]]] = {
    "p2p": P2PSettings,
    "sdedit": SDEditSettings,
    "masactrl": MasaCtrlSettings,
    "pnp": PlugAndPlaySettings,
    "ddpm": EditFriendlySettings,
    "directedit": DirectEditSettings,
    "flowedit": FlowEditSettings,
}
"""Of each method."""

INVERTING: Final[frozenset[EditMethod]] = frozenset({"p2p", "masactrl", "pnp", "directedit"})
"""The methods that start from an inversion of the source. Only Prompt-to-Prompt has a choice of
inversions: the others read the source from its stored trajectory (direct)."""

RANDOM: Final[frozenset[EditMethod]] = frozenset({"sdedit", "ddpm", "flowedit"})
"""The methods that draw noise, so that seeds matter."""


def step_of(share: float, steps: int) -> int:
    """The step that a share of ``steps`` falls on: floor(share steps), in [0, steps] for [0, 1].

    Of self-replacement, blends and intervals. Cross-replacement counts in steps + 1, as the paper's
    code does (``prompt_to_prompt.cross_replace``).
    """
    # 0.29 * 100 is 28.999999999999996, and means 29.
    return math.floor(share * steps + 1e-9)


@dataclass(frozen=True)
class Strength:
    """What ``change`` stands for in one method. start: of its settings, 0 where there is none."""

    strength: float
    start: float = 0.0


def first_noised_step(strength: float, steps: int) -> int:
    """The downward step, from 0, that the last share ``strength`` of ``steps`` begins with.

    Of SDEdit and FlowEdit, which take one step at the least.
    """
    return steps - max(1, math.floor(strength * steps + 0.5))


def first_inverted_step(start: float, steps: int) -> int:
    """The downward step, from 0, that an edit which starts from an inversion begins with.

    start: of its settings. One step is taken at the least, also by a change that is nearly 0.
    """
    return min(step_of(start, steps), steps - 1)


def first_drawn_step(method: EditMethod, strength: Strength, steps: int) -> int:
    """The downward step, from 0, at which an edit asks the denoiser first."""
    if method in ("sdedit", "flowedit"):
        return first_noised_step(strength.strength, steps)
    if method == "ddpm":
        return min(step_of(strength.strength, steps), steps - 1)
    return first_inverted_step(strength.start, steps)


def strength_of_change(method: EditMethod, change: float) -> Strength:
    """The method's own knobs for ``change``, which runs the same way for every method.

    change: in [0, 1]; 0 is the source (``edit`` then returns it without drawing), 1 changes most.

    SDEdit: strength = change. FlowEdit: from 0 at change 0 straight to the default at 1/2 and on to
    1 at 1. The others keep more of the source with more strength: from 1 at
    change 0 straight to the method's default at 1/2 and on to 0 at 1 (Prompt-to-Prompt: 1 -
    change). Those that start from an inversion also begin later below 1/2, with start = 1 - 2
    change, since the source's maps alone never give the source back: words that only the target has
    keep their own.

    Raises InputError unless 0 <= change <= 1.
    """
    if not 0 <= change <= 1:
        raise InputError("change", f"{change} is not from 0 to 1", "0.5 is usual")
    if method == "sdedit":
        return Strength(change)
    usual = STRENGTHS[method]
    if method == "flowedit":
        return Strength(2 * change * usual if change <= 0.5 else 1 - 2 * (1 - usual) * (1 - change))
    strength = 1 - 2 * change * (1 - usual) if change <= 0.5 else 2 * usual * (1 - change)
    return Strength(strength, max(0.0, 1 - 2 * change) if method in INVERTING else 0.0)
