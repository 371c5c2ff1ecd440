"""Adapters applied to the rows of one forward, each row with others.

A row may have one adapter, several, or none:

    y_r = W x_r + sum over the row's adapters of s dW x_r

Nothing is swapped in the base and nothing is added to its weights. Rows whose adapters are of one
kind and shape are computed together, in batched products of the adapters' factors, so that sixteen
rows with sixteen adapters cost about what sixteen rows with one cost. Everything is differentiable
in the adapters' factors.

Layers are told what their rows use by hooks that exist during one forward; a forward without
adapters runs the bare modules. The keys and values of a UNet's cross-attention are made from the
prompt, once: there an adapter is a change of the projection (``text.project``) and costs nothing
per step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from customedit.diffusion.adapters import (
    Adapter,
    Hadamard,
    Kronecker,
    LowRank,
    Whole,
    adapters_of,
    layers_of,
)
from customedit.diffusion.devices import to_device

Layer: TypeAlias = nn.Linear | nn.Conv2d


class WeightedAdapters(Protocol):
    """What carries adapters, and how much of them a row uses: ``text.Weighted`` is one."""

    @property
    def concept(self) -> Any:
        """An ``adapters.Adapted``."""

    @property
    def weight(self) -> float:
        """1 for all of the change, 0 for none."""


@dataclass(frozen=True, eq=False)
class Use:
    """That ``row`` of a forward uses ``adapter``, its change times ``weight``."""

    row: int
    adapter: Adapter
    weight: float


class RowAdapters:
    """The adapters of one forward's rows, by the layer that they act on.

    rows: for each row what it uses.
    """

    def __init__(self, rows: Sequence[Sequence[WeightedAdapters]]) -> None:
        self.uses: dict[str, list[Use]] = {}
        whole: dict[int, Whole] = {}  # of a LoHa, made once whatever the number of its rows
        for row, entries in enumerate(rows):
            for entry in (e for e in entries if e.weight != 0):
                for path, adapter in adapters_of(entry.concept).items():
                    if isinstance(adapter, Hadamard):
                        made = whole.get(id(adapter)) or Whole(adapter.delta())
                        adapter = whole[id(adapter)] = made
                    self.uses.setdefault(path, []).append(Use(row, adapter, entry.weight))

    @contextmanager
    def applied(self, model: nn.Module, prefix: str) -> Iterator[None]:
        """Inside, the layers of ``model``, named with ``prefix``, add what their rows' adapters do.

        Layers take their input as [rows, ...].
        """
        with ExitStack() as hooks:
            layers = layers_of(model, prefix) if self.uses else {}
            for path in self.uses.keys() & layers.keys():
                handle = layers[path].register_forward_hook(_Hook(self.uses[path]))
                hooks.callback(handle.remove)
            yield


class _Hook:
    """Adds to a layer's output what the adapters of its rows change."""

    def __init__(self, uses: Sequence[Use]) -> None:
        self.uses = uses

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        for group in _groups(self.uses):
            rows = [use.row for use in group]
            if rows == list(range(len(output))) and not _is_trained(group[0].adapter):
                output = output + _product(layer, args[0], group)
            else:  # in a training always: its numbers then lie alike, alone and beside others
                index = to_device(torch.tensor(rows), output.device)
                part = _product(layer, args[0][index], group)
                output = output.index_add(0, index, part)
        return output


def _groups(uses: Sequence[Use]) -> list[list[Use]]:
    """``uses`` by kind, shapes and place in their row.

    A row's second adapter is in another group than its first: so a group has each row once, and
    the sum of a row's adapters has one order, which gives the same bits each time.
    """
    places: dict[int, int] = {}
    groups: dict[tuple[object, ...], list[Use]] = {}
    for use in uses:
        place = places[use.row] = places.get(use.row, -1) + 1
        key = (place, type(use.adapter), _shapes(use.adapter))
        groups.setdefault(key, []).append(use)
    return list(groups.values())


def _is_trained(adapter: Adapter) -> bool:
    return torch.is_grad_enabled() and any(f.requires_grad for f in adapter.factors.values())


def _shapes(adapter: Adapter) -> object:
    """What must be equal for adapters to be stacked; ranks are rounded up to powers of two."""
    if isinstance(adapter, LowRank):
        return _rounded(adapter.up.shape[1])
    return tuple(tuple(factor.shape) for factor in adapter.factors.values())


def _rounded(rank: int) -> int:
    return 1 << max(0, rank - 1).bit_length()


def _product(layer: Layer, x: Tensor, group: Sequence[Use]) -> Tensor:
    """The change s dW x for each row of ``x`` [rows, ...] by the use in its place."""
    first = group[0].adapter
    if isinstance(first, LowRank):
        rank = _rounded(first.up.shape[1])
        down = _stacked(x, group, [_padded(u.adapter.factors["down"], 0, rank) for u in group])
        up = _stacked(x, group, [_padded(u.adapter.factors["up"], 1, rank) for u in group], True)
        return _mixed(layer, _layer(layer, x, down), up)
    if isinstance(first, Kronecker):
        left = _stacked(x, group, [u.adapter.factors["left"] for u in group], True)
        right = _stacked(x, group, [u.adapter.factors["right"] for u in group])
        return _kronecker(layer, x, left, right)
    return _layer(layer, x, _stacked(x, group, [u.adapter.factors["weight"] for u in group], True))


def _padded(factor: Tensor, axis: int, rank: int) -> Tensor:
    """``factor`` with zeros along ``axis`` up to ``rank``."""
    missing = rank - factor.shape[axis]
    if not missing:
        return factor
    return F.pad(factor, (0, 0) * (factor.ndim - 1 - axis) + (0, missing))


def _stacked(
    x: Tensor, group: Sequence[Use], factors: list[Tensor], scaled: bool = False
) -> Tensor:
    """``factors`` as one tensor [rows, ...] where ``x`` is; [1, ...] if all rows use the same.

    In a training each row has its own product and gradient even so: the same bits alone and beside
    others. scaled: times each use's weight and its adapter's scale.
    """
    numbers = [u.weight * u.adapter.scale if scaled else 1.0 for u in group]
    same = all(u.adapter is group[0].adapter for u in group) and len(set(numbers)) == 1
    if same and not _is_trained(group[0].adapter):
        factors, numbers = factors[:1], numbers[:1]
    moved = [to_device(f, x.device).to(x.dtype) for f in factors]
    return torch.stack([f if n == 1 else f * n for f, n in zip(moved, numbers, strict=True)])


def _layer(layer: Layer, x: Tensor, weight: Tensor) -> Tensor:
    """``layer`` without bias on ``x`` [rows, ...], with a weight for each row or one for all.

    weight: [rows or 1, out, in] or [rows or 1, out, in, kh, kw].
    """
    shared = len(weight) < len(x)
    if isinstance(layer, nn.Linear):
        if shared:
            return F.linear(x, weight[0])
        return torch.bmm(x.reshape(len(x), -1, x.shape[-1]), weight.mT).view(*x.shape[:-1], -1)
    if layer.kernel_size == layer.stride == (1, 1) and layer.padding in ((0, 0), 0):
        return _mixed(layer, x, weight.flatten(2))
    if shared:
        return F.conv2d(x, weight[0], None, layer.stride, layer.padding, layer.dilation)
    if len(x) == 1:  # as two, for which torch takes the kernel of any number of groups
        return _layer(layer, x.expand(2, -1, -1, -1), weight.expand(2, -1, -1, -1, -1))[:1]
    rows = len(x)  # each row is a group of channels of one picture
    out = F.conv2d(
        x.reshape(1, -1, *x.shape[2:]),
        weight.flatten(0, 1),
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        groups=rows,
    )
    return out.view(rows, -1, *out.shape[2:])


def _mixed(layer: Layer, x: Tensor, weight: Tensor) -> Tensor:
    """``weight`` [rows or 1, out, in] on the features of ``x``, those of ``layer``'s output."""
    if isinstance(layer, nn.Linear):
        return _layer(layer, x, weight)
    return (weight @ x.flatten(2)).unflatten(2, x.shape[2:])


def _kronecker(layer: Layer, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(left (x) right) x, by the two factors one after the other.

    With x as [b, d] (in = b d), (left (x) right) x = left X right^T, [a, c] (out = a c).
    left: [rows or 1, a, b]; right: [rows or 1, c, d], or with a kernel.
    """
    rows, (b, d) = len(x), (left.shape[2], right.shape[2])
    if isinstance(layer, nn.Linear):
        inner = _layer(layer, x.reshape(rows, -1, d), right).view(rows, -1, b, right.shape[1])
        return (left[:, None] @ inner).flatten(2).view(*x.shape[:-1], -1)
    shared = len(right) == 1  # else b pictures, in each the d channels of every row
    parts = x.unflatten(1, (b, d))
    folded = parts.flatten(0, 1) if shared else parts.transpose(0, 1).flatten(1, 2)
    weight = right[0] if shared else right.flatten(0, 1)
    groups = 1 if shared else rows
    out = F.conv2d(folded, weight, None, layer.stride, layer.padding, layer.dilation, groups)
    size = out.shape[2:]
    inner = out.view(rows, b, -1) if shared else out.view(b, rows, -1).transpose(0, 1)
    mixed = left @ inner  # [rows, a, c h w]
    return mixed.view(rows, -1, *size)
