"""Adapters: small changes of single layers, kept as factors. LoRA, LoCon, LoHa, LoKr.

``row_adapters`` applies them to the rows of a forward.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from customedit.diffusion.devices import to_device

UNET: Final = "unet."
TRANSFORMER: Final = "transformer."
TEXT_ENCODER: Final = "text_encoder."
"""Prefixes of the module paths that adapters are kept under."""

PARTS: Final = (UNET, TRANSFORMER, TEXT_ENCODER, "text_encoder_2.", "text_encoder_3.")
"""All such prefixes."""


@dataclass(frozen=True, eq=False)
class Adapter(abc.ABC):
    """A change dW of one layer's weight [out, in] or [out, in, kh, kw], kept as factors.

    Subclasses are dataclasses of their factors; ``scale`` multiplies dW (alpha / rank of the
    file that it comes from), and stays a number so that the factors keep their bits.

    Raises ValueError for factors whose shapes do not go together.
    """

    scale: float = dataclasses.field(default=1.0, kw_only=True)

    @abc.abstractmethod
    def delta(self) -> Tensor:
        """dW, ``scale`` included, in float32 or wider; differentiable in the factors."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of dW: (out, in) or (out, in, kh, kw)."""

    @property
    def factors(self) -> dict[str, Tensor]:
        """The tensors it is kept as, by the names of its fields."""
        fields = (f.name for f in dataclasses.fields(self) if f.name != "scale")
        return {name: getattr(self, name) for name in fields}

    @property
    def numbers(self) -> int:
        """How many numbers the factors have."""
        return sum(t.numel() for t in self.factors.values())

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """The same with its factors on ``device``; itself if they are so already.

        dtype: of the factors, None for the one that each has.
        """
        factors = self.factors
        if all(t.device == device and t.dtype == (dtype or t.dtype) for t in factors.values()):
            return self
        moved: dict[str, Any] = {
            n: to_device(t, device).to(dtype or t.dtype) for n, t in factors.items()
        }
        return dataclasses.replace(self, **moved)


@dataclass(frozen=True, eq=False)
class LowRank(Adapter):
    """dW = scale up down: LoRA (arXiv 2106.09685); with a kernel in ``down`` LoCon.

    up: [out, r]; down: [r, in] or [r, in, kh, kw].
    """

    up: Tensor
    down: Tensor

    def __post_init__(self) -> None:
        _check(_pair(self.up, self.down), self)

    def delta(self) -> Tensor:
        """Scale up down."""
        up, down = _wide(self.up), _wide(self.down)
        return self.scale * (up @ down.flatten(1)).unflatten(1, self.down.shape[1:])

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in) or (out, in, kh, kw)."""
        return (self.up.shape[0], *self.down.shape[1:])


@dataclass(frozen=True, eq=False)
class Hadamard(Adapter):
    """dW = scale (up1 down1) * (up2 down2), element by element: LoHa (arXiv 2108.06098).

    up1, up2: [out, r1] and [out, r2]; down1, down2: [r1, in] and [r2, in], or with a kernel.
    """

    up1: Tensor
    down1: Tensor
    up2: Tensor
    down2: Tensor

    def __post_init__(self) -> None:
        fits = _pair(self.up1, self.down1) and _pair(self.up2, self.down2)
        alike = fits and self.down1.shape[1:] == self.down2.shape[1:]
        _check(alike and len(self.up1) == len(self.up2), self)

    def delta(self) -> Tensor:
        """Scale (up1 down1) * (up2 down2)."""
        one = _wide(self.up1) @ _wide(self.down1).flatten(1)
        two = _wide(self.up2) @ _wide(self.down2).flatten(1)
        return self.scale * (one * two).unflatten(1, self.down1.shape[1:])

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in) or (out, in, kh, kw)."""
        return (self.up1.shape[0], *self.down1.shape[1:])

    def low_rank(self) -> LowRank:
        """The same dW with rank r1 r2.

        (A B) * (C D) = (A | C) (B | D), where | pairs every column of the one with every column of
        the other (the Khatri-Rao product), and likewise rows.
        """
        up = (self.up1[:, :, None] * self.up2[:, None]).flatten(1)
        down = (self.down1[:, None] * self.down2[None]).flatten(0, 1)
        return LowRank(up, down, scale=self.scale)


@dataclass(frozen=True, eq=False)
class Kronecker(Adapter):
    """dW = scale left (x) right, the Kronecker product: LoKr.

    left: [a, b]; right: [c, d] or [c, d, kh, kw]; dW has out = a c and in = b d.
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        _check(self.left.ndim == 2 and self.right.ndim in (2, 4), self)

    def delta(self) -> Tensor:
        """Scale left (x) right."""
        left = _wide(self.left)[(...,) + (None,) * (self.right.ndim - 2)]
        return self.scale * torch.kron(left, _wide(self.right).contiguous())

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in) or (out, in, kh, kw)."""
        (a, b), (c, d) = self.left.shape, self.right.shape[:2]
        return (a * c, b * d, *self.right.shape[2:])


@dataclass(frozen=True, eq=False)
class Whole(Adapter):
    """dW = scale weight, the change itself: [out, in] or [out, in, kh, kw]."""

    weight: Tensor

    def __post_init__(self) -> None:
        _check(self.weight.ndim in (2, 4), self)

    def delta(self) -> Tensor:
        """Scale weight."""
        return self.scale * _wide(self.weight)

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in) or (out, in, kh, kw)."""
        return tuple(self.weight.shape)


def untrained_change(weight: Tensor, rank: int, generator: torch.Generator) -> LowRank:
    """A change of ``weight`` [out, in] that is none yet, its factors leaves, float32 beside it.

    Up is zero and down at random, as LoRA begins; the rank is at most the weight's.
    """
    out, width = weight.shape
    rank = min(rank, out, width)
    down = torch.randn((rank, width), generator=generator) / math.sqrt(width)
    up = torch.zeros((out, rank), device=weight.device)
    return LowRank(up.requires_grad_(True), down.to(weight.device).requires_grad_(True))


KINDS: Final[dict[str, type[Adapter]]] = {
    "low-rank": LowRank,
    "hadamard": Hadamard,
    "kronecker": Kronecker,
    "whole": Whole,
}
"""What each kind is called in a concept's file."""


@runtime_checkable
class Adapted(Protocol):
    """What carries adapters: a concept."""

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """Path of a module, with ``UNET`` or ``TEXT_ENCODER`` before it, to its adapter."""


def adapters_of(customization: object) -> Mapping[str, Adapter]:
    """The adapters of ``customization``, none if it is of a kind that carries none."""
    return customization.adapters if isinstance(customization, Adapted) else {}


def layers_of(model: nn.Module, prefix: str) -> dict[str, nn.Linear | nn.Conv2d]:
    """The modules of ``model`` that can have adapters, by their paths after ``prefix``.

    The text encoder's paths begin at ``encoder.``, whether transformers has ``text_model.``
    before it (4.x) or not (5.x).
    """
    return {
        prefix + name.removeprefix("text_model."): module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def _pair(up: Tensor, down: Tensor) -> bool:
    """Whether ``up`` [out, r] and ``down`` [r, in] or [r, in, kh, kw] go together."""
    return up.ndim == 2 and down.ndim in (2, 4) and up.shape[1] == down.shape[0]


def _check(fits: bool, adapter: Adapter) -> None:
    """Raise ValueError unless ``fits`` and the factors are floats that are not empty."""
    factors = adapter.factors.values()
    if not fits or not all(f.is_floating_point() and f.numel() for f in factors):
        shapes = {n: tuple(f.shape) for n, f in adapter.factors.items()}
        raise ValueError(f"factors of a {type(adapter).__name__} do not go together: {shapes}")


def _wide(tensor: Tensor) -> Tensor:
    """``tensor`` in float32 or wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
