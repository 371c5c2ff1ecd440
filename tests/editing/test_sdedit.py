"""SDEdit against a plain loop on diffusers' scheduler; what strength means."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.schedule import CLEAN
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


@given(st.integers(1, 200), st.integers(1, 1000))
def test_strength_is_rounded_to_whole_steps_half_upwards(steps: int, thousandths: int) -> None:
    drawn = steps - first_step(thousandths / 1000, steps)
    exact = Decimal(thousandths) * steps / 1000
    assert drawn == max(1, int(exact.quantize(Decimal(1), ROUND_HALF_UP)))


@pytest.mark.parametrize(
    ("strength", "steps", "drawn"),
    [(0.25, 10, 3), (0.24, 10, 2), (0.35, 10, 4), (0.5, 3, 2), (0.5, 5, 3), (0.04, 10, 1),
     (0.99, 50, 50), (0.98, 50, 49), (0.61, 50, 31)],
)  # fmt: skip
def test_how_many_steps_a_strength_draws(strength: float, steps: int, drawn: int) -> None:
    assert steps - first_step(strength, steps) == drawn


def test_a_mask_keeps_the_source_at_each_steps_noise(base: Base, picture: Image.Image) -> None:
    """Against the loop written out: outside the mask each step starts from the noised source."""
    latents, text = base.encode(picture), base.text("a photo of a blue cup")
    mask = torch.zeros(128, 128)
    mask[:, :64] = 1
    got = run(base, sdedit(base, latents, text, strength=0.5, steps=4, seed=3, mask=mask))
    inside = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    inside[..., :8] = True
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    times = base.schedule.times(4)[2:]
    x = base.schedule.add_noise(latents, noise, times[0])
    with torch.no_grad():
        for time, to in ((times[0], times[1]), (times[1], CLEAN)):
            none, worded = base.predict(torch.cat([x, x]), time, [base.text(""), text]).noise
            x = base.schedule.step(x, none[None] + 7.5 * (worded - none)[None], time, to)
            kept = latents if to == CLEAN else base.schedule.add_noise(latents, noise, to)
            x = torch.where(inside, x, kept)
    assert torch.allclose(got, x, atol=1e-4)
    assert torch.equal(got[..., 8:], latents[..., 8:])


def test_strength_has_its_limits() -> None:
    assert first_step(1.0, 50) == 0 and first_step(0.6, 50) == 20 and first_step(0.001, 50) == 49
    for bad in (0.0, 1.1, -1.0):
        with pytest.raises(InputError, match="strength"):
            first_step(bad, 50)
