"""``way: lora``: layers that are changed, what a row computes, and what other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from customedit.concepts.concept import Concept
from customedit.concepts.files import Description, load_concept, save_concept
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.trainable import TrainableConcept
from customedit.concepts.training import train_concept
from customedit.diffusion.adapters import TEXT_ENCODER, UNET, LowRank
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.mini import samples

PROMPTS = ConceptPrompts("<plaid>", "cup", "patterned")


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


def trained(base: Base, **options: Any) -> Concept:
    references = [Image.open(p).convert("RGB") for p in samples.looks()[0].images[:2]]
    settings = TrainingSettings.of(
        base, way="lora", steps=3, class_images=2, class_steps=2, crops=2, **options
    )
    return run(base, train_concept(base, references, PROMPTS, settings))


def layers(base: Base, **options: Any) -> set[str]:
    settings = TrainingSettings.of(base, way="lora", **options)
    return set(TrainableConcept.of_base(base, [PROMPTS], settings).adapters)


def test_the_layers_that_are_asked_for_are_changed(base: Base) -> None:
    attention = layers(base)
    assert attention == layers(base, lora_layers="attention")
    cross = layers(base, lora_layers="cross-attention")
    assert cross == {p for p in attention if ".attn2." in p}
    assert len(cross) == 4 * len(base.layers)  # queries, keys, values, output
    everything = layers(base, lora_layers="all")
    assert everything > attention and f"{UNET}conv_in" in everything
    text = layers(base, train_text_encoder=True) - attention
    assert text and all(p.startswith(TEXT_ENCODER) and ".self_attn." in p for p in text)


def test_the_base_and_an_untrained_lora_are_one(base: Base) -> None:
    settings = TrainingSettings.of(base, way="lora", lora_layers="all", train_text_encoder=True)
    found = TrainableConcept.of_base(base, [PROMPTS], settings)
    assert all(not bool(a.delta().any()) for a in found.adapters.values())


def test_a_concept_with_adapters_comes_out_that_other_programs_read(
    base: Base, tmp_path: Path
) -> None:
    concept = trained(base, rank=4, alpha=2.0, train_text_encoder=True)
    assert not concept.keys and concept.recipe["settings"]["way"] == "lora"
    assert concept.base == base.concept_fingerprint
    for adapter in concept.adapters.values():
        assert isinstance(adapter, LowRank) and adapter.scale == 0.5 and adapter.up.shape[1] <= 4
        assert bool(adapter.up.any())  # each layer has learned something
    concept.save(tmp_path / "own.safetensors")
    again = Concept.load(tmp_path / "own.safetensors").for_base(base)
    assert again.digest == concept.digest
    saved = save_concept(concept, tmp_path / "kohya", base, "kohya")
    read = load_concept(list(saved.files), base, Description(token="<plaid>"))
    assert read.adapters.keys() == concept.adapters.keys()
    for path, adapter in read.adapters.items():
        assert torch.allclose(adapter.delta(), concept.adapters[path].delta(), atol=1e-6)
