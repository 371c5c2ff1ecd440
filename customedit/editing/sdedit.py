"""SDEdit (Meng et al., arXiv 2108.01073): noise the source part of the way, draw it again.

Strength is the share of the way: higher takes more of the reference, lower keeps more of the
source. From noise alone it shows a concept by itself (``portrait``), also while it is learned.

The source at a step is the picture under the noise that the edit began with, at the step's time.
Outside a region each step goes on with it, as in Blended Latent Diffusion (arXiv 2206.02779), so
that the edit fits what stays. Where the region is read from words, a row beside the edit's shows
this source to the model with the source prompt, and its maps are those of the local blend of
Prompt-to-Prompt (``region``). That a noised picture tells without an inversion where its words are
is what DiffEdit (arXiv 2210.11427) builds on, which compares predictions instead of reading maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from PIL import Image
from torch import Tensor

from customedit.diffusion.attention_control import AttentionControl
from customedit.diffusion.base import Base
from customedit.diffusion.guided import combine
from customedit.diffusion.method import Denoise, Method, Progress, ask, decode
from customedit.diffusion.schedule import CLEAN
from customedit.diffusion.text import Customization, TextContext, Weighted
from customedit.editing.beside import Drawn, Watched
from customedit.editing.guidance import Guidance
from customedit.editing.method_settings import SDEditSettings, first_noised_step
from customedit.editing.region import Region
from customedit.errors import InputError


def first_step(strength: float, steps: int) -> int:
    """The downward step that SDEdit starts with; 0 draws from noise alone.

    Raises InputError unless 0 < strength <= 1.
    """
    if not 0 < strength <= 1:
        raise InputError(
            "strength", f"{strength} is not above 0 and up to 1", "0.5 to 0.8 is usual"
        )
    return first_noised_step(strength, steps)


def sdedit(
    base: Base,
    latents: Tensor,
    target: TextContext,
    *,
    source: TextContext | None = None,
    settings: SDEditSettings | None = None,
    steps: int = 50,
    guidance: Guidance | float = 7.5,
    seed: int = 0,
    mask: Tensor | None = None,
    record: bool = False,
    empty: TextContext | None = None,
) -> Method[Drawn]:
    """Edit the picture whose latents [1, C, h, w] are given; arguments as for ``prompt_to_prompt``.

    source: the context of the source prompt, None where nothing is read from it, and nothing
    recorded. Equal seeds give equal noise on every device: it is drawn on the CPU.

    Raises InputError for a strength out of range, and as ``Region`` does.
    """
    settings = settings or SDEditSettings()
    if source is None and settings.blend_over in ("source", "union"):
        raise ValueError("a region is read from the words of a source prompt")
    guidance = Guidance.of(guidance)
    start = first_step(settings.strength, steps)
    size = (int(latents.shape[2]), int(latents.shape[3]))
    region = Region(settings, target if source is None else source, target, size, mask, base.device)
    watched = Watched(region, steps, record and source is not None)
    schedule = base.schedule.sized(*size)
    pairs = schedule.downwards(steps)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape, generator=generator).to(base.device)
    picture = latents.to(base.device)
    x = x_source = schedule.add_noise(picture, noise, pairs[start][0])
    empty = base.unconditional(empty or base.text(""), target)
    # what decides the source's row, apart from the step. Rows are compared within one call, whose
    # methods hold their latents and texts: no id is another's meanwhile
    origin = ("noised", id(latents), seed, id(source))
    control: AttentionControl | None = None
    for k, (time, to) in list(enumerate(pairs))[start:]:
        # 1. One call: the source's row, where it is read, and the target's at the edit's latents.
        drawn = guidance.rows(base, target, empty, k, steps)
        read = [] if source is None or not watched.source else [source]
        if read and (control is None or control.rows != 1 + len(drawn)):
            control = AttentionControl.none(1 + len(drawn), base.family.mapped_tokens)
            control.record[0], control.record[-1] = True, watched.target
        rows = torch.cat([*[x_source] * len(read), *[x] * len(drawn)])
        names = [*[(*origin, k)] * len(read), *[None] * len(drawn)]
        answer = yield from ask(Denoise(rows, time, [*read, *drawn], control, names))
        # 2. The target's step, and the source under the same noise at the next time.
        predicted = combine(answer.noise[len(read) :], len(drawn), guidance.scale)
        x = schedule.step(x, predicted, time, to)
        x_source = picture if to == CLEAN else schedule.add_noise(picture, noise, to)
        # 3. The edit kept to the region.
        watched.see(answer.maps)
        x = region.apply(x_source, x, k, steps)
        yield Progress("edit", k + 1 - start, steps - start)
    return watched.result(x, picture)


PORTRAIT_STEPS: Final = 20
"""DDIM steps that show enough of a concept."""


def portrait(
    base: Base, concept: Customization, prompt: str, steps: int = PORTRAIT_STEPS, seed: int = 0
) -> Method[Image.Image]:
    """A square picture drawn for ``prompt``, from noise alone."""
    cells = base.side // base.factor
    entries: Sequence[Weighted] = [Weighted(concept)]
    drawn = yield from sdedit(
        base,
        torch.zeros((1, base.channels, cells, cells)),
        base.text(prompt, entries),
        settings=SDEditSettings(strength=1.0),
        steps=steps,
        guidance=base.guidance,
        seed=seed,
    )
    return (yield from decode(base, drawn.latents))
