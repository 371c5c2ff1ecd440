"""Checkpoints: an optimizer goes on as it would have gone on, and only the same training does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from customedit.concepts import checkpoint
from customedit.concepts.dataset import Subject
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concepts
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.method import Turn
from customedit.errors import InputError
from customedit.mini import samples


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


PROMPTS = ConceptPrompts("<look>", "cup", "patterned")


def picture(look: int, number: int) -> Image.Image:
    return Image.open(samples.looks()[look].images[number]).convert("RGB")


def mask(left: int, mode: str = "L") -> Image.Image:
    """White from column ``left`` on."""
    found = Image.new("L", (128, 128))
    found.paste(255, (left, 0, 128, 128))
    return found.convert(mode)


def without_references(path: Path) -> None:
    """The checkpoint as the first versions wrote it."""
    with safe_open(path, framework="pt") as file:
        note = json.loads(file.metadata()["training"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name in ("references", "masks"):
        del note["about"][name]
    save_file(tensors, path, {"training": json.dumps(note)})


def test_a_checkpoint_is_of_its_references_and_masks_alone(tmp_path: Path) -> None:
    base, file = Base.load(), tmp_path / "checkpoint.safetensors"
    settings = TrainingSettings.of(base, steps=1, batch=1, class_images=0, crops=1)
    first, second = [picture(0, 0), picture(0, 1)], [picture(1, 0), picture(1, 1)]
    masks = [mask(32), mask(64)]

    def begins(references: list[Image.Image], masks: list[Image.Image] | None = None) -> bool:
        subject = Subject(references, PROMPTS, masks=masks or [])
        method = train_concepts(base, [subject], settings, resume=file)
        return isinstance(next(method), Turn)

    def train(masks: list[Image.Image]) -> None:
        subject = Subject(first, PROMPTS, masks=masks)
        run(base, train_concepts(base, [subject], settings, resume=file))

    train([])
    assert begins(first) and begins([image.convert("RGBA") for image in first])
    for others in (second, first[::-1], first[:1]):
        with pytest.raises(InputError, match=r"resume: .*another training \(other references\)"):
            begins(others)
    with pytest.raises(InputError, match=r"other masks\)"):
        begins(first, masks)
    file.unlink()
    train(masks)
    assert begins(first, masks) and begins(first, [mask(32, "RGB"), mask(64, "1")])
    for other in ([mask(32), mask(65)], masks[::-1], None):
        with pytest.raises(InputError, match=r"other masks\)"):
            begins(first, other)
    without_references(file)  # which says nothing that could be held against it
    assert begins(second, masks)
