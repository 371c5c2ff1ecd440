"""The flow-matching schedule: times and steps as diffusers' scheduler and pipelines have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from customedit.diffusion.flow_schedule import FlowSchedule, Spacing
from customedit.diffusion.schedule import CLEAN
from customedit.errors import InputError

SD3 = {"shift": 3.0}
SD3_DYNAMIC = {"shift": 3.0, "use_dynamic_shifting": True, "max_shift": 1.16}
DEV = {"shift": 3.0, "use_dynamic_shifting": True}
LINEAR = {"use_dynamic_shifting": True, "time_shift_type": "linear"}
SCHNELL: dict[str, Any] = {"shift": 1.0}


def stock(
    config: dict[str, Any], spacing: Spacing, steps: int, tokens: int
) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler as the pipelines set it."""
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    c = scheduler.config
    mu = calculate_shift(
        tokens, c.base_image_seq_len, c.max_image_seq_len, c.base_shift, c.max_shift
    )
    mu = mu if c.use_dynamic_shifting else None
    if spacing == "even":
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    else:
        scheduler.set_timesteps(steps, mu=mu)
    return scheduler


@pytest.mark.parametrize("spacing", ["to-smallest", "even"])
@pytest.mark.parametrize("config", [SD3, SD3_DYNAMIC, DEV, LINEAR, SCHNELL])
@pytest.mark.parametrize("steps", [1, 4, 28, 50])
@pytest.mark.parametrize("tokens", [16, 256, 4096])
def test_times_are_those_of_the_pipelines(
    config: dict[str, Any], spacing: Spacing, steps: int, tokens: int
) -> None:
    scheduler = stock(config, spacing, steps, tokens)
    ours = FlowSchedule.from_config(dict(scheduler.config), spacing).for_tokens(tokens)
    times = torch.tensor(ours.times(steps))
    torch.testing.assert_close(times, scheduler.timesteps, atol=2e-4, rtol=1e-6)
    pairs = ours.downwards(steps)
    assert pairs[-1][1] == CLEAN
    sigmas = torch.tensor([*(t for t, _ in pairs), 0.0]) / 1000
    torch.testing.assert_close(sigmas, scheduler.sigmas, atol=2e-7, rtol=1e-6)
    assert [(b, a) for a, b in reversed(pairs)] == ours.upwards(steps)


def test_a_step_is_the_schedulers() -> None:
    scheduler = stock(SD3, "to-smallest", 7, 16)
    ours = FlowSchedule.from_config(dict(scheduler.config))
    x = theirs = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for (time, to), t in zip(ours.downwards(7), scheduler.timesteps, strict=True):
        velocity = torch.sin(3 * x)
        theirs = scheduler.step(torch.sin(3 * theirs), t, theirs).prev_sample
        x = ours.step(x, velocity, time, to)
    torch.testing.assert_close(x, theirs, atol=1e-5, rtol=1e-5)


def test_velocity_noise_and_picture_are_one_line() -> None:
    schedule = FlowSchedule(shift=3.0)
    picture, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    times = torch.tensor([1000.0, 640.0, 3.0])
    velocity = schedule.target(picture, noise, times)
    x = schedule.add_noise(picture, noise, times)
    torch.testing.assert_close(schedule.clean(x, velocity, times), picture, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        schedule.step(x, velocity, times, 250.0),
        schedule.add_noise(picture, noise, 250.0),
        atol=1e-6,
        rtol=1e-5,
    )
    assert torch.equal(schedule.add_noise(picture, noise, CLEAN), picture)
    assert torch.equal(schedule.add_noise(picture, noise, 1000.0), noise)


def test_training_times_are_logit_normal_and_shifted() -> None:
    rng = np.random.default_rng(0)
    times = FlowSchedule(shift=3.0).draw_times(rng, 20_000) / 1000
    unshifted = times / (3 - 2 * times)
    logits = torch.logit(unshifted.double())
    assert abs(float(logits.mean())) < 0.03
    assert abs(float(logits.std()) - 1) < 0.03


@pytest.mark.parametrize(
    "setting",
    [
        "invert_sigmas", "stochastic_sampling", "use_karras_sigmas", "use_exponential_sigmas",
        "use_beta_sigmas", "shift_terminal",
    ],
)  # fmt: skip
def test_settings_that_are_not_followed_are_named(setting: str) -> None:
    with pytest.raises(InputError, match=setting):
        FlowSchedule.from_config({setting: 0.1 if setting == "shift_terminal" else True})


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"_class_name": "EulerDiscreteScheduler"}, "EulerDiscreteScheduler"),
        ({"shift": 0}, "shift"),
        ({"shift": "3"}, "shift"),
        ({"num_train_timesteps": 1}, "num_train_timesteps"),
        ({"use_dynamic_shifting": True, "base_shift": None}, "base_shift"),
        ({"use_dynamic_shifting": True, "max_image_seq_len": 256}, "max_image_seq_len"),
        ({"use_dynamic_shifting": True, "time_shift_type": "cubic"}, "time_shift_type"),
    ],
)
def test_configurations_out_of_range_are_named(config: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        FlowSchedule.from_config(config)


def test_steps_out_of_range() -> None:
    for steps in (0, 1001):
        with pytest.raises(InputError, match="steps"):
            FlowSchedule().times(steps)


def test_the_key_tells_settings_apart_and_not_pictures() -> None:
    dynamic = FlowSchedule.from_config(DEV, "even")
    assert dynamic.key == dynamic.for_tokens(64).key
    keys = {
        FlowSchedule(shift=s, spacing=k).key for s in (1.0, 3.0) for k in ("even", "to-smallest")
    }
    assert len({*keys, dynamic.key}) == 5
