from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from customedit.errors import InputError
from customedit.metrics import lpips


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {k: torch.randn(s, generator=generator) * 0.05 for k, s in lpips.shapes().items()}
    return {k: v.abs() if k.startswith("lin") else v for k, v in found.items()}


@pytest.fixture(scope="module")
def measure(
    weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> lpips.Lpips:
    file = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(weights, file)
    return lpips.Lpips(file)


def picture(seed: int, side: int = 64) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def alexnet(weights: dict[str, torch.Tensor]) -> torch.nn.Sequential:
    """The layers up to the fifth ReLU, spelt out as torchvision does."""
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    net.load_state_dict(
        {k.removeprefix("features."): v for k, v in weights.items() if k.startswith("features.")}
    )
    return net.double()


def test_it_is_what_the_paper_says(measure: lpips.Lpips, weights: dict[str, torch.Tensor]) -> None:
    a, b = picture(0), picture(1)
    states = []
    for image in (a, b):
        x = torch.from_numpy(np.array(image)).double().permute(2, 0, 1)[None] / 127.5 - 1
        x = (x - torch.tensor(lpips.SHIFT)[:, None, None]) / torch.tensor(lpips.SCALE)[
            :, None, None
        ]
        found = []
        for layer in alexnet(weights):
            x = layer(x).detach()
            if isinstance(layer, torch.nn.ReLU):
                found.append(x[0] / x[0].norm(dim=0))
        states.append(found)
    total = 0.0
    for number, (one, two) in enumerate(zip(*states, strict=True)):
        w = weights[f"lin{number}.model.1.weight"].double()[0, :, 0, 0]
        gap = (one - two).nan_to_num() ** 2
        total += float(torch.einsum("c,chw->hw", w, gap).mean())
    assert measure.distance(a, b) == pytest.approx(total, rel=1e-4)


def test_equal_is_zero_and_it_is_symmetric(measure: lpips.Lpips) -> None:
    a, b = picture(0), picture(1)
    assert measure.distance(a, a) == 0
    there, back = measure.distance(a, b), measure.distance(b, a)
    assert there > 0 and there == pytest.approx(back, rel=1e-6)


def test_unusable_pictures_and_files_are_refused(
    measure: lpips.Lpips, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="31 x 31"):
        measure.distance(picture(0, 30), picture(1, 30))
    with pytest.raises(InputError, match="of one size"):
        measure.distance(picture(0, 64), picture(1, 40))
    with pytest.raises(InputError, match=r"lpips: .*missing"):
        lpips.Lpips(tmp_path / "missing.safetensors")
    short = tmp_path / "short.safetensors"
    save_file({k: v for k, v in weights.items() if k != "lin3.model.1.weight"}, short)
    with pytest.raises(InputError, match="lin3"):
        lpips.Lpips(short)


def test_the_file_is_made_of_the_two_usual_ones(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    features = {k: v for k, v in weights.items() if k.startswith("features")}
    torch.save(features | {"classifier.1.weight": torch.zeros(2)}, tmp_path / "alexnet.pth")
    torch.save({k: v for k, v in weights.items() if k not in features}, tmp_path / "alex.pth")
    lpips.main(tmp_path / "alexnet.pth", tmp_path / "alex.pth", tmp_path / "out.safetensors")
    assert lpips.Lpips(tmp_path / "out.safetensors").distance(picture(0), picture(1)) > 0
