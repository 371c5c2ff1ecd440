"""Names of devices, and moving tensors to one."""

from __future__ import annotations

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
