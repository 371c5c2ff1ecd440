"""Layers whose rows do not depend on how many others there are: the same bits alone and merged.

On a processor torch chooses the kernel of a layer by the number of rows: one row of few numbers
goes through another convolution than two, a 1 x 1 kernel through another from sixteen rows on, and
a product with one vector sums in another order than one with several. In float32 that changes a
number by 1e-7 of itself. AdamW divides a gradient by its size, so that a weight whose gradient is
nearly 0 then moves otherwise by a share of the learning rate. Here each row is computed as it is
alone: a job gives the same picture or concept whoever shares its forwards. What else a UNet or
transformer computes (products of many positions, attention, norms) takes rows one by one anyway.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def make_rows_independent(model: nn.Module) -> None:
    """Give the linear layers and convolutions of ``model``, on a processor, the classes below.

    Weights, names and hooks stay as they are; copies of the model keep the classes.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = RowLinear
        elif type(module) is nn.Conv2d and module.groups == 1:
            module.__class__ = RowConv2d


class RowLinear(nn.Linear):
    """A linear layer that takes vectors [rows, in] (a time step, a pooled prompt) one by one.

    One that is trained itself, in a base of its own, is a plain ``nn.Linear``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[rows, in] or [rows, positions, in] to the same with ``out``."""
        if input.ndim != 2 or self.weight.requires_grad:
            return super().forward(input)
        weight = self.weight.T.expand(len(input), -1, -1)
        return _products(input[:, None], weight, self.bias, 2)[:, 0]


class RowConv2d(nn.Conv2d):
    """A convolution by one and the same kernel of torch's, whatever the number of rows.

    float32 [rows, in, h, w] to [rows, out, h', w']. In another dtype, or trained itself, it is a
    plain ``nn.Conv2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The convolution."""
        plain = self.weight.requires_grad or self.padding_mode != "zeros" or input.ndim != 4
        if plain or input.dtype != torch.float32:
            return super().forward(input)
        if self.kernel_size == self.stride == (1, 1) and self.padding in ((0, 0), 0, "valid"):
            weight = self.weight.flatten(1).expand(len(input), -1, -1)
            out = _products(weight, input.flatten(2), self.bias, 1)
            return out.unflatten(2, input.shape[2:])
        if len(input) > 1 or isinstance(self.padding, str):
            return super().forward(input)
        if input.requires_grad and torch.is_grad_enabled():
            # the backward chooses its kernel anew: two rows, for it to be that of several
            return super().forward(input.expand(2, -1, -1, -1))[:1]
        return torch.mkldnn_convolution(
            input, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )


def _products(a: Tensor, b: Tensor, bias: Tensor | None, axis: int) -> Tensor:
    """A b + ``bias`` for each row: [rows, n, k] and [rows, k, m] to [rows, n, m].

    axis: the one of the result that ``bias`` is along, 1 or 2.
    """
    if bias is None:
        return torch.bmm(a, b)
    return torch.baddbmm(bias.view(1, -1, 1) if axis == 1 else bias.view(1, 1, -1), a, b)
