"""One step of an optimizer, with gradients that half precision does not lose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

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
