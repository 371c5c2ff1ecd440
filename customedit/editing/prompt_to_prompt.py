"""Prompt-to-Prompt (Hertz et al., arXiv 2208.01626): the target drawn beside the source's maps.

As in Custom-Edit: refinement by default, and a local blend whose mask is read from the source's
maps alone. Control touches the conditional rows only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from customedit.diffusion.attention import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Denoise, Method, Progress, ask
from customedit.diffusion.text import TextContext, Tokens
from customedit.editing.inversion import Inversion, empty_text, unconditional
from customedit.editing.region import Region, word_columns
from customedit.editing.settings import P2PSettings, step_of


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
class MapControl:
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


def map_control(source: Tokens, target: Tokens, settings: P2PSettings, steps: int) -> MapControl:
    """Work out what each token of the target takes at each step.

    With m the mapped source map, o the target's own, e the factors and a the cross-replace alphas,
    the map is a e (t m + (1 - t) o) + (1 - a) o, where t is 1 for tokens that the source has
    (refine) or everywhere (replace): one factor on m and one on o per token.

    Raises InputError for words that are not in the target prompt and prompts that do not swap.
    """
    length = len(source.ids)
    if settings.way == "refine":
        mapper, taken = refine(source.ids, target.ids, length)
    else:
        mapper = replace(source.spans, target.spans, length)
        taken = torch.ones(length)
    factors = {
        column: float(value)
        for word, value in settings.reweight.items()
        for column in word_columns(target, word, "target_prompt")
    }
    bounds = {
        column: value
        for word, value in settings.words.items()
        for column in word_columns(target, word, "target_prompt")
    }
    equal = equalizer(length, factors)
    alpha = cross_replace(length, steps, settings.cross, bounds)
    return MapControl(
        mapper,
        alpha * equal * taken,
        alpha * equal * (1 - taken) + (1 - alpha),
        step_of(settings.own, steps),
    )


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

    source, target: the two prompts' contexts, made with equal lists of concepts. mask: the user's,
    [height, width] in [0, 1], outside of which nothing changes (``region``). record: hand the maps
    back. empty: the unconditional text, None for the base's own. Before ``settings.start`` both
    rows lie on the stored trajectory, and nothing is predicted.

    With direct inversion (arXiv 2310.01506) the source row lies on the stored trajectory at every
    step, so it needs no unconditional row and comes out as it went in: three rows instead of four.

    Raises InputError as ``map_control`` and ``Region`` do.
    """
    settings = settings or P2PSettings()
    if source.tokens is None or target.tokens is None:
        raise ValueError("the contexts are of prompts")
    steps = inversion.steps
    maps = map_control(source.tokens, target.tokens, settings, steps)
    size = (int(inversion.noise.shape[2]), int(inversion.noise.shape[3]))
    region = Region(settings, source.tokens, target.tokens, size, mask, base.device)
    inversion = inversion.to(base.device)
    direct = inversion.kind == "direct"
    watched = record or bool(region.columns)
    empty = empty or empty_text(base, inversion)
    beside = base.unconditional(empty, target)
    x_source = x_target = inversion.noise
    total: Tensor | None = None
    first = step_of(settings.start, steps)
    for k, (time, to) in enumerate(base.schedule.downwards(steps)):
        if k < first:
            x_source = x_target = inversion.at(k + 1)
            yield Progress("edit", k + 1, steps)
            continue
        none = unconditional(base, inversion, k, empty)
        own = beside if none is empty else base.unconditional(none, target)
        rows = [source, own, target] if direct else [source, own, target, none]
        parts = (
            [x_source, x_target, x_target] if direct else [x_source, x_target, x_target, x_source]
        )
        control = maps.control(k, len(rows), 0, 2, watched)
        prediction = yield from ask(Denoise(torch.cat(parts), time, rows, control))
        noise = prediction.noise
        x_target = base.schedule.step(
            x_target, noise[1:2] + guidance * (noise[2:3] - noise[1:2]), time, to
        )
        if direct:
            x_source = inversion.at(k + 1)
        else:
            guided = noise[3:4] + guidance * (noise[0:1] - noise[3:4])
            x_source = base.schedule.step(x_source, guided, time, to)
        if prediction.maps is not None:
            region.see(prediction.maps)
            if record:
                total = prediction.maps if total is None else total + prediction.maps
        x_target = region.apply(x_source, x_target, k, steps)
        yield Progress("edit", k + 1, steps)
    shown = region.current[0, 0] if region.current is not None else None
    return P2PResult(x_target, x_source, shown, total)
