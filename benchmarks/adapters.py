"""Rows with adapters in one forward: none, one adapter for all rows, or one for each.

    python benchmarks/adapters.py [--base mini] [--rows 16] [--rank 8] [--device cpu]

--base sdxl-blocks takes layers of Stable Diffusion XL at true widths, with random weights: the
transformer blocks of 640 and 1280 channels, and a residual block of 1280, one of each, at --cells
latent cells a side; --base sdxl takes its whole UNet (2.6 G random numbers: 10 GB). Prints the
median time of a forward and the throughput of the third against the second, and the same for LoRA
on linear layers alone, and for LoCon on convolutions as well; --layers picks one of the two. The
three are measured in turn, so that what else the machine does falls on all alike; on a processor
the time is that of the process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from customedit.diffusion.adapters import UNET, Adapter, LowRank, layers_of
from customedit.diffusion.base import Base
from customedit.diffusion.independent_rows import make_rows_independent
from customedit.diffusion.row_adapters import RowAdapters
from customedit.diffusion.text import Weighted

Forward = Callable[[Sequence[Sequence[Weighted]]], Callable[[], object]]
"""Takes what each row uses, and gives a forward of them that can be run again and again."""


@dataclass(frozen=True)
class Carrier:
    """Adapters alone, in the place of a concept."""

    adapters: dict[str, Adapter]
    tokens: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """Layers that adapters change, by path, and the forward through them."""

    name: str
    layers: Mapping[str, nn.Linear | nn.Conv2d]
    forward: Forward
    device: torch.device
    dtype: torch.dtype


def whole(base: Base, rows: int) -> Workload:
    """The UNet of ``base``."""
    cells = base.side // base.factor
    shape = (rows, base.channels, cells, cells)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(base.device)

    def forward(used: Sequence[Sequence[Weighted]]) -> Callable[[], object]:
        context = [base.text("a cup", own, everywhere=True) for own in used]
        return lambda: base.predict(latents, 501, context)

    layers = layers_of(base.denoiser, UNET)
    return Workload(base.name, layers, forward, base.device, base.dtype)


class Blocks(nn.Module):
    """One of Stable Diffusion XL's blocks of each kind; keys and values of text are not adapted."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = BasicTransformerBlock(640, 10, 64, cross_attention_dim=2048)
        self.wide = BasicTransformerBlock(1280, 20, 64, cross_attention_dim=2048)
        self.residual = ResnetBlock2D(in_channels=1280, out_channels=1280, temb_channels=1280)

    def forward(self, narrow: Tensor, wide: Tensor, text: Tensor, time: Tensor) -> Tensor:
        """narrow, wide: [rows, cells, channels]; text: [rows, 77, 2048]; time: [rows, 1280]."""
        self.narrow(narrow, encoder_hidden_states=text)
        x = self.wide(wide, encoder_hidden_states=text)
        side = round(x.shape[1] ** 0.5)
        return self.residual(x.mT.unflatten(2, (side, side)), time)


def blocks(rows: int, cells: int, device: torch.device) -> Workload:
    """``Blocks`` on random rows."""
    torch.manual_seed(0)
    with device:
        model = Blocks().requires_grad_(False).eval()
        if device.type == "cpu":
            make_rows_independent(model)
        inputs = [torch.randn(rows, cells**2, width) for width in (640, 1280)]
        inputs += [torch.randn(rows, 77, 2048), torch.randn(rows, 1280)]

    def forward(used: Sequence[Sequence[Weighted]]) -> Callable[[], object]:
        adapted = RowAdapters(used)

        def run() -> object:
            with adapted.applied(model, UNET):
                return model(*inputs)

        return run

    text = ("attn2.to_k", "attn2.to_v")
    layers = {n: m for n, m in layers_of(model, UNET).items() if not n.endswith(text)}
    name = f"blocks of SDXL, {cells} x {cells} cells"
    return Workload(name, layers, forward, device, torch.float32)


XL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""Of the UNet of Stable Diffusion XL, beside diffusers' defaults."""


def whole_xl(rows: int, cells: int, device: torch.device) -> Workload:
    """The UNet of Stable Diffusion XL with random weights, on random rows."""
    generator = torch.Generator(device).manual_seed(0)
    with torch.device("meta"):
        model = UNet2DConditionModel(**XL)
    model.to_empty(device=device).requires_grad_(False).eval()
    for weight in model.parameters():  # of the size that layers begin with
        bound = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.01
        weight.uniform_(-bound, bound, generator=generator)
    if device.type == "cpu":
        make_rows_independent(model)
    latents, text, pooled, sizes = (
        torch.randn(rows, *shape, device=device, generator=generator)
        for shape in ((4, cells, cells), (77, 2048), (1280,), (6,))
    )
    conditions = {"text_embeds": pooled, "time_ids": sizes}

    def forward(used: Sequence[Sequence[Weighted]]) -> Callable[[], object]:
        adapted = RowAdapters(used)

        def run() -> object:
            with adapted.applied(model, UNET):
                return model(latents, 501, text, added_cond_kwargs=conditions)

        return run

    ends = ("attn2.to_k", "attn2.to_v")
    layers = {n: m for n, m in layers_of(model, UNET).items() if not n.endswith(ends)}
    name = f"the UNet of SDXL, {cells} x {cells} cells"
    return Workload(name, layers, forward, device, torch.float32)


def make_adapters(load: Workload, rank: int, seed: int, convolutions: bool) -> Carrier:
    """Random adapters of every linear layer, and of the convolutions if asked for."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Adapter] = {}
    for path, layer in load.layers.items():
        if convolutions or isinstance(layer, nn.Linear):
            out, *into = layer.weight.shape
            up = torch.randn(out, rank, generator=generator) * 0.01
            down = torch.randn(rank, *into, generator=generator) * 0.01
            found[path] = LowRank(up, down).to(load.device, load.dtype)
    return Carrier(found)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Of one forward: of the process on a processor, by the clock on a GPU."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    with torch.no_grad():
        run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--layers", choices=("linear", "all", "both"), default="both")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    if asked.base == "sdxl-blocks":
        load = blocks(asked.rows, asked.cells, torch.device(asked.device))
    elif asked.base == "sdxl":
        load = whole_xl(asked.rows, asked.cells, torch.device(asked.device))
    else:
        load = whole(Base.load(asked.base, device=asked.device), asked.rows)
    kinds = {"linear": (False,), "all": (True,), "both": (False, True)}
    for convolutions in kinds[asked.layers]:
        carriers = [make_adapters(load, asked.rank, k, convolutions) for k in range(asked.rows)]
        cases = {
            "no adapter": load.forward([[]] * asked.rows),
            "one for all rows": load.forward([[Weighted(carriers[0])]] * asked.rows),
            "one for each row": load.forward([[Weighted(c)] for c in carriers]),
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(asked.repeats + 1):
            for name, run in cases.items():
                times[name].append(seconds(run, load.device))
        medians = {name: statistics.median(t[1:]) for name, t in times.items()}
        kind = "linear layers and convolutions" if convolutions else "linear layers"
        layers = len(carriers[0].adapters)
        print(
            f"rank {asked.rank} on {layers} {kind}, {asked.rows} rows, {load.name}, {load.device}"
        )
        for name, median in medians.items():
            print(f"  {name:<18} {1000 * median:8.1f} ms  {asked.rows / median:8.1f} rows/s")
        ratio = medians["one for all rows"] / medians["one for each row"]
        print(
            f"  one for each row has {ratio:.2f} x the throughput of one for all rows", flush=True
        )


if __name__ == "__main__":
    main()
