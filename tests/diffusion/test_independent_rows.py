"""Rows have the same bits whatever other rows there are, and are what plain layers give."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from customedit.diffusion.base import Base
from customedit.diffusion.independent_rows import RowConv2d, RowLinear, make_rows_independent

ROWS = 18  # torch takes other kernels from 2 and from 16 rows on
LAYERS = {
    "time": (nn.Linear(384, 192), (384,)),
    "time without bias": (nn.Linear(96, 384, bias=False), (96,)),
    "1 x 1": (nn.Conv2d(96, 192, 1), (96, 8, 8)),
    "1 x 1 without bias": (nn.Conv2d(96, 64, 1, bias=False), (96, 8, 8)),
    "3 x 3": (nn.Conv2d(96, 96, 3, padding=1), (96, 8, 8)),
    "halved": (nn.Conv2d(96, 96, 3, stride=2, padding=1), (96, 16, 16)),
    "first": (nn.Conv2d(8, 96, 3, padding=1), (8, 16, 16)),
}


def both(layer: nn.Module, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the gradient in x of its product with ``weight``."""
    x = x.detach().clone().requires_grad_(True)
    out = layer(x)
    (found,) = torch.autograd.grad((out * weight).sum(), x)
    return out.detach(), found


@pytest.mark.parametrize("name", LAYERS)
def test_a_row_alone_has_the_bits_of_one_among_others(name: str) -> None:
    plain, shape = LAYERS[name]
    plain.requires_grad_(False)
    layer = nn.Sequential(copy.deepcopy(plain))
    make_rows_independent(layer)
    assert isinstance(layer[0], RowLinear | RowConv2d)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, *shape, generator=generator)
    weight = torch.randn(plain(x).shape, generator=generator)
    wanted, gradient = both(plain, x, weight)
    found, own = both(layer, x, weight)
    assert (found - wanted).abs().max() <= 1e-5 and (own - gradient).abs().max() <= 1e-5
    for rows in (1, 2, 5):
        some, of_some = both(layer, x[:rows], weight[:rows])
        assert torch.equal(some, found[:rows]) and torch.equal(of_some, own[:rows])
        with torch.no_grad():
            assert torch.equal(layer(x[:rows]), found[:rows])


def test_layers_that_are_trained_are_plain_ones() -> None:
    x = torch.randn(3, 8, 4, 4)
    conv = nn.Conv2d(8, 8, 1)
    wanted = conv(x)
    make_rows_independent(nn.Sequential(conv))
    assert isinstance(conv, RowConv2d) and torch.equal(conv(x), wanted)


def test_a_forward_of_the_base_gives_a_row_alike_alone_and_among_others(base: Base) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(ROWS, base.channels, 16, 16, generator=generator)
    times = torch.linspace(5, 900, ROWS).long()
    texts = [base.text("a photo of a cup")] * ROWS

    def output(rows: int) -> Tensor:
        with torch.no_grad():
            return base.output(latents[:rows], times[:rows], texts[:rows])[0]

    among = output(ROWS)
    for rows in (1, 2, 3):
        assert (output(rows) - among[:rows]).abs().max() <= 1e-6
