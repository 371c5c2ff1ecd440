"""DDIM against diffusers' own scheduler, and its way back."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from customedit.diffusion.schedule import CLEAN, Schedule
from customedit.errors import InputError

CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 7, 50, 500])
def test_downward_steps_are_those_of_diffusers(prediction: str, steps: int) -> None:
    theirs = DDIMScheduler(**CONFIG, prediction_type=prediction)
    theirs.set_timesteps(steps)
    ours = Schedule.from_config(dict(theirs.config))
    assert ours.times(steps) == theirs.timesteps.tolist()
    x, output = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(steps))
    for time, to in ours.downwards(steps)[:: max(1, steps // 5)]:
        if steps in (50, 500) or to == CLEAN:
            wanted = theirs.step(output, torch.tensor(time), x).prev_sample
            got = ours.step(x, ours.noise(output, x, time), time, to)
            assert torch.allclose(got, wanted, atol=2e-5)


def test_every_step_of_training_is_visited_once() -> None:
    assert Schedule.from_config(CONFIG).times(1000) == list(range(999, -1, -1))


def test_up_then_down_with_the_same_noise_comes_back() -> None:
    ours = Schedule.from_config(CONFIG)
    x, noise = torch.randn(2, 1, 4, 8, 8)
    for low, high in ours.upwards(10):
        there = ours.step(x, noise, low, high)
        assert torch.allclose(ours.step(there, noise, high, low), x, atol=1e-4)


def test_each_row_has_its_own_time() -> None:
    ours = Schedule.from_config({**CONFIG, "prediction_type": "v_prediction"})
    x, output = torch.randn(2, 3, 4, 8, 8)
    times, to = torch.tensor([981, 401, 1]), torch.tensor([961, 381, CLEAN])
    together = ours.step(x, ours.noise(output, x, times), times, to)
    for k in range(3):
        t, n = int(times[k]), int(to[k])
        alone = ours.step(x[k : k + 1], ours.noise(output[k : k + 1], x[k : k + 1], t), t, n)
        assert torch.equal(together[k : k + 1], alone)


def test_noise_and_target_are_each_others_inverse() -> None:
    ours = Schedule.from_config({**CONFIG, "prediction_type": "v_prediction"})
    latents, noise = torch.randn(2, 2, 4, 8, 8)
    times = torch.tensor([700, 20])
    x = ours.add_noise(latents, noise, times)
    assert torch.allclose(
        ours.noise(ours.target(latents, noise, times), x, times), noise, atol=1e-5
    )
    assert torch.allclose(ours.clean(x, noise, times), latents, atol=1e-4)


def test_what_is_no_schedule_is_refused() -> None:
    with pytest.raises(InputError, match="sample"):
        Schedule.from_config({**CONFIG, "prediction_type": "sample"})
    with pytest.raises(InputError, match="squaredcos"):
        Schedule.from_config({**CONFIG, "beta_schedule": "squaredcos_cap_v2"})
    for steps in (0, 1001):
        with pytest.raises(InputError, match=f"steps: {steps}"):
            Schedule.from_config(CONFIG).times(steps)
