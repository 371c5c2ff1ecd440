"""Row adapters: rows with different adapters in one forward, against models with weights put in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from customedit.concepts.concept import Concept
from customedit.diffusion.adapters import (
    UNET,
    Adapter,
    Hadamard,
    Kronecker,
    LowRank,
    Whole,
    adapters_of,
    layers_of,
)
from customedit.diffusion.base import Base
from customedit.diffusion.row_adapters import RowAdapters
from customedit.diffusion.text import TextContext, Weighted

Random = Callable[..., Tensor]


@dataclass(frozen=True)
class Carrier:
    """Adapters alone, in the place of a concept."""

    adapters: Mapping[str, Adapter]
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    keys: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Tensor] = field(default_factory=dict)


def random_of(seed: int) -> Random:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def lora(shape: tuple[int, ...], randn: Random, rank: int = 4, scale: float = 0.5) -> LowRank:
    out, *into = shape
    return LowRank(randn(out, rank) * 0.1, randn(rank, *into) * 0.1, scale=scale)


def loha(shape: tuple[int, ...], randn: Random, rank: int = 2) -> Hadamard:
    out, *into = shape
    parts = [randn(out, rank), randn(rank, *into), randn(out, rank), randn(rank, *into)]
    return Hadamard(*(p * 0.2 for p in parts), scale=0.25)


def lokr(shape: tuple[int, ...], randn: Random, factor: int = 4) -> Kronecker:
    out, into, *kernel = shape
    left, right = randn(factor, factor), randn(out // factor, into // factor, *kernel)
    return Kronecker(left * 0.1, right * 0.1, scale=2.0)


MAKERS: dict[str, Callable[[tuple[int, ...], Random], Adapter]] = {
    "lora": lora,
    "lora of another rank": lambda s, r: lora(s, r, rank=3),
    "loha": loha,
    "lokr": lokr,
    "whole": lambda s, r: Whole(r(*s) * 0.05),
}
LAYERS: dict[str, nn.Linear | nn.Conv2d] = {
    "linear": nn.Linear(12, 8),
    "convolution": nn.Conv2d(12, 8, 3, padding=1),
    "strided": nn.Conv2d(12, 8, 3, stride=2, padding=1),
    "pointwise": nn.Conv2d(12, 8, 1),
}


def dense(adapter: Adapter) -> Tensor:
    """dW from the definitions, without the code under test."""
    parts = [t.double() for t in adapter.factors.values()]
    flat = [p.flatten(1) for p in parts]
    if isinstance(adapter, LowRank):
        made = flat[0] @ flat[1]
    elif isinstance(adapter, Hadamard):
        made = (flat[0] @ flat[1]) * (flat[2] @ flat[3])
    elif isinstance(adapter, Kronecker):
        left, right = parts
        made = torch.einsum("ab,cd...->acbd...", left, right)
    else:
        made = flat[0]
    return adapter.scale * made.reshape(adapter.shape)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", LAYERS)
def test_delta_is_the_published_formula(kind: str, name: str) -> None:
    shape = tuple(LAYERS[name].weight.shape)
    adapter = MAKERS[kind](shape, random_of(1))
    assert adapter.shape == shape
    torch.testing.assert_close(adapter.delta(), dense(adapter))
    if isinstance(adapter, Hadamard):
        torch.testing.assert_close(adapter.low_rank().delta(), dense(adapter))


@pytest.mark.parametrize("name", LAYERS)
def test_each_row_has_its_own_adapters_on_every_kind_of_layer(name: str) -> None:
    layer = copy.deepcopy(LAYERS[name]).double()
    model = nn.ModuleDict({"x": layer})
    shape, randn = tuple(layer.weight.shape), random_of(2)
    one, two, three, four, five = ({"m.x": MAKERS[kind](shape, randn)} for kind in MAKERS)
    again = {"m.x": lora(shape, randn)}
    rows: list[list[Weighted]] = [
        [],
        [Weighted(Carrier(one))],
        [Weighted(Carrier(two), 0.5), Weighted(Carrier(three), 1.5)],
        [Weighted(Carrier(four))],
        [Weighted(Carrier(five), 0.7), Weighted(Carrier(one)), Weighted(Carrier(again))],
        [Weighted(Carrier(one))],
        [Weighted(Carrier(four), 0.3)],
        [Weighted(Carrier(three))],
    ]
    x = randn(len(rows), 5, 12) if isinstance(layer, nn.Linear) else randn(len(rows), 12, 6, 7)
    with RowAdapters(rows).applied(model, "m."):
        found = layer(x)
    for row, entries in enumerate(rows):
        weight = layer.weight + sum(
            e.weight * dense(adapters_of(e.concept)["m.x"]) for e in entries
        )
        if isinstance(layer, nn.Linear):
            wanted = F.linear(x[row], weight, layer.bias)
        else:
            wanted = F.conv2d(x[row][None], weight, layer.bias, layer.stride, layer.padding)[0]
        torch.testing.assert_close(found[row], wanted)
    assert torch.equal(layer(x[:1]), found[:1])  # the row without any, and nothing stays behind


def test_rows_with_the_same_adapter_and_flat_input() -> None:
    """Time embeddings are [rows, width]; equal rows share one product."""
    layer = nn.Linear(12, 8).double()
    for kind in MAKERS:
        adapter = MAKERS[kind]((8, 12), random_of(3))
        entry = [Weighted(Carrier({"x": adapter}), 0.5)]
        x = random_of(4)(3, 12)
        with RowAdapters([entry] * 3).applied(nn.ModuleDict({"x": layer}), ""):
            found = layer(x)
        wanted = F.linear(x, layer.weight + 0.5 * dense(adapter), layer.bias)
        torch.testing.assert_close(found, wanted)


def test_the_hooks_go_when_a_forward_fails() -> None:
    layer = nn.Linear(12, 8)
    entry = [Weighted(Carrier({"x": lora((8, 12), random_of(1))}))]
    with (
        pytest.raises(RuntimeError, match="shape"),
        RowAdapters([entry]).applied(nn.ModuleDict({"x": layer}), ""),
    ):
        layer(torch.ones(1, 3))
    assert not layer._forward_hooks


# on the bundled base


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


def on_layers(
    base: Base,
    make: Callable[[tuple[int, ...], Random], Adapter],
    seed: int,
    *,
    linear: bool,
    text: bool,
) -> dict[str, Adapter]:
    """Adapters of half of the linear layers, or half of the convolutions, and of the text."""
    randn = random_of(seed)
    layers = base.family.adaptable if text else layers_of(base.denoiser, UNET)
    chosen = [n for n, m in layers.items() if isinstance(m, nn.Linear) == linear][seed % 2 :: 2]
    made = {n: make(tuple(layers[n].weight.shape), randn) for n in chosen}
    return {n: a.to(base.device, torch.float32) for n, a in made.items()}


def put_in(base: Base, entries: list[Weighted]) -> Base:
    """A base of its own with the adapters' and the concepts' changes in its weights."""
    family, layout = base.family, base.family.layout
    parts = {n: part for n, part in base.pipeline.components.items() if part is not None}
    for name in (layout.denoiser, *(encoder.part for encoder in layout.encoders)):
        parts[name] = copy.deepcopy(parts[name])
    options = {name: base.pipeline.config[name] for name in layout.options}
    pipeline = family.assemble(parts, options)
    models = type(family)(pipeline).adaptable
    with torch.no_grad():
        for entry in entries:
            for layer, weight in (
                *((f"{UNET}{n}.to_k", w) for n, w in entry.concept.keys.items()),
                *((f"{UNET}{n}.to_v", w) for n, w in entry.concept.values.items()),
            ):
                own = base.weights[f"{layer.removeprefix(UNET)}.weight"]
                models[layer].weight += entry.weight * (weight - own)
            for path, adapter in adapters_of(entry.concept).items():
                models[path].weight += entry.weight * dense(adapter).float()
    return Base.wrap(pipeline, "put in")


def trained_like(base: Base) -> Concept:
    randn = random_of(9)

    def part(name: str) -> dict[str, Tensor]:
        own = {n: base.weights[f"{n}.{name}.weight"] for n in base.layers}
        return {n: w + 0.05 * randn(*w.shape).float() for n, w in own.items()}

    return Concept({"<a>": torch.zeros(base.width)}, part("to_k"), part("to_v"))


def test_rows_of_different_adapters_equal_models_with_the_weights_put_in(base: Base) -> None:
    a = trained_like(base)
    b = Carrier(on_layers(base, lora, 0, linear=True, text=True))
    c = Carrier(on_layers(base, lora, 1, linear=False, text=False))
    d = Carrier(on_layers(base, lora, 1, linear=True, text=False))
    ha = Carrier(on_layers(base, loha, 0, linear=False, text=False))
    kr = Carrier(on_layers(base, lokr, 0, linear=True, text=True))
    rows: list[list[Weighted]] = [
        [],
        [Weighted(a)],
        [Weighted(b)],
        [Weighted(c)],
        [Weighted(b, 0.5), Weighted(d)],
        [Weighted(ha), Weighted(kr, 1.5)],
        [Weighted(a, 0.5), Weighted(c)],
    ]
    prompt, x = "a photo of a red cup", random_of(5)(len(rows), base.channels, 16, 16).float()
    contexts = [base.text(prompt, entries, everywhere=True) for entries in rows]
    times = torch.tensor([900, 700, 501, 501, 300, 100, 20])
    with torch.no_grad():
        found, _ = base.output(x, times, contexts)
        plain, _ = base.output(x, times, [base.text(prompt)] * len(rows))
        for row, entries in enumerate(rows):
            model = put_in(base, entries)
            wanted, _ = model.output(x[row : row + 1], times[row : row + 1], [model.text(prompt)])
            assert (found[row] - wanted[0]).abs().max() <= 1e-5
            moved = float((found[row] - plain[row]).abs().max())
            assert moved > 1e-2 if entries else moved <= 1e-6


def test_it_is_differentiable(base: Base) -> None:
    path = f"{UNET}mid_block.resnets.0.conv1"
    shape = layers_of(base.denoiser, UNET)[path].weight.shape
    adapter = lora(tuple(shape), random_of(1)).to(base.device, torch.float32)
    other = lora(tuple(shape), random_of(2)).to(base.device, torch.float32)
    for factor in (*adapter.factors.values(), *other.factors.values()):
        factor.requires_grad_(True)
    rows = [[Weighted(Carrier({path: adapter}))], [Weighted(Carrier({path: other}))]]
    contexts: list[TextContext] = [base.text("a cup", r, everywhere=True) for r in rows]
    x = random_of(3)(2, base.channels, 16, 16).float()
    output, _ = base.output(x, 501, contexts)
    output[0].square().mean().backward()
    assert adapter.up.grad is not None and adapter.up.grad.abs().max() > 0
    assert other.up.grad is not None and not other.up.grad.any()  # another row's loss
