"""DirectEdit's alignment (Yang and Ye, arXiv 2605.02417), carried over from flows to DDIM.

Inversion asks the model at the latents of the lower step and goes up with the answer; its replay
asks at the latents of the upper step, so it drifts. Here the model sees what it saw in the
inversion: the source's latents plus the cached difference d_k = z_{k, lower} - z_{k, upper}, with
which the step down is the step up reversed, exactly. The target is shifted by the same difference
before the model sees it; the step itself is taken from where the target is:

    e = model(x + d_k, t_k, target),  x <- DDIM step of x with e from t_k to the next time.

In the first steps the target's self-attention takes the source's values, as the paper's code does.
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
from customedit.editing.method_settings import DirectEditSettings, step_of


def direct_edit(
    base: Base,
    inversion: Inversion,
    source: TextContext,
    target: TextContext,
    *,
    settings: DirectEditSettings | None = None,
    guidance: Guidance | float = 7.5,
    mask: Tensor | None = None,
    record: bool = False,
    empty: TextContext | None = None,
) -> Method[Drawn]:
    """Edit the picture that was inverted; arguments as for ``prompt_to_prompt``.

    Raises InputError as ``Region`` does.
    """
    settings = settings or DirectEditSettings()
    beside = Beside(
        base, inversion, source, target, settings,
        guidance=guidance, mask=mask, record=record, empty=empty,
    )  # fmt: skip
    values_until = step_of(settings.strength, beside.steps)
    x = beside.latents(settings.start)
    for step in beside.begin(settings.start):
        control = beside.control(step)
        if step.number < values_until:
            control.self_source[step.target] = step.source
            control.self_parts[step.target] = torch.tensor([False, False, True])
            control.self_large[step.target] = True
        upper, lower = beside.inversion.at(step.number), beside.inversion.at(step.number + 1)
        noise = yield from beside.noise(step, x + (lower - upper), control, ahead=True)
        x = beside.schedule.step(x, noise, step.time, step.to)
        x = yield from beside.kept(step, x)
    return beside.result(x)
