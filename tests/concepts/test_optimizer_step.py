"""Gradients in half precision, and steps that can be repeated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from customedit.concepts.optimizer_step import (
    DeterministicStep,
    deterministic_algorithms,
    gradients,
    take_optimizer_step,
)


def _through_half(leaf: Tensor, *factors: float) -> Tensor:
    """The sum of ``leaf`` times ``factors``, in float16 up to the sum."""
    x = leaf.half()
    for factor in factors:
        x = x * factor
    return x.float().sum()


def test_small_gradients_survive_float16() -> None:
    leaf = torch.ones(3, requires_grad=True)
    loss = _through_half(leaf, 1e-4, 1e-4)
    (lost,) = gradients(loss, [leaf], torch.float32)
    assert not lost.any()  # 1e-8 is nothing in float16
    (found,) = gradients(_through_half(leaf, 1e-4, 1e-4), [leaf], torch.float16)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.full((3,), 1e-8), rtol=1e-2)


def test_large_gradients_take_a_smaller_scale() -> None:
    leaf, other = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    found, none = gradients(_through_half(leaf, 50.0, 30.0), [leaf, other], torch.float16)
    assert torch.allclose(found, torch.full((3,), 1500.0)) and not none.any()
    (endless,) = gradients(_through_half(leaf, 6e4, 6e4), [leaf], torch.float16)
    assert not endless.isfinite().all()  # no scale helps, and none is made up


def test_a_step_is_clipped_and_told() -> None:
    leaf = torch.tensor([3.0, 4.0], requires_grad=True)
    optimizer = torch.optim.SGD([leaf], lr=1.0)

    def loss_of() -> tuple[Tensor, dict[str, Tensor]]:
        loss = leaf.square().sum()
        return loss, {"loss": loss, "half": loss / 2}

    assert take_optimizer_step(loss_of, optimizer, torch.float32, clip=5.0) == {
        "loss": 25.0,
        "half": 12.5,
    }
    assert torch.allclose(leaf, torch.zeros(2), atol=1e-5)  # the gradient [6, 8] was cut to half


def _flags() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )


def test_the_flags_of_a_reproducible_step_are_put_back() -> None:
    before = _flags()
    assert before[0] is False
    with deterministic_algorithms():
        assert _flags() == (True, False, False)
    assert _flags() == before
    with pytest.raises(ZeroDivisionError), deterministic_algorithms():
        raise ZeroDivisionError
    assert _flags() == before


def test_steps_on_a_gpu_are_reproducible_until_one_cannot_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[bool] = []

    def step() -> int:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return len(seen)

    def never() -> int:
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("upsample does not have a deterministic implementation")
        return step()

    steady = DeterministicStep(torch.device("cuda"))
    assert steady(step) == 1 and seen == [True]
    assert steady(never) == 2 and "cannot be repeated to the bit" in caplog.text
    assert steady(step) == 3 and seen == [True, False, False]
    with pytest.raises(RuntimeError, match="another matter"):
        DeterministicStep(torch.device("cuda"))(_raising)
    assert DeterministicStep(torch.device("cpu"))(step) == 4 and not seen[-1]


def _raising() -> None:
    raise RuntimeError("another matter")
