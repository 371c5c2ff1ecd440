"""An optimizer goes on from a checkpoint as it would have gone on, whichever way it computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from customedit.concepts import checkpoint


def optimizer_of(leaves: dict[str, Tensor], fused: bool) -> torch.optim.AdamW:
    return torch.optim.AdamW(list(leaves.values()), 0.1, foreach=False, fused=fused)


def take_steps(
    leaves: dict[str, Tensor], optimizer: torch.optim.AdamW, first: int, last: int
) -> None:
    for number in range(first, last):
        for k, leaf in enumerate(leaves.values()):
            leaf.grad = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(number + k))
        optimizer.step()


@pytest.mark.parametrize("fused", [False, True])
def test_steps_after_a_checkpoint_are_the_same_bits(fused: bool, tmp_path: Path) -> None:
    def fresh() -> dict[str, Tensor]:
        return {"a": torch.ones(3, 4, requires_grad=True), "b": torch.ones(5, requires_grad=True)}

    straight, path, about = fresh(), tmp_path / "checkpoint.safetensors", {"name": "test"}
    optimizer = optimizer_of(straight, fused)
    take_steps(straight, optimizer, 0, 2)
    checkpoint.save(path, straight, optimizer, 2, about)
    take_steps(straight, optimizer, 2, 5)
    resumed = fresh()
    other = optimizer_of(resumed, fused)
    assert checkpoint.load(path, resumed, other, about) == 2
    take_steps(resumed, other, 2, 5)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
