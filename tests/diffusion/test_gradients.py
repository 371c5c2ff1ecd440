"""Gradients in half precision, and steps that can be repeated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from customedit.diffusion.gradients import (
    DeterministicStep,
    deterministic_algorithms,
    gradients,
    joint_gradients,
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_losses_together_have_the_gradients_they_have_alone(dtype: torch.dtype) -> None:
    """Also where each needs another scale, and where one has no finite gradient at all."""
    leaves = [torch.ones(3, requires_grad=True) for _ in range(3)]
    factors = ([1e-4, 1e-4], [50.0, 30.0], [6e4, 6e4])

    def losses() -> list[Tensor]:
        return [_through_half(x, *f) for x, f in zip(leaves, factors, strict=True)]

    together = joint_gradients(losses(), [[x] for x in leaves], dtype)
    for (found,), loss, leaf in zip(together, losses(), leaves, strict=True):
        assert torch.equal(found, gradients(loss, [leaf], dtype)[0])


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
