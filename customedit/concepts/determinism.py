"""Deterministic training: a CPU gives the same bits by itself, a GPU where it is told to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

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
