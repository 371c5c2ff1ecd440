"""FlowEdit (Kulikov et al., arXiv 2412.08629, algorithm 1): from picture to picture directly.

Without an inversion: at each time the source is noised anew, and the edit moves by how much the
velocities of target and source differ there,

    z_src = (1 - sigma) x_src + sigma noise,   z_tar = z + z_src - x_src,
    z <- z + (sigma' - sigma) (v(z_tar, target) - v(z_src, source)),

where z begins as the source itself. Strength is the share of the steps that are taken, the last
ones: n_max of T steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.guided import combine
from customedit.diffusion.method import Denoise, Method, Progress, ask
from customedit.diffusion.text import TextContext
from customedit.editing.beside import Drawn, Watched
from customedit.editing.guidance import Guidance
from customedit.editing.method_settings import FlowEditSettings
from customedit.editing.region import Region
from customedit.editing.sdedit import first_step


def flow_edit(
    base: Base,
    latents: Tensor,
    source: TextContext,
    target: TextContext,
    *,
    settings: FlowEditSettings | None = None,
    steps: int = 50,
    guidance: Guidance | float = 4.5,
    seed: int = 0,
    mask: Tensor | None = None,
    record: bool = False,
    empty: TextContext | None = None,
) -> Method[Drawn]:
    """Edit the picture whose latents [1, C, h, w] are given; arguments as for ``prompt_to_prompt``.

    Each step averages over ``settings.samples`` drawings of noise. The source's velocity is guided
    by ``settings.source_scale``, in the same interval of steps.

    Raises InputError as ``Region`` does.
    """
    settings = settings or FlowEditSettings()
    if source.tokens is None or target.tokens is None:
        raise ValueError("the contexts are of prompts")
    base.family.require("flowedit", "method")
    guidance = Guidance.of(guidance)
    reading = Guidance(settings.source_scale(guidance.scale), guidance.start, guidance.end)
    empty = empty or base.text("")
    none, none_of_source = (base.unconditional(empty, text) for text in (target, source))
    size = (int(latents.shape[2]), int(latents.shape[3]))
    region = Region(settings, source, target, size, mask, base.device)
    watched = Watched(region, steps, record)
    schedule = base.schedule.sized(*size)
    first = first_step(settings.strength, steps)
    generator = torch.Generator().manual_seed(seed)
    picture = edited = latents.float().to(base.device)
    count = settings.samples
    for k, (time, to) in list(enumerate(schedule.downwards(steps)))[first:]:
        # 1. The source under fresh noise, and the edit as far from it as it is from the picture.
        shape = (count, *picture.shape[1:])
        noise = torch.randn(shape, generator=generator).to(base.device)
        of_source = schedule.add_noise(picture, noise, time)
        of_target = edited + of_source - picture
        # 2. One call for both velocities.
        rows = [
            guidance.rows(base, target, none, k, steps),
            reading.rows(base, source, none_of_source, k, steps),
        ]
        request = _request(base, [of_target, of_source], rows, time, watched.source)
        answer = yield from ask(request)
        split = count * len(rows[0])
        to_target = combine(answer.noise[:split], len(rows[0]), guidance.scale)
        to_source = combine(answer.noise[split:], len(rows[1]), reading.scale)
        # 3. The step along their difference, kept to the region.
        difference = (to_target - to_source).mean(0, keepdim=True)
        edited = schedule.step(edited, difference, time, to)
        if answer.maps is not None:  # the target's samples, then the source's
            ours, theirs = answer.maps.chunk(2)
            watched.see(torch.stack([theirs.mean(0), ours.mean(0)]))
        edited = region.apply(picture, edited, k, steps)
        yield Progress("edit", k + 1 - first, steps - first)
    return watched.result(edited, picture)


def _request(
    base: Base,
    latents: Sequence[Tensor],
    rows: Sequence[Sequence[TextContext]],
    time: float,
    recorded: bool,
) -> Denoise:
    """Every text of each part's ``rows`` on all latents of the part; the last text is recorded."""
    pairs = list(zip(latents, rows, strict=True))
    x = torch.cat([part.repeat(len(texts), 1, 1, 1) for part, texts in pairs])
    context = [text for part, texts in pairs for text in texts for _ in range(len(part))]
    control = AttentionControl.none(len(x), base.family.mapped_tokens)
    end = 0
    for part, texts in pairs:
        end += len(part) * len(texts)
        control.record[end - len(part) : end] = recorded
    shown = len(latents[0]) * len(rows[0]) - 1
    return Denoise(x, time, context, control, shown=shown)
