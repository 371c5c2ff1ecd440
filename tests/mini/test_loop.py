import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from customedit.mini import loop

SHORT = loop.Schedule(steps=12, rate=0.02, warmup=3, decay=6, ema=0.9)


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def fit(net: nn.Module) -> Callable[[loop.Step], loop.Loss]:
    """A loss that takes its data from both of a step's sources of chance."""

    def loss(step: loop.Step) -> loop.Loss:
        x = torch.from_numpy(step.numpy.normal(size=(8, 4))).float()
        noise = 0.1 * torch.randn(8, generator=step.torch)
        value = ((net(x)[:, 0] - x.sum(1) + noise) ** 2).mean()
        return value, {"twice": 2 * value.item()}

    return loss


def train(folder: Path, stop_after: int | None = None, seed: int = 0) -> dict[str, Tensor]:
    """The averaged weights after training, or going on with training, in ``folder``."""
    net = model()
    run = loop.Run(folder, SHORT, batch=8, seed=seed, stop_after=stop_after)
    return loop.train("fit", net, fit(net), run).shadow


def saved(folder: Path) -> dict[str, object]:
    return torch.load(folder / "fit.pt", weights_only=True)


@given(st.integers(1, 500), st.floats(1e-5, 1), st.integers(0, 50), st.integers(0, 500))
def test_the_rate_rises_stays_and_falls(steps: int, rate: float, warmup: int, decay: int) -> None:
    schedule = loop.Schedule(steps, rate, warmup, decay)
    rates = [schedule.rate_at(step) for step in range(steps)]
    assert all(0 < r <= rate for r in rates)
    top = [r for k, r in enumerate(rates) if k + 1 >= warmup and steps - k >= decay]
    assert all(r == rate for r in top)
    if 0 < decay < steps - warmup:
        assert rates[-1] == pytest.approx(rate / decay)
        assert rates[steps - decay :] == sorted(rates[steps - decay :], reverse=True)
    assert decay == 0 or schedule.rate_at(steps) == 0


@given(st.text(max_size=5), st.integers(0, 2**31), st.integers(0, 10**6))
def test_a_steps_chance_depends_on_nothing_but_its_name(stage: str, seed: int, number: int) -> None:
    def draws(stage: str, seed: int, number: int) -> tuple[float, float]:
        step = loop.step_chance(stage, seed, number)
        return step.numpy.random(), torch.rand((), generator=step.torch).item()

    here = draws(stage, seed, number)
    draws(stage, seed, number + 1)
    assert draws(stage, seed, number) == here
    others = [(stage, seed, number + 1), (stage, seed + 1, number), (stage + "x", seed, number)]
    assert all(draws(*other)[0] != here[0] for other in others)


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_stopped_and_resumed_is_the_same_bit_for_bit(tmp_path: Path, stop: int) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", stop_after=stop)
    assert saved(tmp_path / "parts")["step"] == stop
    parts = train(tmp_path / "parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    one, other = saved(tmp_path / "whole"), saved(tmp_path / "parts")
    assert one["step"] == other["step"] == SHORT.steps
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    one, other = train(tmp_path / "one"), train(tmp_path / "other", seed=1)
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    once = train(tmp_path)
    again = train(tmp_path)
    assert all(torch.equal(once[key], again[key]) for key in once)


def test_the_log_has_the_last_step_of_each_run(tmp_path: Path) -> None:
    train(tmp_path, stop_after=1)
    train(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "fit.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, SHORT.steps]
    assert all(line["twice"] == pytest.approx(2 * line["loss"], abs=1e-5) for line in lines)


def test_training_learns(tmp_path: Path) -> None:
    net = model()
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(2))

    def error() -> float:
        with torch.no_grad():
            return ((net(x)[:, 0] - x.sum(1)) ** 2).mean().item()

    before = error()
    schedule = loop.Schedule(steps=150, rate=0.05, warmup=5, decay=100, ema=0.9, adam_share=0.5)
    loop.train("fit", net, fit(net), loop.Run(tmp_path, schedule, batch=8)).copy_to(net)
    assert error() < 0.3 * before


def test_checkpoints_are_announced_with_the_average(tmp_path: Path) -> None:
    net = model()
    told: list[int] = []
    run = loop.Run(tmp_path, SHORT, batch=8, checkpoint_every=0)
    loop.train("fit", net, fit(net), run, lambda step, average: told.append(step))
    assert set(told) == set(range(1, SHORT.steps + 1))
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_remedy(
    tmp_path: Path, bad: float
) -> None:
    train(tmp_path, stop_after=2)
    before = (tmp_path / "fit.pt").read_bytes()
    net = model()
    good = fit(net)

    def loss(step: loop.Step) -> loop.Loss:
        value, parts = good(step)
        return (value * bad if step.number == 4 else value), parts

    with pytest.raises(FloatingPointError, match=r"fit: .* at step 4; lower the rate \(--rate\)"):
        loop.train("fit", net, loss, loop.Run(tmp_path, SHORT, batch=8))
    assert (tmp_path / "fit.pt").read_bytes() == before


def test_the_average_follows_and_can_be_copied_back() -> None:
    net = nn.Linear(2, 2)
    average = loop.Average(net, decay=0.5)
    start = net.weight.detach().clone()
    with torch.no_grad():
        net.weight.add_(1)
    for step in range(200):
        average.update(net, step)
    torch.testing.assert_close(average.shadow["weight"], start + 1)
    with torch.no_grad():
        net.weight.zero_()
    average.copy_to(net)
    torch.testing.assert_close(net.weight.detach(), start + 1)
