"""A pretended device: tensors that say they are elsewhere and go with nothing that is on the CPU.

Where no GPU is, this finds what a GPU would refuse: every operation on a foreign tensor is done on
the CPU, after a look whether all tensors that it takes are foreign (single numbers may be the
CPU's, as for a GPU). It also counts what would make the CPU wait for the device (``waits``), and
who moves tensors there (``arrivals``: all but ``devices.to_device`` wait).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("lazy")
"""A device that this build of torch knows by name alone."""

_MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
_WAITS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.is_nonzero.default,
}


class Foreign(Tensor):
    """A tensor of the pretended device; ``held`` is its numbers on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> Foreign:
        made = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=DEVICE, requires_grad=requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Foreign({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own stub lacks the decorator
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} on a foreign tensor outside of foreign.device()")


class _Mode(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: Counter[str] = Counter()
        self.arrivals: Counter[str] = Counter()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        foreign = [t for t in tensors if isinstance(t, Foreign)]
        asked = kwargs.get("device")
        made_there = asked is not None and torch.device(asked).type == DEVICE.type
        if func not in _MOVES and foreign:
            self.operations += 1
            strays = [t for t in tensors if not isinstance(t, Foreign) and t.ndim > 0]
            if strays:
                sizes = [tuple(t.shape) for t in strays]
                raise RuntimeError(f"{func} of a foreign tensor and the CPU's {sizes}")
        if foreign and func in _WAITS:
            self.waits[str(func)] += 1
        home = asked is not None and not made_there
        if foreign and func in _MOVES and (home or not isinstance(args[0], Foreign)):
            self.waits["to the CPU"] += 1
        if made_there and func in _MOVES and not foreign:
            self.arrivals[_mover()] += 1
        if made_there:
            kwargs["device"] = torch.device("cpu")
        plain_args, plain_kwargs = tree_map_only(Foreign, lambda t: t.held, (args, kwargs))
        out = func(*plain_args, **plain_kwargs)
        if func in _WAITS and func is not torch.ops.aten.nonzero.default:
            return out
        if made_there or (foreign and not home):
            if func._schema.name.endswith("_") and foreign:  # in place: the same tensor again
                return args[0]
            return tree_map_only(Tensor, Foreign, out)
        return out


def _mover() -> str:
    """The function of ours that moves a tensor to the device."""
    frame = sys._getframe()
    while frame.f_back is not None and "/customedit/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"


@contextmanager
def device() -> Iterator[_Mode]:
    """Inside, ``DEVICE`` can be computed on."""
    with _Mode() as mode:
        yield mode
