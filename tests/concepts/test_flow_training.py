"""Custom Diffusion with bases of flow matching: what is trained, kept, written and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from customedit.concepts.concept import Concept
from customedit.concepts.files import load_concept, save_concept
from customedit.concepts.merge import merge_on_base
from customedit.concepts.prompts import ConceptPrompts
from customedit.concepts.settings import TrainingSettings
from customedit.concepts.trainable import TrainableConcept, lora_layers
from customedit.concepts.training import step_request, train_concept
from customedit.diffusion.adapters import Adapter, LowRank
from customedit.diffusion.base import Base
from customedit.diffusion.engine import read_texts, run
from customedit.diffusion.text import Weighted
from customedit.editing.editor import Editor
from customedit.errors import InputError

from ..diffusion import flow_folders as folders

KINDS = ("sd3", "flux")
PROMPTS = ConceptPrompts("<plaid>", "cup", "patterned")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    root = tmp_path_factory.mktemp("bases")
    return {
        "sd3": Base.load(folders.saved(folders.sd3(), root / "sd3")),
        "flux": Base.load(folders.saved(folders.flux(), root / "flux")),
    }


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    levels = [rng.integers(0, 255, (4, 4, 3), np.uint8) for _ in range(2)]
    return [Image.fromarray(x).resize((32, 32), Image.Resampling.NEAREST) for x in levels]


def settings(base: Base, **more: Any) -> TrainingSettings:
    quick = {"steps": 3, "batch": 1, "class_images": 1, "class_steps": 2, "crops": 2, "rank": 4}
    return TrainingSettings.of(base, **quick | more)


def velocity(base: Base, texts: list[Any]) -> Tensor:
    g = torch.Generator().manual_seed(2)
    latents = torch.randn(1, base.channels, 16, 16, generator=g).expand(len(texts), -1, -1, -1)
    with torch.no_grad():
        return base.predict(latents, 640.0, texts).noise


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_step_a_concept_changes_nothing(kind: str, bases: dict[str, Base]) -> None:
    base = bases[kind]
    trained = TrainableConcept.of_base(base, [PROMPTS], settings(base, initial="cup"))
    assert not trained.keys
    layers = {p.removeprefix("transformer.") for p in trained.adapters}
    assert "context_embedder" in layers
    assert "transformer_blocks.2.attn.add_v_proj" in layers
    assert len(layers) == 7  # two of each of three joint blocks, and the embedder
    plain, named = velocity(
        base, [base.text("a cup"), base.text("a <plaid>", [Weighted(trained)])]
    )  # the token starts as the word
    torch.testing.assert_close(plain, named, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_velocitys_and_reaches_every_leaf(
    kind: str, bases: dict[str, Base], pictures: list[Image.Image]
) -> None:
    from customedit.concepts.dataset import Subject, build_datasets

    base = bases[kind]
    chosen = settings(base, class_images=0, prior_weight=0)
    references, prior = run(base, build_datasets(base, [Subject(pictures, PROMPTS)], chosen, None))
    trained = TrainableConcept.of_base(base, [PROMPTS], chosen)
    with torch.no_grad():
        for adapter in trained.adapters.values():
            adapter.factors["up"].normal_(generator=torch.Generator().manual_seed(1))
    request = step_request(
        base, trained, chosen, references, prior, 0, list(trained.leaves.values())
    )
    loss, _ = request.loss(base.output(request.latents, request.times, read_texts([request]))[0])
    gradients = torch.autograd.grad(loss, list(trained.leaves.values()))
    assert all(float(g.abs().max()) > 0 for g in gradients)
    (vector,) = trained.tokens.values()
    start = 0
    for encoder in base.family.encoders:  # V* is trained in every text encoder
        assert float(gradients[0][start : start + encoder.width].abs().max()) > 0
        start += encoder.width
    assert start == len(vector)
    # against the equation, with what is drawn drawn again
    rng = np.random.default_rng([chosen.seed, 2, 0])
    noise_of = torch.Generator().manual_seed(int(rng.integers(2**62)))
    numbers = rng.integers(len(references.texts), size=1)
    picture, mask = references.select(numbers)
    schedule = base.schedule.sized(16, 16)
    sigma = schedule.draw_times(rng, 1).view(-1, 1, 1, 1) / 1000
    noise = torch.randn(picture.shape, generator=noise_of)
    (text,) = read_texts([request])
    output, _ = base.output((1 - sigma) * picture + sigma * noise, 1000 * sigma.view(-1), [text])
    error = (output - (noise - picture)).square().mean(1) * mask
    torch.testing.assert_close(loss, error.sum() / mask.sum(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_concept_is_trained_kept_edited_with_and_exported(
    kind: str, bases: dict[str, Base], pictures: list[Image.Image], tmp_path: Path
) -> None:
    base = bases[kind]
    concept = run(base, train_concept(base, pictures, PROMPTS, settings(base)))
    assert concept.tokens["<plaid>"].shape == (base.width,)
    assert all(isinstance(a, LowRank) and a.up.shape[1] == 4 for a in concept.adapters.values())
    assert any(float(a.factors["up"].abs().max()) > 0 for a in concept.adapters.values())
    save_concept(concept, tmp_path / "own.safetensors", base)
    again = load_concept(tmp_path / "own.safetensors", base)
    assert again.digest == concept.digest
    same = run(base, train_concept(base, pictures, PROMPTS, settings(base)))
    assert same.digest == concept.digest  # the same bits again
    session = Editor(base).open(pictures[0], "a photo of a cup")
    result = session.edit(
        "a photo of a <plaid> patterned cup", concepts=[concept], method="flowedit", steps=3
    )
    assert result.image.size == (32, 32)
    other = Base.wrap(folders.sd3() if kind == "flux" else folders.flux(), "other")
    with pytest.raises(InputError, match="was made for the base"):
        concept.for_base(other)
    for form in ("adobe", "adobe-compressed", "kohya", "diffusers-bin"):
        with pytest.raises(InputError, match="is not in this family"):
            save_concept(concept, tmp_path / form, base, form)
    with pytest.raises(InputError, match="is not in this family"):
        merge_on_base(base, [concept, concept])


@pytest.mark.parametrize("kind", KINDS)
def test_stock_diffusers_loads_what_is_exported(
    kind: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    base = bases[kind]
    g = torch.Generator().manual_seed(3)
    changes = base.family.new_changes(4, 0)
    adapters: dict[str, Adapter] = {
        path: LowRank(
            torch.randn(a.shape[0], 4, generator=g), a.factors["down"].detach(), scale=0.5
        )
        for path, a in changes.adapters.items()
    }
    vector = torch.randn(base.width, generator=g)
    concept = Concept({"<plaid>": vector}, adapters=adapters)
    files = save_concept(concept, tmp_path, base, "diffusers").files
    assert {f.name for f in files} == {"pytorch_lora_weights.safetensors", "<plaid>.safetensors"}
    parts = load_file(tmp_path / "<plaid>.safetensors")
    assert list(parts) == sorted(base.family.embedding_parts)
    ours = velocity(base, [base.text("a cup", [Weighted(concept)], everywhere=True)])
    stock: Any = folders.sd3() if kind == "sd3" else folders.flux()
    stock.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    stock.fuse_lora()
    stock.unload_lora_weights()
    fused = folders.wrapped(stock)
    torch.testing.assert_close(ours, velocity(fused, [fused.text("a cup")]), atol=1e-5, rtol=0)
    # and we read it again
    read = load_concept([tmp_path / f.name for f in files], base)
    for path, adapter in adapters.items():
        torch.testing.assert_close(read.adapters[path].delta(), adapter.delta())


def test_whole_weights_and_dreambooth_are_refused(
    bases: dict[str, Base], pictures: list[Image.Image]
) -> None:
    base = bases["flux"]
    for changes, field in (({"rank": 0}, "rank"), ({"way": "dreambooth", "rank": 0}, "way")):
        with pytest.raises(InputError, match="not in this family") as refused:
            run(base, train_concept(base, pictures, PROMPTS, settings(base, **changes)))
        assert refused.value.field == field
    assert TrainingSettings.of(base).rank == 16


def test_a_lora_is_trained_on_the_layers_that_are_asked_for(
    bases: dict[str, Base], pictures: list[Image.Image]
) -> None:
    base = bases["sd3"]

    def layers(choice: str) -> set[str]:
        return set(lora_layers(base, settings(base, way="lora", lora_layers=choice)))

    assert layers("cross-attention") == {f"transformer.{layer}" for layer in base.layers}
    assert "transformer.transformer_blocks.0.attn2.to_q" in layers("attention")
    assert "transformer.transformer_blocks.0.ff.net.2" not in layers("attention")
    assert "transformer.pos_embed.proj" in layers("all")
    chosen = settings(base, way="lora", class_images=0, steps=1, focus="noun")
    concept = run(base, train_concept(base, pictures, PROMPTS, chosen))
    assert concept.adapters.keys() == layers("attention")


def test_a_lora_and_a_concept_in_one_edit(
    bases: dict[str, Base], pictures: list[Image.Image], tmp_path: Path
) -> None:
    """A small FLUX folder from end to end: import a LoRA, customize, edit with both."""
    base = bases["flux"]
    g = torch.Generator().manual_seed(1)
    name = "lora_unet_double_blocks_0_txt_attn_qkv"
    save_file(
        {
            f"{name}.lora_down.weight": torch.randn(4, 32, generator=g),
            f"{name}.lora_up.weight": torch.randn(96, 4, generator=g),
        },
        tmp_path / "scales.safetensors",
    )
    lora = load_concept(tmp_path / "scales.safetensors", base)
    concept = run(base, train_concept(base, pictures, PROMPTS, settings(base)))
    session = Editor(base).open(pictures[0], "a photo of a cup")
    plain = session.edit("a photo of a red cup", steps=3)
    both = session.edit(
        "a photo of a <plaid> <scales> red cup", concepts=[concept, Weighted(lora, 0.5)], steps=3
    )
    assert (both.drawing.latents - plain.drawing.latents).abs().max() > 1e-2
    replayed = Editor(base).replay(both.plan, pictures[0], concepts=[lora, concept])
    assert torch.equal(replayed.drawing.latents, both.drawing.latents)
