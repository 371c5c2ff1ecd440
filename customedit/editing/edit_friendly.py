"""An edit-friendly DDPM noise space (Huberman-Spiegelglas et al., arXiv 2304.06140).

The source's noisy latents are drawn *independently* at each time (algorithm 1):
x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e_t. The noise maps that lead from one to the next,
z_t = (x_{t-1} - m_t(x_t)) / s_t with the DDPM mean m_t under the source prompt, hold the source's
structure: sampling with them gives the source under its own prompt, and the edit under another.

Since all x_t are known beforehand, a noise map is read in the same call of the model that uses it:
no inversion is made or kept. s_t z_t is taken as it is, x_{t-1} - m_t(x_t), without dividing by s_t
and multiplying again, so it is exact where s_t is 0, too.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.ddim import DDIMSchedule
from customedit.diffusion.guided import combine
from customedit.diffusion.method import Denoise, Method, Progress, ask
from customedit.diffusion.schedule import Schedule
from customedit.diffusion.text import TextContext
from customedit.editing.beside import Drawn, Watched
from customedit.editing.guidance import Guidance
from customedit.editing.method_settings import EditFriendlySettings, step_of
from customedit.editing.region import Region


def noisy_sources(schedule: Schedule, latents: Tensor, steps: int, seed: int) -> list[Tensor]:
    """The source's latents at each of the ``steps`` times and, last, themselves: [1, C, h, w] each.

    Each time has noise of its own. Equal seeds give equal noise on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    latents = latents.float()
    drawn = torch.randn((steps, *latents.shape[1:]), generator=generator).to(latents.device)
    times = schedule.times(steps)
    noisy = [schedule.add_noise(latents, drawn[k : k + 1], time) for k, time in enumerate(times)]
    return [*noisy, latents]


def edit_friendly(
    base: Base,
    latents: Tensor,
    source: TextContext,
    target: TextContext,
    *,
    settings: EditFriendlySettings | None = None,
    steps: int = 50,
    guidance: Guidance | float = 7.5,
    seed: int = 0,
    mask: Tensor | None = None,
    record: bool = False,
    empty: TextContext | None = None,
) -> Method[Drawn]:
    """Edit the picture whose latents [1, C, h, w] are given; arguments as for ``prompt_to_prompt``.

    The source's noise is read with ``settings.source_guidance``, in the same interval of steps.

    Raises InputError as ``Region`` does.
    """
    settings = settings or EditFriendlySettings()
    if source.tokens is None or target.tokens is None:
        raise ValueError("the contexts are of prompts")
    guidance = Guidance.of(guidance)
    source_scale = settings.source_guidance
    empty = empty or base.text("")
    beside = base.unconditional(empty, target)
    size = (int(latents.shape[2]), int(latents.shape[3]))
    region = Region(settings, source, target, size, mask, base.device)
    watched = Watched(region, steps, record)
    schedule = base.schedule.sized(*size)
    assert isinstance(schedule, DDIMSchedule), "families with other schedules lack the method"
    # what decides the source's rows, apart from the step. Rows are compared within one call, whose
    # methods hold their latents and texts: no id is another's meanwhile
    origin = ("drawn", id(latents), seed)
    sources = noisy_sources(schedule, latents.to(base.device), steps, seed)
    skip = min(step_of(settings.strength, steps), steps - 1)
    x = sources[skip]
    for k, (time, to) in enumerate(schedule.downwards(steps)):
        if k < skip:
            continue
        # 1. One call: the source's rows at its own latents, the target's at the edit's.
        drawn = guidance.rows(base, target, beside, k, steps)
        reads = guidance.acts(k, steps) and source_scale != 1
        rows: list[tuple[Tensor, TextContext, Hashable]] = [
            *([(sources[k], empty, (*origin, k, id(empty)))] if reads else []),
            (sources[k], source, (*origin, k, id(source))),
            *((x, text, None) for text in drawn),
        ]
        control = AttentionControl.none(len(rows), base.family.mapped_tokens)
        control.record[int(reads)], control.record[-1] = watched.source, watched.target
        request = Denoise(
            torch.cat([row[0] for row in rows]), time, [row[1] for row in rows], control,
            names=[row[2] for row in rows],
        )  # fmt: skip
        answer = yield from ask(request)
        watched.see(answer.maps)
        read, of_target = answer.noise[: 1 + reads], answer.noise[1 + reads :]
        # 2. s_t z_t of the source.
        noise = combine(read, len(read), source_scale)
        step_noise = sources[k + 1] - schedule.random_mean(sources[k], noise, time, to)
        # 3. The target's step with it.
        noise = combine(of_target, len(drawn), guidance.scale)
        x = schedule.random_mean(x, noise, time, to) + step_noise
        x = region.apply(sources[k + 1], x, k, steps)
        yield Progress("edit", k + 1 - skip, steps - skip)
    return watched.result(x, sources[-1])
