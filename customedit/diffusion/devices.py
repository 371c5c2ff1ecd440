"""Names of devices, and moving tensors to one and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from customedit.errors import InputError


def device_of(name: str) -> torch.device:
    """The device that ``name`` names: cpu, cuda or cuda:N.

    Raises:
        InputError: for an unknown name, and for a GPU that is not available.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError("device", f"{name!r} is not a device", "use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        _check_available(device, name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            problem = f"{name} is not available"
            raise InputError("device", problem, "use cpu, or check the GPU driver")
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            problem = f"{name} is not available"
            raise InputError("device", problem, f"use cuda:0 to cuda:{count - 1}")
    return device


def _check_available(device: torch.device, name: str) -> None:
    """Raises InputError for a device that this build of torch knows by name alone."""
    try:
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError):
        raise InputError(
            "device", f"{name} is not available in this build of torch", "use cpu, cuda or cuda:N"
        ) from None


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; to a GPU without waiting for the GPU's queue.

    A plain ``to`` from the CPU waits for everything launched before it, which at every step would
    leave the GPU idle. From pinned memory the copy is queued. Tensors that need gradients are moved
    by the plain ``to``, which gradients flow through.
    """
    if tensor.device.type == "cpu" and device.type == "cuda" and not tensor.requires_grad:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class CpuCopy:
    """A copy of a tensor on the CPU, which is waited for where it is read.

    From a GPU it is queued behind what was launched before, so that whoever reads it later finds
    the GPU at work on what was launched since.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._copied: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._tensor = self._tensor.to("cpu", non_blocking=True)  # into pinned memory
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(tensor.device))

    def read(self) -> Tensor:
        """The copy; waits until it is there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._tensor.cpu()


class DeviceRows:
    """Numbers of rows on devices, each list of them moved there once."""

    MOST: Final = 256
    """Most lists that are kept; then all are forgotten."""

    def __init__(self) -> None:
        self._kept: dict[tuple[torch.device, tuple[int, ...]], Tensor] = {}

    def __call__(self, rows: Sequence[int], device: torch.device) -> Tensor:
        """``rows`` as int64 on ``device``, not to be changed."""
        key = device, tuple(rows)
        if key not in self._kept:
            if len(self._kept) >= self.MOST:
                self._kept.clear()
            self._kept[key] = to_device(torch.tensor(rows, dtype=torch.long), device)
        return self._kept[key]
