"""Muon: momentum whose matrix-shaped updates are orthogonalised (Jordan et al., 2024).

Convolutions count as matrices of [out, in x kh x kw]. Vectors, and the matrices named as excluded
(embeddings, first and last layers), take plain AdamW. ``torch.optim.Muon`` takes matrices only.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonalise(g: Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """An approximation of U V^T for g = U S V^T, [n, m]: Newton-Schulz with Jordan's quintic.

    Its singular values come out in about [0.7, 1.2], which is all that the update needs. dtype: of
    the products; bfloat16 is enough, but slow on processors that emulate it.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.to(dtype)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.T).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for ``matrices``, AdamW for ``others``.

    rate: of the orthogonalised updates (each has spectral norm about 1, times
    sqrt(max(1, rows / columns))); the AdamW group's rate is ``rate * adam_share``. Setting
    ``group["lr"]`` works as for any optimiser; schedules should scale both groups alike. products:
    dtype of the orthogonalisation.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        rate: float = 0.02,
        adam_share: float = 0.05,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        products: torch.dtype = torch.bfloat16,
    ) -> None:
        groups = [
            {"params": list(matrices), "muon": True, "share": 1.0},
            {"params": list(others), "muon": False, "share": adam_share},
        ]
        defaults = {"lr": rate, "momentum": momentum, "weight_decay": weight_decay}
        self.products = products
        super().__init__([g for g in groups if g["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; closures are not taken."""
        for group in self.param_groups:
            update = self._muon if group["muon"] else self._adam
            for p in group["params"]:
                if p.grad is not None:
                    update(p, p.grad, group)

    def _muon(self, p: Tensor, grad: Tensor, group: dict[str, float]) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        m: Tensor = state["momentum"]
        m.lerp_(grad, 1 - group["momentum"])
        nesterov = grad.lerp(m, group["momentum"])
        flat = nesterov.reshape(p.shape[0], -1)
        scale = max(1.0, flat.shape[0] / flat.shape[1]) ** 0.5
        update = orthogonalise(flat, dtype=self.products) * scale
        rate = group["lr"] * group["share"]
        p.mul_(1 - rate * group["weight_decay"]).add_(update.reshape(p.shape), alpha=-rate)

    def _adam(self, p: Tensor, grad: Tensor, group: dict[str, float]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = 0
            state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        b1, b2 = 0.9, 0.99
        state["m"].lerp_(grad, 1 - b1)
        state["v"].lerp_(grad.square(), 1 - b2)
        m = state["m"] / (1 - b1 ** state["step"])
        v = state["v"] / (1 - b2 ** state["step"])
        rate = group["lr"] * group["share"]
        p.mul_(1 - rate * group["weight_decay"]).addcdiv_(m, v.sqrt() + 1e-8, value=-rate)


def split(
    model: torch.nn.Module, exclude: tuple[str, ...] = ()
) -> tuple[list[Tensor], list[Tensor]]:
    """The model's trainable parameters as (matrices for Muon, others for AdamW).

    A matrix whose name holds one of ``exclude`` goes with the others.
    """
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        inner = p.ndim >= 2 and not any(word in name for word in exclude)
        (matrices if inner else others).append(p)
    return matrices, others
