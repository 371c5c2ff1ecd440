"""MasaCtrl (Cao et al., arXiv 2304.08465): the target asks the source what things look like.

From step S and layer L on, the target's self-attention takes the source's keys and values (mutual
self-attention): layout by the target's prompt, looks by the source. In the mask-guided variant
the region attends to the source's region alone, and what is outside to what is outside; as the
region holds the latents too, one mask serves for source and target.

The unconditional row takes them from the same source row as the conditional one: with direct
inversion the source has no unconditional row of its own (the paper's code has one, which is equal
for the empty source prompt that it uses on real pictures).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.method import Method
from customedit.diffusion.text import TextContext
from customedit.editing.beside import Beside, Drawn, Step
from customedit.editing.guidance import Guidance
from customedit.editing.inversion import Inversion
from customedit.editing.method_settings import MasaCtrlSettings, step_of


def masactrl(
    base: Base,
    inversion: Inversion,
    source: TextContext,
    target: TextContext,
    *,
    settings: MasaCtrlSettings | None = None,
    guidance: Guidance | float = 7.5,
    mask: Tensor | None = None,
    record: bool = False,
    empty: TextContext | None = None,
) -> Method[Drawn]:
    """Edit the picture that was inverted; arguments as for ``prompt_to_prompt``.

    Raises InputError as ``Region`` does.
    """
    settings = settings or MasaCtrlSettings()
    beside = Beside(
        base, inversion, source, target, settings,
        guidance=guidance, mask=mask, record=record, empty=empty,
    )  # fmt: skip
    begins = beside.steps - step_of(settings.strength, beside.steps)  # S
    layer = step_of(settings.layer, len(base.self_layers))  # L
    x = beside.latents(settings.start)
    for step in beside.begin(settings.start):
        control = beside.control(step)
        if step.number >= begins:
            region = None
            if settings.within_region is not False:
                region = beside.watched.region.acting(step.number, beside.steps)
            control = mutual(control, step, layer, region)
        noise = yield from beside.noise(step, x, control)
        x = beside.schedule.step(x, noise, step.time, step.to)
        x = yield from beside.kept(step, x)
    return beside.result(x)


def mutual(
    control: AttentionControl, step: Step, layer: int, region: Tensor | None
) -> AttentionControl:
    """``control`` with the source's keys and values on the rows that are drawn, from ``layer`` on.

    region: [1, 1, h, w] in [0, 1] that attention is kept to, None for everywhere.
    """
    drawn = torch.tensor(list(step.drawn))
    control.self_source[drawn] = step.source
    control.self_parts[drawn] = torch.tensor([False, True, True])
    control.self_from[drawn] = layer
    control.self_large[drawn] = True
    if region is None:
        return control
    inside = (region[0, 0] >= 0.5).float()
    return dataclasses.replace(control, regions=(None, *[inside] * len(drawn)))
