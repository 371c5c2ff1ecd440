"""Gradients of losses: half precision does not lose them, and they are repeatable to the bit.

A CPU gives the same bits by itself, a GPU where it is told to.
"""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import torch
from torch import Tensor

SCALES: Final = (2.0**15, 2.0**10, 2.0**5, 1.0)
"""What a loss in float16 is multiplied by, the first whose gradients are finite: else most of them,
below 6e-8, would vanish on their way through the UNet. Tried anew at each step, so that a training
that is resumed takes the same ones.
"""


def gradients(loss: Tensor, leaves: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Of ``loss`` in ``leaves``, zeros where it does not depend on one. dtype: of the model."""
    return joint_gradients([loss], [leaves], dtype)[0]


def joint_gradients(
    losses: Sequence[Tensor], leaves: Sequence[Sequence[Tensor]], dtype: torch.dtype
) -> list[list[Tensor]]:
    """Of each of ``losses`` in its own ``leaves``, by one backward pass of their sum.

    The leaves of one loss must not be those of another: then the gradient of the sum is each
    one's own. dtype: of the model.
    """
    if dtype != torch.float16:
        return _of_sum(losses, leaves, retain=False)
    found: list[list[Tensor]] = [[] for _ in losses]
    open_ = list(range(len(losses)))
    for scale in SCALES:
        scaled = _of_sum([losses[k] * scale for k in open_], [leaves[k] for k in open_], True)
        for k, own in zip(open_, scaled, strict=True):
            found[k] = [g / scale for g in own]
        open_ = [k for k in open_ if not _finite(found[k])]
        if not open_:
            break
    return found


def _of_sum(
    losses: Sequence[Tensor], leaves: Sequence[Sequence[Tensor]], retain: bool
) -> list[list[Tensor]]:
    total = functools.reduce(operator.add, losses)
    flat = [leaf for own in leaves for leaf in own]
    found = iter(
        torch.autograd.grad(total, flat, retain_graph=retain or None, materialize_grads=True)
    )
    return [[next(found) for _ in own] for own in leaves]


def _finite(found: Sequence[Tensor]) -> bool:
    return bool(torch.stack([g.isfinite().all() for g in found]).all())


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
    """Runs the steps of trainings with operations that give the same bits on ``device``.

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
