"""Plug-and-Play (Tumanyan et al., arXiv 2211.12572): the source's features put into the target.

At the first steps the target takes the source's features of one residual block of the decoder and
its self-attention maps of the decoder's layers (as queries and keys). Both of the target's rows
take them from the source's conditional row, as in the paper's code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from customedit.diffusion.base import Base
from customedit.diffusion.method import Method
from customedit.diffusion.text import TextContext
from customedit.editing.beside import Beside, Drawn
from customedit.editing.guidance import Guidance
from customedit.editing.inversion import Inversion
from customedit.editing.method_settings import PlugAndPlaySettings, step_of


def plug_and_play(
    base: Base,
    inversion: Inversion,
    source: TextContext,
    target: TextContext,
    *,
    settings: PlugAndPlaySettings | None = None,
    guidance: Guidance | float = 7.5,
    mask: Tensor | None = None,
    record: bool = False,
    empty: TextContext | None = None,
) -> Method[Drawn]:
    """Edit the picture that was inverted; arguments as for ``prompt_to_prompt``.

    Raises InputError as ``Region`` does.
    """
    settings = settings or PlugAndPlaySettings()
    beside = Beside(
        base, inversion, source, target, settings,
        guidance=guidance, mask=mask, record=record, empty=empty,
    )  # fmt: skip
    features_until = step_of(settings.strength, beside.steps)  # tau_f
    maps_until = step_of(settings.attention, beside.steps)  # tau_A
    block = step_of(settings.block, len(base.decoder_blocks))
    layer = step_of(settings.layer, len(base.self_layers))
    x = beside.latents(settings.start)
    for step in beside.begin(settings.start):
        control = beside.control(step)
        drawn = torch.tensor(list(step.drawn))
        if step.number < features_until:
            control.feature_source[drawn] = step.source
            control.feature_block[drawn] = block
        if step.number < maps_until:
            control.self_source[drawn] = step.source
            control.self_from[drawn] = layer
            control.self_large[drawn] = True
        noise = yield from beside.noise(step, x, control)
        x = beside.schedule.step(x, noise, step.time, step.to)
        x = yield from beside.kept(step, x)
    return beside.result(x)
