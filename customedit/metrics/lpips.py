"""LPIPS (Zhang et al., arXiv 1801.03924), version 0.1 on AlexNet, where its weights are given.

The distance of two pictures: features of five layers, each a unit vector at every place, squared
differences weighed per channel, averaged over places, summed over layers. 0 for equal pictures,
around 0.1 for near ones, above 0.5 for strangers. The weights are not bundled; ``python -m
customedit.metrics.lpips`` makes the one file that is read here of the two usual ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from customedit import pixels
from customedit.errors import InputError

CONVOLUTIONS: Final = (
    # place in torchvision's AlexNet, (out, in, kernel), stride, padding, whether a pool comes first
    (0, (64, 3, 11), 4, 2, False),
    (3, (192, 64, 5), 1, 2, True),
    (6, (384, 192, 3), 1, 1, True),
    (8, (256, 384, 3), 1, 1, False),
    (10, (256, 256, 3), 1, 1, False),
)

SHIFT: Final = (-0.030, -0.088, -0.188)
SCALE: Final = (0.458, 0.448, 0.450)
"""What LPIPS takes off pictures in [-1, 1] and divides them by, per channel."""

SMALLEST: Final = 31
"""Pixels of a side below which AlexNet's second pool has nothing to work on."""


def shapes() -> dict[str, tuple[int, ...]]:
    """Every weight of the file by name, as torchvision and LPIPS name them."""
    found: dict[str, tuple[int, ...]] = {}
    for number, (place, (out, into, kernel), *_) in enumerate(CONVOLUTIONS):
        found[f"features.{place}.weight"] = (out, into, kernel, kernel)
        found[f"features.{place}.bias"] = (out,)
        found[f"lin{number}.model.1.weight"] = (1, out, 1, 1)
    return found


class Lpips:
    """The distance, in float32 without gradients.

    file: safetensors with the weights of ``shapes``.

    Raises:
        InputError: for a file that is not there, cannot be read or lacks a weight.
    """

    def __init__(self, file: Path, *, device: str | torch.device = "cpu") -> None:
        try:
            weights = load_file(file)
        except (OSError, SafetensorError) as error:
            raise InputError("lpips", f"{file} cannot be read ({error})", _REMEDY) from error
        self._weights = {k: v.float().to(device) for k, v in checked(weights, str(file)).items()}
        self.device = torch.device(device)

    @torch.no_grad()
    def distance(self, a: Image.Image, b: Image.Image) -> float:
        """Of two pictures of equal size.

        Raises:
            InputError: for pictures of different size or with a side below 31 pixels.
        """
        if a.size != b.size or min(a.size) < SMALLEST:
            raise InputError(
                "images",
                f"are {a.width} x {a.height} and {b.width} x {b.height}",
                f"give two of one size, {SMALLEST} x {SMALLEST} or more",
            )
        pair = torch.cat([pixels.to_tensor(x, x.size) for x in (a, b)]).to(self.device)
        return float(self._between(pair))

    def _between(self, pair: Tensor) -> Tensor:
        """Of a pair [2, 3, h, w] in [-1, 1], a scalar."""
        shift, scale = (pair.new_tensor(v)[:, None, None] for v in (SHIFT, SCALE))
        x = (pair - shift) / scale
        total = pair.new_zeros(())
        for number, (place, _, stride, padding, pooled) in enumerate(CONVOLUTIONS):
            if pooled:
                x = F.max_pool2d(x, 3, 2)
            weight, bias = (self._weights[f"features.{place}.{n}"] for n in ("weight", "bias"))
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            gap = (unit[:1] - unit[1:]).square()
            total = total + F.conv2d(gap, self._weights[f"lin{number}.model.1.weight"]).mean()
        return total


_REMEDY: Final = "make it with python -m customedit.metrics.lpips"


def checked(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those of ``weights`` that are needed. Raises InputError for one missing or misshapen."""
    for key, shape in shapes().items():
        if key not in weights or tuple(weights[key].shape) != shape:
            there = tuple(weights[key].shape) if key in weights else "not there"
            raise InputError("lpips", f"{name}: {key} is {there}, not {shape}", _REMEDY)
    return {key: weights[key] for key in shapes()}


def main(
    alexnet: Annotated[Path, typer.Argument(help="torchvision's AlexNet, a .pth of weights.")],
    linear: Annotated[Path, typer.Argument(help="LPIPS's own weights, v0.1/alex.pth.")],
    out: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
) -> None:
    """Make the file that Lpips reads."""
    both: dict[str, Tensor] = {}
    for file in (alexnet, linear):  # pickles: nothing but tensors is let through
        both |= torch.load(file, map_location="cpu", weights_only=True)
    save_file({k: v.contiguous() for k, v in checked(both, "together").items()}, out)


if __name__ == "__main__":
    typer.run(main)
