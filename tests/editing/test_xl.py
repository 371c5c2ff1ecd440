"""Stable Diffusion XL end to end by the library: customized, inverted, edited, merged, written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from customedit.concepts.concept import Concept
from customedit.concepts.effect import prove_effect
from customedit.concepts.files.load import Description, load_concept
from customedit.concepts.files.lora import lora_entries
from customedit.concepts.files.save import save_concept
from customedit.concepts.merge import encode_concept_prompts, merge_on_base
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.training import train_concept
from customedit.diffusion.adapters import LowRank
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.text import Weighted
from customedit.editing.editor import Editor, Session
from customedit.editing.inversion import invert, reconstruct
from customedit.editing.prompt_to_prompt import prompt_to_prompt
from customedit.errors import InputError

from ..diffusion import xl_folders

SOURCE = "a photo of a cup on a table"
TARGET = "a photo of a <plaid> patterned cup on a table"
STEPS = 3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base.load(xl_folders.saved(tmp_path_factory.mktemp("xl")))


def drawn(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def plaid(base: Base) -> Concept:
    settings = TrainingSettings.of(base, steps=2, rate=1e-2, class_images=1, class_steps=2, crops=2)
    prompts = ConceptPrompts("<plaid>", "cup", "patterned")
    return run(base, train_concept(base, [drawn(0), drawn(1)], prompts, settings))


@pytest.fixture(scope="module")
def session(base: Base) -> Session:
    return Editor(base).open(drawn(2), SOURCE)


def test_a_concept_is_two_vectors_and_changes_of_low_rank(base: Base, plaid: Concept) -> None:
    assert plaid.tokens["<plaid>"].shape == (xl_folders.ONE + xl_folders.TWO,)
    assert not plaid.keys and not plaid.values
    assert set(plaid.adapters) == {f"unet.{n.removesuffix('.weight')}" for n in base.weights}
    assert all(isinstance(a, LowRank) and a.up.abs().max() > 0 for a in plaid.adapters.values())
    start = torch.cat(
        [
            encoder.model.get_input_embeddings().weight[
                encoder.tokenizer("patterned", add_special_tokens=False).input_ids[0]
            ]
            for encoder in base.family.encoders
        ]
    )
    moved = (plaid.tokens["<plaid>"] - start).abs()
    one, two = moved[: xl_folders.ONE], moved[xl_folders.ONE :]
    assert one.max() > 0 and two.max() > 0  # both encoders' vectors are trained
    assert run(base, prove_effect(base, plaid)).base == base.concept_fingerprint


def test_it_acts_where_it_is_named_and_costs_nothing_per_step(base: Base, plaid: Concept) -> None:
    worded = base.text(TARGET, [Weighted(plaid)])
    empty = base.text("")
    assert not worded.adapted and base.unconditional(empty, worded) is empty
    assert base.text(SOURCE, [Weighted(plaid)]).keys[0].equal(base.text(SOURCE).keys[0])
    assert not worded.keys[0].equal(base.text(TARGET, [Weighted(plaid, 0.0)]).keys[0])


def test_whole_weights_are_trained_where_rank_is_0(base: Base, tmp_path: Path) -> None:
    settings = TrainingSettings.of(base, steps=1, rank=0, class_images=0, crops=1)
    prompts = ConceptPrompts("<plaid>", "cup", "patterned")
    concept = run(base, train_concept(base, [drawn(0)], prompts, settings))
    assert concept.weights.keys() == base.weights.keys() and not concept.adapters
    save_concept(concept, tmp_path, base, "diffusers")
    again = load_concept(tmp_path, base)
    assert again.tokens["<plaid>"].equal(concept.tokens["<plaid>"])
    assert all(again.weights[n].equal(w) for n, w in concept.weights.items())
    with pytest.raises(InputError, match="rank: has no effect"):
        TrainingSettings.of(base, way="textual-inversion", rank=4)


@pytest.mark.parametrize("kind", ["direct", "ddim", "negative-prompt", "null-text"])
def test_every_inversion_and_prompt_to_prompt(
    kind: Any, base: Base, session: Session, plaid: Concept
) -> None:
    made = session.edit(
        TARGET, concepts=[plaid], inversion=kind, steps=STEPS, strength=0.4, guidance=3.0
    )
    assert made.region_words == ("cup",)
    assert made.drawing.mask is not None and made.image.size == (64, 64)
    assert np.asarray(made.image).std() > 0


def test_the_source_row_of_a_direct_inversion_is_exact(base: Base, plaid: Concept) -> None:
    latents = base.encode(drawn(2))
    inversion = run(base, invert(base, latents, SOURCE, steps=STEPS))
    concepts = [Weighted(plaid)]
    method = prompt_to_prompt(
        base, inversion, base.text(SOURCE, concepts), base.text(TARGET, concepts), guidance=3.0
    )
    result = run(base, method)
    assert result.source.equal(latents) and not result.latents.equal(latents)
    assert run(base, reconstruct(base, inversion)).equal(latents)


def test_sdedit_with_a_mask_several_concepts_and_a_sweep(session: Session, plaid: Concept) -> None:
    other = dataclasses.replace(plaid, tokens={"<wood>": plaid.tokens["<plaid>"] * 0.5})
    mask = torch.zeros(64, 64)
    mask[16:48, 16:48] = 1
    target = "a photo of a <plaid> patterned cup on a <wood> table"
    made = session.sweep(
        target, concepts=[plaid, other], method="sdedit", strengths=[0.4, 0.8], seeds=[0, 1],
        steps=STEPS, mask=mask,
    )  # fmt: skip
    pixels = [np.asarray(m.image, np.int16) for m in made]
    source = np.asarray(session.picture, np.int16)
    assert len(made) == 4 and not np.array_equal(pixels[0], pixels[1])
    assert all(np.array_equal(p[:8], source[:8]) for p in pixels)


def test_a_lora_is_imported_and_edits_beside_a_concept(
    base: Base, session: Session, plaid: Concept, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(5)
    adapters = {
        path: LowRank(
            torch.randn(layer.weight.shape[0], 2, generator=generator) * 0.2,
            torch.randn(2, layer.weight.shape[1], generator=generator) * 0.2,
        )
        for path, layer in base.family.adaptable.items()
        if ".attn1.to_" in path or ".self_attn." in path
    }
    path = tmp_path / "soft.safetensors"
    save_file(lora_entries(adapters, len(base.family.encoders)), path)
    soft = run(base, prove_effect(base, load_concept(path, base, Description(token="<soft>"))))
    assert soft.recipe["imported"]["layers_used"] == len(adapters)
    options: dict[str, Any] = {"steps": STEPS, "strength": 0.4, "guidance": 3.0}
    one = session.edit(TARGET, concepts=[plaid], **options)
    target = "a photo of a <plaid> patterned <soft> cup on a table"
    both = session.edit(target, concepts=[plaid, soft], **options)
    assert not both.drawing.latents.equal(one.drawing.latents)


def test_concepts_of_low_rank_are_merged_exactly(base: Base, plaid: Concept) -> None:
    other = dataclasses.replace(
        plaid,
        tokens={"<wood>": plaid.tokens["<plaid>"] * 0.5},
        adapters={p: dataclasses.replace(a, scale=-0.5) for p, a in plaid.adapters.items()},
        prompts=("a photo of a <wood> table",),
    )
    merged = merge_on_base(base, [plaid, other])
    assert not merged.keys and merged.adapters.keys() == plaid.adapters.keys()
    layer = base.layers[0]
    weight = base.weights[f"{layer}.to_k.weight"]
    for concept in (plaid, other):
        states = encode_concept_prompts(base, concept)
        wanted = states @ (weight + concept.adapters[f"unet.{layer}.to_k"].delta()).T
        found = states @ (weight + merged.adapters[f"unet.{layer}.to_k"].delta()).T
        assert (found - wanted).abs().max() <= 1e-4
    assert merged.for_base(base).digest != plaid.digest


def test_it_is_written_and_read(base: Base, plaid: Concept, tmp_path: Path) -> None:
    prompt = TARGET
    wanted, named = base.text(prompt, [Weighted(plaid)]), Description(token="<plaid>")
    own = save_concept(plaid, tmp_path / "own.safetensors", base).files[0]
    for source in (own, save_concept(plaid, tmp_path / "kohya", base, "kohya").files):
        paths = source if isinstance(source, Path) else list(source)
        found = base.text(prompt, [Weighted(load_concept(paths, base, named))])
        assert all(
            (a - b).abs().max() <= 1e-5
            for a, b in zip(found.keys + found.values, wanted.keys + wanted.values, strict=True)
        )
        assert (found.states - wanted.states).abs().max() <= 1e-5


def test_a_concept_of_another_family_is_refused(base: Base, plaid: Concept) -> None:
    with pytest.raises(InputError, match="another base"):
        dataclasses.replace(plaid, base="").for_base(Base.load())
