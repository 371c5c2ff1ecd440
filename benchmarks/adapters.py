"""Rows with adapters in one forward: none, one adapter for all rows, or one for each.

    python benchmarks/adapters.py [--base mini] [--rows 16] [--rank 8] [--device cpu]

Prints the median time of a forward and the throughput of the third against the second, and the
same for LoRA on linear layers alone, and for LoCon on convolutions as well. The three are measured
in turn, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from customedit.diffusion.adapters import UNET, Adapter, LowRank, layers_of
from customedit.diffusion.base import Base
from customedit.diffusion.text import TextContext, Weighted


@dataclass(frozen=True)
class Carrier:
    """Adapters alone, in the place of a concept."""

    adapters: dict[str, Adapter]
    tokens: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)


def make_adapters(base: Base, rank: int, seed: int, convolutions: bool) -> Carrier:
    """Random adapters of every linear layer of the UNet, and of its convolutions if asked for."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Adapter] = {}
    for path, layer in layers_of(base.denoiser, UNET).items():
        if convolutions or isinstance(layer, nn.Linear):
            out, *into = layer.weight.shape
            up = torch.randn(out, rank, generator=generator) * 0.01
            down = torch.randn(rank, *into, generator=generator) * 0.01
            found[path] = LowRank(up, down).to(base.device, base.dtype)
    return Carrier(found)


def forward_seconds(base: Base, latents: Tensor, context: list[TextContext]) -> float:
    """Of one forward."""
    start = time.perf_counter()
    with torch.no_grad():
        base.predict(latents, 501, context)
    if base.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    base = Base.load(asked.base, device=asked.device)
    cells = base.side // base.factor
    shape = (asked.rows, base.channels, cells, cells)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(base.device)
    for convolutions in (False, True):
        carriers = [make_adapters(base, asked.rank, k, convolutions) for k in range(asked.rows)]
        own = [base.text("a cup", [Weighted(c)], everywhere=True) for c in carriers]
        cases = {
            "no adapter": [base.text("a cup")] * asked.rows,
            "one for all rows": [own[0]] * asked.rows,
            "one for each row": own,
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(asked.repeats + 2):
            for name, context in cases.items():
                times[name].append(forward_seconds(base, latents, context))
        medians = {name: statistics.median(t[2:]) for name, t in times.items()}
        kind = "linear layers and convolutions" if convolutions else "linear layers"
        layers = len(carriers[0].adapters)
        print(f"rank {asked.rank} on {layers} {kind}, {asked.rows} rows, {base.device}")
        for name, median in medians.items():
            print(f"  {name:<18} {1000 * median:8.1f} ms  {asked.rows / median:8.1f} rows/s")
        ratio = medians["one for all rows"] / medians["one for each row"]
        print(f"  one for each row has {ratio:.2f} x the throughput of one for all rows")


if __name__ == "__main__":
    main()
