"""Which devices there are, and tensors on their way to one."""

from __future__ import annotations

import torch
from torch import Tensor

from customedit.errors import InputError


def device_of(name: str) -> torch.device:
    """The device that ``name`` names: cpu, cuda or cuda:N.

    Raises:
        InputError: for a name that is none, and a GPU that is not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError("device", f"{name!r} is none", "take cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError("device", f"{name} is not there", "take cpu, or mend the driver")
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise InputError("device", f"{name} is not there", f"take cuda:0 to cuda:{count - 1}")
    return device


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; to a GPU without waiting for what the GPU still has to do.

    A plain ``to`` from the CPU waits for all that was launched before it, which at every step would
    leave the GPU idle. From pinned memory the copy takes its place in the queue. What is trained is
    moved the plain way, which gradients go through.
    """
    if tensor.device.type == "cpu" and device.type == "cuda" and not tensor.requires_grad:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
