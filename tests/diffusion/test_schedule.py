"""DDIM against diffusers' own schedulers, for every setting, and its way back."""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from customedit import mini
from customedit.diffusion.ddim import SMALLEST_ALPHA, DDIMSchedule
from customedit.diffusion.families.ddim_config import SCHEDULERS
from customedit.diffusion.schedule import CLEAN
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
ALL = [
    {
        "beta_schedule": betas,
        "prediction_type": prediction,
        "timestep_spacing": spacing,
        "rescale_betas_zero_snr": rescaled,
        "set_alpha_to_one": to_one,
    }
    for betas, prediction, spacing, rescaled, to_one in itertools.product(
        ("linear", "scaled_linear", "squaredcos_cap_v2"),
        ("epsilon", "v_prediction", "sample"),
        ("leading", "trailing", "linspace"),
        (False, True),
        (False, True),
    )
    if not (rescaled and prediction == "epsilon")  # refused: see below
]


def _both(changes: dict[str, Any]) -> tuple[DDIMScheduler, DDIMSchedule]:
    theirs = DDIMScheduler(**{**CONFIG, **changes})
    return theirs, DDIMSchedule.from_config(dict(theirs.config))


def _x(seed: int, rows: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.randn(2, rows, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return x, y


@pytest.mark.parametrize("changes", ALL, ids=lambda c: "-".join(map(str, c.values())))
def test_every_combination_is_that_of_diffusers(changes: dict[str, Any]) -> None:
    theirs, ours = _both(changes)
    # diffusers accumulates in float32
    assert torch.allclose(ours.alphas.float(), theirs.alphas_cumprod, rtol=2e-4, atol=1e-7)
    assert ours.final == pytest.approx(float(theirs.final_alpha_cumprod), rel=1e-5)
    for steps in (1, 2, 7, 50, 250):
        theirs.set_timesteps(steps)
        assert ours.times(steps) == theirs.timesteps.tolist()
    # their step in float64: in float32 it loses digits where alpha is nearly 0 or 1
    theirs.alphas_cumprod = ours.alphas
    theirs.final_alpha_cumprod = torch.tensor(ours.final, dtype=torch.float64)
    theirs.set_timesteps(50)
    x, output = _x(3)
    compared = 0
    for time, to in ours.downwards(50)[::7]:
        got = ours.step(x, ours.noise(output, x, time), time, to)
        assert got.dtype == torch.float32
        if to in (time - 20, CLEAN):  # linspace is not even
            wanted = theirs.step(output.double(), torch.tensor(time), x.double()).prev_sample
            assert torch.allclose(got.double(), wanted, rtol=1e-4, atol=5e-5)
            compared += 1
    assert compared == 8 or changes["timestep_spacing"] == "linspace"


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 7, 50, 500])
def test_downward_steps_of_stable_diffusion_are_those_of_diffusers(
    prediction: str, steps: int
) -> None:
    theirs, ours = _both({"prediction_type": prediction})
    theirs.set_timesteps(steps)
    x, output = _x(steps)
    for time, to in ours.downwards(steps)[:: max(1, steps // 5)]:
        wanted = theirs.step(output, torch.tensor(time), x).prev_sample
        got = ours.step(x, ours.noise(output, x, time), time, to)
        assert torch.allclose(got, wanted, atol=2e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("steps", [5, 50])
def test_upward_steps_are_those_of_diffusers(spacing: str, to_one: bool, steps: int) -> None:
    changes = {"timestep_spacing": spacing, "set_alpha_to_one": to_one}
    theirs = DDIMInverseScheduler(**{**CONFIG, **changes})
    ours = DDIMSchedule.from_config({**CONFIG, **changes})
    theirs.set_timesteps(steps)
    assert [high for _, high in ours.upwards(steps)] == theirs.timesteps.tolist()
    x, output = _x(steps)
    for low, high in ours.upwards(steps)[:: steps // 5]:
        wanted = theirs.step(output, torch.tensor(high), x).prev_sample
        assert torch.allclose(ours.step(x, output, low, high), wanted, atol=2e-5)


@given(
    st.sampled_from(["leading", "trailing", "linspace"]),
    st.integers(1, 1000),
    st.integers(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_times_of_every_count_of_steps(spacing: str, steps: int, offset: int) -> None:
    theirs, ours = _both({"timestep_spacing": spacing, "steps_offset": offset})
    theirs.set_timesteps(steps)
    times = ours.times(steps)
    wanted = theirs.timesteps.tolist()
    if spacing != "leading" or wanted[0] < 1000:  # else diffusers leaves its own table
        assert times == wanted[:steps]
    assert len(set(times)) == steps and times == sorted(times, reverse=True)
    assert times[-1] >= 0 and times[0] < 1000


def test_times_and_alphas_of_the_bundled_base_keep_their_bits() -> None:
    """As they were when its pictures and numbers were published."""
    config = json.loads((mini.path() / "scheduler" / "scheduler_config.json").read_text())
    ours = DDIMSchedule.from_config(config)
    assert ours.times(50) == list(range(981, 0, -20))
    assert ours.dtype == torch.float32 and ours.final == 0.99915
    digest = hashlib.sha256(ours.alphas.numpy().tobytes()).hexdigest()
    assert digest.startswith("18924a276f95ac49")


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_zero_terminal_snr_is_finite_and_right(prediction: str) -> None:
    """At alpha 0 the latents are the noise, and the output alone tells of the picture."""
    changes = {
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "prediction_type": prediction,
    }
    theirs, ours = _both(changes)
    assert float(ours.alphas[-1]) == SMALLEST_ALPHA and ours.dtype == torch.float64
    theirs.set_timesteps(50)
    x, output = _x(9, rows=2)
    time, to = ours.downwards(50)[0]
    assert time == 999
    picture = -output if prediction == "v_prediction" else output
    noise = ours.noise(output, x, time)
    assert torch.allclose(noise.float(), x, atol=1e-5)
    assert torch.allclose(ours.clean(x, noise, time), picture, atol=1e-5)
    got = ours.step(x, noise, time, to)
    if prediction == "v_prediction":  # diffusers divides by 0 for samples' noise, not for these
        wanted = theirs.step(output, torch.tensor(time), x).prev_sample
        assert torch.allclose(got, wanted, atol=1e-4)
    # guidance mixes two answers and the picture follows
    other = output.flip(0)
    mixed = noise + 4 * (ours.noise(other, x, time) - noise)
    wanted_picture = picture + 4 * (picture.flip(0) - picture)
    assert torch.allclose(ours.clean(x, mixed, time), wanted_picture, atol=1e-4)
    # each row at its own time, up to the last time and down again
    times, low = torch.tensor([999, 19]), torch.tensor([979, CLEAN])
    rows = ours.step(x, ours.noise(output, x, times), times, low)
    assert rows.isfinite().all() and torch.equal(rows[:1], got[:1])
    up = ours.step(x, ours.noise(output, x, 999), 979, 999)
    assert up.isfinite().all() and torch.allclose(up, x, atol=1e-4)
    for k in range(2):
        assert ours.target(x, output, torch.tensor([999, 19]))[k].isfinite().all()
    assert torch.allclose(ours.add_noise(x, output, 999), output, atol=1e-5)


def test_trained_betas_are_taken_as_they_are() -> None:
    betas = torch.linspace(0.001, 0.02, 200).tolist()
    theirs, ours = _both({"trained_betas": betas, "num_train_timesteps": 200})
    assert torch.allclose(ours.alphas.float(), theirs.alphas_cumprod, rtol=1e-5)
    with pytest.raises(InputError, match="200 trained_betas for 1000 train steps"):
        DDIMSchedule.from_config({**CONFIG, "trained_betas": betas})


@given(st.lists(st.sampled_from(range(10)), min_size=1, unique=True))
@settings(max_examples=60, deadline=None)
def test_the_key_tells_every_change_of_a_result(which: list[int]) -> None:
    changes: list[dict[str, Any]] = [
        {"num_train_timesteps": 999},
        {"beta_start": 0.00086},
        {"beta_end": 0.0121},
        {"beta_schedule": "linear"},
        {"set_alpha_to_one": True},
        {"steps_offset": 0},
        {"prediction_type": "v_prediction"},
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "linspace"},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ]
    plain = DDIMSchedule.from_config(CONFIG)
    keys = {DDIMSchedule.from_config({**CONFIG, **changes[k]}).key for k in which} | {plain.key}
    assert len(keys) == len(which) + 1
    assert DDIMSchedule.from_config({**CONFIG, "use_karras_sigmas": True}).key == plain.key


def test_every_step_of_training_is_visited_once() -> None:
    assert DDIMSchedule.from_config(CONFIG).times(1000) == list(range(999, -1, -1))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_up_then_down_with_the_same_noise_comes_back(spacing: str) -> None:
    ours = DDIMSchedule.from_config({**CONFIG, "timestep_spacing": spacing})
    x, noise = _x(1)
    for low, high in ours.upwards(10):
        there = ours.step(x, noise, low, high)
        assert torch.allclose(ours.step(there, noise, high, low), x, atol=1e-4)


def test_each_row_has_its_own_time() -> None:
    ours = DDIMSchedule.from_config({**CONFIG, "prediction_type": "v_prediction"})
    x, output = _x(2, rows=3)
    times, to = torch.tensor([981, 401, 1]), torch.tensor([961, 381, CLEAN])
    together = ours.step(x, ours.noise(output, x, times), times, to)
    for k in range(3):
        t, n = int(times[k]), int(to[k])
        alone = ours.step(x[k : k + 1], ours.noise(output[k : k + 1], x[k : k + 1], t), t, n)
        assert torch.equal(together[k : k + 1], alone)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noise_and_target_are_each_others_inverse(prediction: str) -> None:
    ours = DDIMSchedule.from_config({**CONFIG, "prediction_type": prediction})
    latents, noise = _x(4, rows=2)
    times = torch.tensor([700, 20])
    x = ours.add_noise(latents, noise, times)
    assert torch.allclose(
        ours.noise(ours.target(latents, noise, times), x, times), noise, atol=1e-5
    )
    assert torch.allclose(ours.clean(x, noise, times), latents, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prediction_type": "flow_prediction"}, "prediction_type 'flow_prediction'"),
        ({"beta_schedule": "laplace"}, "beta_schedule 'laplace'"),
        ({"timestep_spacing": "karras"}, "timestep_spacing 'karras'"),
        ({"thresholding": True}, "has thresholding"),
        ({"clip_sample": True}, "has clip_sample"),
        ({"rescale_betas_zero_snr": True}, "signal-to-noise ratio of zero"),
        ({"trained_betas": [0.1] * 999 + [float("nan")]}, "betas .* outside of 0 to 1"),
        ({"trained_betas": ["a"]}, "betas are not numbers"),
        ({"beta_start": -1}, "betas"),
        ({"beta_end": None}, "betas are not numbers"),
        ({"num_train_timesteps": 0}, "num_train_timesteps 0"),
        ({"steps_offset": -1}, "steps_offset -1"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "no DDIM form"),
        ({"_class_name": "LCMScheduler"}, "distilled for a few steps"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas"),
    ],
)
def test_settings_that_ddim_cannot_follow_are_refused_by_name(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=rf"base: its scheduler.*{says}"):
        DDIMSchedule.from_config({**CONFIG, **changes})


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_configurations_of_other_samplers_are_taken_over(name: str) -> None:
    assert DDIMSchedule.from_config({**CONFIG, "_class_name": name}).times(50)[0] == 981


@pytest.mark.parametrize("steps", [0, 1001])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(InputError, match=f"steps: {steps}"):
        DDIMSchedule.from_config(CONFIG).times(steps)
