"""Changes of layers that are one in a file and several in the base.

Rows of a change dW [out, in] are what single outputs change, so a part of the rows is a change of
the same kind with a part of its factors: nothing is multiplied out, but where a Kronecker product's
blocks do not end where the layers do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from customedit.diffusion.adapters import Adapter, Hadamard, Kronecker, LowRank, Whole


def split(adapter: Adapter, sizes: Sequence[int]) -> list[Adapter]:
    """The changes of layers with ``sizes`` outputs, whose rows follow each other in ``adapter``.

    Raises ValueError unless the sizes add up to the adapter's outputs.
    """
    if sum(sizes) != adapter.shape[0]:
        raise ValueError(f"{adapter.shape[0]} rows for layers of {list(sizes)}")
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [rows(adapter, end - size, end) for end, size in zip(ends, sizes, strict=True)]


def rows(adapter: Adapter, start: int, stop: int) -> Adapter:
    """The change of outputs ``start`` to ``stop`` alone."""
    part = slice(start, stop)
    if (start, stop) == (0, adapter.shape[0]):
        return adapter
    if isinstance(adapter, LowRank):
        return dataclasses.replace(adapter, up=adapter.up[part].contiguous())
    if isinstance(adapter, Hadamard):
        return dataclasses.replace(
            adapter, up1=adapter.up1[part].contiguous(), up2=adapter.up2[part].contiguous()
        )
    if isinstance(adapter, Whole):
        return dataclasses.replace(adapter, weight=adapter.weight[part].contiguous())
    assert isinstance(adapter, Kronecker)
    block = adapter.right.shape[0]
    if start % block == 0 and stop % block == 0:
        left = adapter.left[start // block : stop // block]
        return dataclasses.replace(adapter, left=left.contiguous())
    return Whole(adapter.delta()[part].contiguous())


def swapped(adapter: Adapter) -> Adapter:
    """The same change with the two halves of its rows exchanged."""
    half = adapter.shape[0] // 2
    first, second = rows(adapter, 0, half), rows(adapter, half, adapter.shape[0])
    return _joined(second, first)


def _joined(first: Adapter, second: Adapter) -> Adapter:
    """Two changes of one kind, whose other factors are the same, with their rows together."""
    if isinstance(first, LowRank) and isinstance(second, LowRank):
        return dataclasses.replace(first, up=torch.cat([first.up, second.up]))
    if isinstance(first, Hadamard) and isinstance(second, Hadamard):
        ups = (torch.cat(pair) for pair in ((first.up1, second.up1), (first.up2, second.up2)))
        return dataclasses.replace(first, up1=next(ups), up2=next(ups))
    if isinstance(first, Kronecker) and isinstance(second, Kronecker):
        return dataclasses.replace(first, left=torch.cat([first.left, second.left]))
    return Whole(torch.cat([first.delta(), second.delta()]))
