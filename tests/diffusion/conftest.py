"""The bundled base, loaded once, and concepts of random changes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from customedit.diffusion.base import Base


@dataclass(frozen=True)
class Change:
    """A customization as ``text.Customization`` asks for it."""

    tokens: dict[str, Tensor]
    keys: dict[str, Tensor]
    values: dict[str, Tensor]


def change(base: Base, token: str, seed: int, size: float = 0.05) -> Change:
    """Random changes of every key and value weight, and a random embedding."""
    generator = torch.Generator().manual_seed(seed)

    def moved(name: str) -> Tensor:
        weight = base.weights[name].float()
        return weight + size * torch.randn(weight.shape, generator=generator)

    keys = {n: moved(f"{n}.to_k.weight") for n in base.layers}
    values = {n: moved(f"{n}.to_v.weight") for n in base.layers}
    return Change({token: torch.randn(base.width, generator=generator) * 0.02}, keys, values)


@pytest.fixture(scope="session")
def base() -> Base:
    return Base.load()


@pytest.fixture(scope="session")
def latents(base: Base) -> Tensor:
    return torch.randn((3, base.channels, 16, 16), generator=torch.Generator().manual_seed(1))
