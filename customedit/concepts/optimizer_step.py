"""One step of an optimizer: gradients that half precision does not lose, repeatable to the bit.

A CPU gives the same bits by itself, a GPU where it is told to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias, TypeVar

import torch
from torch import Tensor

Loss: TypeAlias = Callable[[], tuple[Tensor, dict[str, Tensor]]]
"""Gives a loss, a scalar with gradients, and the figures to be reported."""

SCALES: Final = (2.0**15, 2.0**10, 2.0**5, 1.0)
"""What a loss in float16 is multiplied by, the first whose gradients are finite: else most of them,
below 6e-8, would vanish on their way through the UNet. Tried anew at each step, so that a training
that is resumed takes the same ones.
"""


def gradients(loss: Tensor, leaves: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Of ``loss`` in ``leaves``, zeros where it does not depend on one. dtype: of the model."""
    if dtype != torch.float16:
        return list(torch.autograd.grad(loss, leaves, materialize_grads=True))
    found: list[Tensor] = []
    for scale in SCALES:
        scaled = torch.autograd.grad(
            loss * scale, leaves, retain_graph=True, materialize_grads=True
        )
        found = [g / scale for g in scaled]
        if bool(torch.stack([g.isfinite().all() for g in found]).all()):
            break
    return found


def take_optimizer_step(
    loss_of: Loss, optimizer: torch.optim.Optimizer, dtype: torch.dtype, clip: float
) -> dict[str, float]:
    """One step of ``optimizer``, its gradients clipped to the norm ``clip``; gives the figures.

    They are read once the step is under way, so that a GPU has no gap between its two halves; a
    loss that is not finite has then spoilt the leaves already. dtype: of the model.
    """
    leaves = [leaf for group in optimizer.param_groups for leaf in group["params"]]
    with torch.enable_grad():
        loss, figures = loss_of()
    for leaf, gradient in zip(leaves, gradients(loss, leaves, dtype), strict=True):
        leaf.grad = gradient
    torch.nn.utils.clip_grad_norm_(leaves, clip)
    optimizer.step()
    read = torch.stack([f.detach().float() for f in figures.values()]).cpu().tolist()
    return dict(zip(figures, read, strict=True))


T = TypeVar("T")
_log = logging.getLogger(__name__)


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Inside, torch takes operations that give the same bits each time.

    The flags are the process's, so they are put back at the end. An operation that has no such way
    raises RuntimeError.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = before[2]


class DeterministicStep:
    """Runs the steps of a training with operations that give the same bits on ``device``.

    Where a GPU has no such operation for one, this and all later steps run without, and the log
    says so: a training that is resumed then ends near the same numbers, not on them.
    """

    def __init__(self, device: torch.device) -> None:
        self._deterministic = device.type == "cuda"

    def __call__(self, step: Callable[[], T]) -> T:
        """What ``step`` gives; called twice if it raises, so it must then have changed nothing."""
        if not self._deterministic:
            return step()
        try:
            with deterministic_algorithms():
                return step()
        except RuntimeError as error:
            if "deterministic" not in str(error).lower():
                raise
            _log.warning("this training cannot be repeated to the bit: %s", error)
        self._deterministic = False
        return step()
