"""Changes that are one in a file and several in the base: cut, and turned round, to the formula."""

from __future__ import annotations

import pytest
import torch

from customedit.concepts.files.stacked import split, swapped
from customedit.diffusion.adapters import Adapter, Hadamard, Kronecker, LowRank, Whole

OUT, IN = 12, 5


def adapters() -> dict[str, Adapter]:
    g = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g)

    return {
        "LoRA": LowRank(randn(OUT, 2), randn(2, IN), scale=0.5),
        "LoHa": Hadamard(randn(OUT, 2), randn(2, IN), randn(OUT, 3), randn(3, IN), scale=2.0),
        "LoKr": Kronecker(randn(6, 1), randn(2, IN), scale=0.25),
        "LoKr across": Kronecker(randn(3, 1), randn(4, IN), scale=0.25),
        "full": Whole(randn(OUT, IN), scale=3.0),
    }


@pytest.mark.parametrize("sizes", [[12], [4, 4, 4], [2, 6, 4], [6, 6]])
@pytest.mark.parametrize("kind", adapters())
def test_a_stack_is_cut_into_its_layers(kind: str, sizes: list[int]) -> None:
    adapter = adapters()[kind]
    parts = split(adapter, sizes)
    assert [p.shape for p in parts] == [(size, IN) for size in sizes]
    torch.testing.assert_close(torch.cat([p.delta() for p in parts]), adapter.delta())
    if kind != "LoKr across":
        assert all(type(p) is type(adapter) for p in parts)


@pytest.mark.parametrize("kind", adapters())
def test_halves_are_exchanged(kind: str) -> None:
    adapter = adapters()[kind]
    one, two = adapter.delta().chunk(2)
    torch.testing.assert_close(swapped(adapter).delta(), torch.cat([two, one]))


def test_layers_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="12 rows"):
        split(adapters()["LoRA"], [4, 4])
