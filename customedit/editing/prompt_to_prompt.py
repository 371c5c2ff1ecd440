"""Prompt-to-Prompt (Hertz et al., arXiv 2208.01626): the target drawn beside the source's maps.

As in Custom-Edit: refinement by default, and a local blend whose mask is read from the source's
maps alone. Control touches the conditional rows only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from customedit.diffusion.attention import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Denoise, Method, Progress, ask
from customedit.diffusion.text import TextContext, Tokens
from customedit.editing import alignment
from customedit.editing.blend import Blend, blend, given
from customedit.editing.inversion import Inversion, empty_text, unconditional
from customedit.errors import InputError

Way = Literal["refine", "replace"]
BlendOver = Literal["source", "union", "mask", "none"]

STRENGTH: Final = 0.5
"""The middle of the range 0.4 to 0.6 that Custom-Edit recommends."""


@dataclass(frozen=True)
class P2PSettings:
    """How the target follows the source.

    way: refine or replace (word swap). strength: the share of the steps, in [0, 1], during which
    the source's cross and self maps are taken: higher keeps more of the source. cross_steps,
    self_steps: the two apart, None for the strength. words: per word of the target (start, end)
    shares of the steps for its cross maps. reweight: per word of the target a factor on its maps.

    blend_over: whose maps make the mask that the edit is kept to: the source's, the union of both,
    a given mask, or none. blend_words: of the source prompt; blend_target_words: of the target
    prompt (union only), None for the same words; subtract: source words taken out of the mask.
    threshold: share of the mask's maximum; blend_start: share of the steps before which nothing is
    blended.
    """

    way: Way = "refine"
    strength: float = STRENGTH
    cross_steps: float | None = None
    self_steps: float | None = None
    words: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    reweight: Mapping[str, float] = field(default_factory=dict)
    blend_over: BlendOver = "none"
    blend_words: Sequence[str] = ()
    blend_target_words: Sequence[str] | None = None
    subtract: Sequence[str] = ()
    threshold: float = 0.3
    blend_start: float = 0.2

    def __post_init__(self) -> None:
        if self.way not in get_args(Way):
            raise InputError("way", f"{self.way!r} is none", "take refine or replace")
        if self.blend_over not in get_args(BlendOver):
            raise InputError(
                "blend_over",
                f"{self.blend_over!r} is none",
                f"take {', '.join(get_args(BlendOver))}",
            )
        for name in ("strength", "cross_steps", "self_steps"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InputError(name, f"{value} is not from 0 to 1", "0.4 to 0.6 is usual")
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
class P2PResult:
    """What an edit came to.

    latents: of the edit, [1, C, h, w]; source: of the source row, the same shape; mask: [h, w] in
    [0, 1] that the edit was kept to, None without a blend; maps: cross maps of the source's and the
    target's row summed over the steps, [2, rows, columns, tokens].
    """

    latents: Tensor
    source: Tensor
    mask: Tensor | None
    maps: Tensor | None


@dataclass(frozen=True)
class Plan:
    """The settings as tensors, for two prompts.

    mapper: [tokens, tokens]; from_source, from_own: [steps, tokens]; self_until: the first step
    with the target's own self maps.
    """

    mapper: Tensor
    from_source: Tensor
    from_own: Tensor
    self_until: int

    def control(
        self, step: int, rows: int, source: int, target: int, record: bool
    ) -> AttentionControl:
        """The control of one step, for ``rows`` rows of which two are the conditional ones."""
        control = AttentionControl.none(rows, self.mapper.shape[0])
        if step < self.self_until:
            control.self_source[target] = source
        control.cross_source[target] = source
        control.mapper[target] = self.mapper
        control.from_source[target] = self.from_source[step]
        control.from_own[target] = self.from_own[step]
        control.record[source] = control.record[target] = record
        return control


def _columns(tokens: Tokens, word: str, field: str) -> list[int]:
    places = alignment.find(tokens.words, word, field=field)
    return [column for place in places for column in tokens.columns(place)]


def plan(source: Tokens, target: Tokens, settings: P2PSettings, steps: int) -> Plan:
    """Work out what each token of the target takes at each step.

    With m the mapped source map, o the target's own, e the factors and a the cross-replace alphas,
    the map is a e (t m + (1 - t) o) + (1 - a) o, where t is 1 for tokens that the source has
    (refine) or everywhere (replace): one factor on m and one on o per token.

    Raises InputError for words that are not in the target prompt and prompts that do not swap.
    """
    length = len(source.ids)
    if settings.way == "refine":
        mapper, taken = alignment.refine(source.ids, target.ids, length)
    else:
        mapper = alignment.replace(source.spans, target.spans, length)
        taken = torch.ones(length)
    factors = {
        column: float(value)
        for word, value in settings.reweight.items()
        for column in _columns(target, word, "target_prompt")
    }
    bounds = {
        column: value
        for word, value in settings.words.items()
        for column in _columns(target, word, "target_prompt")
    }
    equal = alignment.equalizer(length, factors)
    alpha = alignment.cross_replace(length, steps, settings.cross, bounds)
    return Plan(
        mapper,
        alpha * equal * taken,
        alpha * equal * (1 - taken) + (1 - alpha),
        alignment.step_of(settings.own, steps),
    )


class Region:
    """The local blend of one edit: reads maps, gives the mask of a step."""

    def __init__(
        self, settings: P2PSettings, source: Tokens, target: Tokens, size: tuple[int, int],
        mask: Tensor | None, device: torch.device,
    ) -> None:  # fmt: skip
        self.settings, self.size = settings, size
        self.current: Tensor | None = None
        self.blend: Blend | None = None
        self.columns: list[list[int]] = []
        self.minus: list[list[int]] = []
        if settings.blend_over == "mask":
            if mask is None:
                raise InputError("mask", "is missing", "give one, or blend over the source's words")
            self.current = given(mask.cpu(), size).to(device)
            return
        if settings.blend_over == "none":
            return
        chosen = [c for w in settings.blend_words for c in _columns(source, w, "source_prompt")]
        self.columns = [chosen]
        if settings.blend_over == "union":
            self.columns.append(self._target_columns(source, target))
        self.minus = [[c for w in settings.subtract for c in _columns(source, w, "source_prompt")]]

    def _target_columns(self, source: Tokens, target: Tokens) -> list[int]:
        words = self.settings.blend_target_words
        if words is None:  # the same words where the target has them
            there = {alignment.bare(w) for w in target.words}
            words = [w for w in self.settings.blend_words if alignment.bare(w) in there]
            if not words:
                raise InputError(
                    "blend_target_words",
                    "are missing, and the target prompt has none of the blend words",
                    "name the target's words",
                )
        return [c for w in words for c in _columns(target, w, "target_prompt")]

    def see(self, maps: Tensor) -> None:
        """Add the maps of one step, [2, rows, columns, tokens]."""
        if not self.columns:
            return
        if self.blend is None:
            self.blend = Blend(
                (maps.shape[1], maps.shape[2]),
                threshold=self.settings.threshold,
                start=self.settings.blend_start,
            )
        self.blend.accumulate(maps.flatten(1, 2))
        self.current = self.blend.mask(self.columns, self.size, self.minus)

    def apply(self, source: Tensor, target: Tensor, step: int, steps: int) -> Tensor:
        """The target's latents kept to the mask, from the step on that the settings say."""
        begins = alignment.step_of(self.settings.blend_start, steps)
        if self.current is None or step < begins:
            return target
        return blend(source, target, self.current)


def prompt_to_prompt(
    base: Base,
    inversion: Inversion,
    source: TextContext,
    target: TextContext,
    *,
    settings: P2PSettings | None = None,
    guidance: float = 7.5,
    mask: Tensor | None = None,
    record: bool = False,
    empty: TextContext | None = None,
) -> Method[P2PResult]:
    """Edit the picture that was inverted.

    source, target: the two prompts' contexts, made with equal lists of concepts. mask: a user's
    own, [height, width] in [0, 1], for ``blend_over="mask"``. record: hand the maps back. empty:
    the unconditional text, None for the base's own.

    With direct inversion (arXiv 2310.01506) the source row lies on the stored trajectory at every
    step, so it needs no unconditional row and comes out as it went in: three rows instead of four.

    Raises InputError as ``plan`` does and for a missing mask.
    """
    settings = settings or P2PSettings()
    if source.tokens is None or target.tokens is None:
        raise ValueError("the contexts are of prompts")
    steps = inversion.steps
    how = plan(source.tokens, target.tokens, settings, steps)
    size = (int(inversion.noise.shape[2]), int(inversion.noise.shape[3]))
    region = Region(settings, source.tokens, target.tokens, size, mask, base.device)
    inversion = inversion.to(base.device)
    direct = inversion.kind == "direct"
    watched = record or bool(region.columns)
    empty = empty or empty_text(base, inversion)
    beside = base.unconditional(empty, target)
    x_source = x_target = inversion.noise
    total: Tensor | None = None
    for k, (time, to) in enumerate(base.schedule.downwards(steps)):
        none = unconditional(base, inversion, k, empty)
        own = beside if none is empty else base.unconditional(none, target)
        rows = [source, own, target] if direct else [source, own, target, none]
        parts = (
            [x_source, x_target, x_target] if direct else [x_source, x_target, x_target, x_source]
        )
        control = how.control(k, len(rows), 0, 2, watched)
        found = yield from ask(Denoise(torch.cat(parts), time, rows, control))
        noise = found.noise
        x_target = base.schedule.step(
            x_target, noise[1:2] + guidance * (noise[2:3] - noise[1:2]), time, to
        )
        if direct:
            x_source = inversion.at(k + 1)
        else:
            guided = noise[3:4] + guidance * (noise[0:1] - noise[3:4])
            x_source = base.schedule.step(x_source, guided, time, to)
        if found.maps is not None:
            region.see(found.maps)
            if record:
                total = found.maps if total is None else total + found.maps
        x_target = region.apply(x_source, x_target, k, steps)
        yield Progress("edit", k + 1, steps)
    shown = region.current[0, 0] if region.current is not None else None
    return P2PResult(x_target, x_source, shown, total)
