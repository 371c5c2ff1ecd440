"""SDEdit against a plain loop on diffusers' scheduler; what strength means."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.editing.sdedit import first_step, sdedit
from customedit.errors import InputError


def test_equals_a_plain_loop(base: Base, picture: Image.Image) -> None:
    latents, text = base.encode(picture), base.text("a photo of a blue cup")
    got = run(base, sdedit(base, latents, text, strength=0.5, steps=10, guidance=5.0, seed=3))
    scheduler = type(base.pipeline.scheduler).from_config(base.pipeline.scheduler.config)
    scheduler.set_timesteps(10)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    times = scheduler.timesteps[5:]
    x = scheduler.add_noise(latents, noise, times[:1])
    contexts = [base.text(""), text]
    with torch.no_grad():
        for time in times:
            none, worded = base.output(torch.cat([x, x]), int(time), contexts)[0].chunk(2)
            x = scheduler.step(none + 5.0 * (worded - none), time, x).prev_sample
    assert (got - x).abs().max() <= 1e-4


def test_more_strength_is_further_from_the_source(base: Base, picture: Image.Image) -> None:
    latents, text = base.encode(picture), base.text("a photo of a blue ball on a red table")
    away = [
        float(
            (run(base, sdedit(base, latents, text, strength=s, steps=10)) - latents).square().mean()
        )
        for s in (0.1, 0.5, 1.0)
    ]
    assert away[0] < away[1] < away[2]


def test_equal_seeds_give_equal_edits(base: Base, picture: Image.Image) -> None:
    latents, text = base.encode(picture), base.text("a photo of a blue cup")
    one, same, other = (run(base, sdedit(base, latents, text, steps=4, seed=s)) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_strength_has_its_limits() -> None:
    assert first_step(1.0, 50) == 0 and first_step(0.6, 50) == 20 and first_step(0.001, 50) == 49
    for bad in (0.0, 1.1, -1.0):
        with pytest.raises(InputError, match="strength"):
            first_step(bad, 50)
