"""Textual-inversion embeddings of any number of vectors: read, and edited with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from customedit.concepts.concept import Concept
from customedit.concepts.files import Description, load_concept, save_concept
from customedit.diffusion.adapters import UNET, LowRank, layers_of
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.text import Weighted
from customedit.editing.beside import Drawn
from customedit.editing.inversion import invert
from customedit.editing.method_settings import P2PSettings
from customedit.editing.prompt_to_prompt import (
    map_control,
    prompt_to_prompt,
    refine,
    replace,
)
from customedit.editing.sdedit import sdedit
from customedit.errors import InputError
from customedit.mini import samples

SOURCE, TARGET = "a photo of a cup on a table", "a photo of a <a> patterned cup on a table"
STEPS = 4


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.open(samples.looks()[0].images[0]).convert("RGB")


def vectors(base: Base, n: int) -> Tensor:
    table = base.pipeline.text_encoder.get_input_embeddings().weight
    return table[300 : 300 + n].detach().clone()


@pytest.mark.parametrize(
    ("name", "make", "token", "rows"),
    [
        ("emb.safetensors", lambda v: {"emb_params": v}, "<emb>", 3),
        ("My Style v2.pt", lambda v: {"string_to_param": {"*": v}, "string_to_token": {"*": 265}},
         "<my-style-v2>", 3),
        ("x.pt", lambda v: {"string_to_param": {"*": torch.nn.Parameter(v)}, "name": "Look"},
         "<look>", 3),
        ("learned_embeds.bin", lambda v: {"<cat-toy>": v}, "<cat-toy>", 3),
        ("learned_embeds.safetensors", lambda v: {"<cat-toy>": v[0]}, "<cat-toy>", 1),
        ("one.safetensors", lambda v: {"emb_params": v[:1]}, "<one>", 1),
    ],
)  # fmt: skip
def test_every_programs_files_are_read(
    name: str, make: Any, token: str, rows: int, tmp_path: Path
) -> None:
    held = torch.randn(3, 8)
    path = tmp_path / name
    made = make(held)
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in made.items()}, path)
    else:
        torch.save(made, path)
    concept = load_concept(path)
    assert list(concept.tokens) == [token]
    assert torch.equal(torch.atleast_2d(concept.tokens[token]), held[:rows])


def test_a_training_folder_gives_its_final_file(tmp_path: Path) -> None:
    for steps in (1000, 500):
        save_file(
            {"<a>": torch.full((8,), float(steps))},
            tmp_path / f"learned_embeds-steps-{steps}.safetensors",
        )
    assert load_concept(tmp_path).tokens["<a>"][0] == 1000
    save_file({"<a>": torch.full((8,), 3.0)}, tmp_path / "learned_embeds.safetensors")
    assert load_concept(tmp_path).tokens["<a>"][0] == 3


def test_another_width_is_named(base: Base, tmp_path: Path) -> None:
    save_file({"emb_params": torch.ones(2, 768)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"another base: <x> has 768 numbers \(SD 1\.x\), .* 256"):
        load_concept(tmp_path / "x.safetensors", base)


# a token of several vectors in a prompt


def test_a_token_takes_a_column_for_each_vector(base: Base) -> None:
    concept = Concept({"<a>": vectors(base, 3), "<b>": vectors(base, 1)[0]})
    tokens = base.tokens("a <a> cup, <b>!", concept.tokens)
    assert tokens.words == ["a", "<a>", "cup,", "<b>!"]
    assert [b - a for a, b in tokens.spans] == [1, 3, 2, 2]
    assert list(tokens.concepts.values()) == ["<a>"] * 3 + ["<b>"]
    size = len(base.tokenizer)
    assert tokens.ids[2:5] == [size, size + 1, size + 2] and size + 3 in tokens.ids
    assert tokens.named == ("<a>", "<b>")
    with pytest.raises(InputError, match=r"takes 1\d\d tokens"):
        base.tokens("<a> " * 40, {"<a>": vectors(base, 3)})


def test_vectors_that_are_words_read_as_those_words(base: Base) -> None:
    table = base.pipeline.text_encoder.get_input_embeddings().weight
    ids = base.tokenizer("red and white", add_special_tokens=False).input_ids
    concept = Concept({"<a>": table[ids].detach().clone()})
    got = base.text("a photo of a <a> cup beside a <a> vase", [Weighted(concept)])
    wanted = base.text("a photo of a red and white cup beside a red and white vase")
    torch.testing.assert_close(got.states, wanted.states)


def test_alignment_takes_it_as_one_word(base: Base) -> None:
    concept = Concept({"<a>": vectors(base, 3)})
    source, target = base.tokens(SOURCE), base.tokens(TARGET, concept.tokens)
    mapper, taken = refine(source.ids, target.ids, base.length)
    word = target.columns(target.words.index("<a>"))
    assert len(word) == 3 and not taken[list(word)].any()  # inserted: their own maps
    cup = target.columns(target.words.index("cup"))[0]
    assert mapper[source.columns(source.words.index("cup"))[0], cup] == 1
    swapped = base.tokens("a photo of a <a> on a table", concept.tokens)
    mapper = replace(source.spans, swapped.spans, base.length)
    columns = swapped.columns(swapped.words.index("<a>"))
    cup = source.columns(source.words.index("cup"))[0]
    torch.testing.assert_close(mapper[cup, list(columns)], torch.full((3,), 1 / 3))
    how = map_control(source, target, P2PSettings(reweight={"<a>": 2.0}), STEPS)
    assert (how.from_own[0, list(word)] == 2).all()


@pytest.fixture(scope="module")
def inverted(base: Base, picture: Image.Image) -> Any:
    return run(base, invert(base, base.encode(picture), SOURCE, steps=STEPS))


def edited(base: Base, inverted: Any, concept: Concept, prompt: str, **more: Any) -> Drawn:
    entries = [Weighted(concept)]
    settings = P2PSettings(way=more.pop("way", "refine"), blend_over="source", blend_words=("cup",))
    texts = base.text(SOURCE, entries), base.text(prompt, entries)
    return run(
        base,
        prompt_to_prompt(base, inverted, *texts, settings=settings, guidance=3.0, record=True),
    )


def test_an_edit_with_it_has_its_maps_and_its_region(base: Base, inverted: Any) -> None:
    """A token whose vectors are three words edits as those words do, blend and maps included."""
    table = base.pipeline.text_encoder.get_input_embeddings().weight
    ids = base.tokenizer("red and white", add_special_tokens=False).input_ids
    concept = Concept({"<a>": table[ids].detach().clone()})
    found = edited(base, inverted, concept, TARGET)
    wanted = edited(base, inverted, concept, TARGET.replace("<a>", "red and white"))
    torch.testing.assert_close(found.latents, wanted.latents, atol=1e-5, rtol=0)
    assert found.mask is not None and wanted.mask is not None and found.maps is not None
    assert torch.equal(found.mask, wanted.mask) and 0 < found.mask.mean() < 1
    assert wanted.maps is not None
    torch.testing.assert_close(found.maps, wanted.maps, atol=1e-5, rtol=0)
    assert (found.latents - found.source).abs().max() > 0.1


# a concept of adapters alone: a token without a column


def lora(base: Base) -> Concept:
    path = f"{UNET}mid_block.resnets.0.conv1"
    out, into, *kernel = layers_of(base.denoiser, UNET)[path].weight.shape
    generator = torch.Generator().manual_seed(3)
    up = torch.randn(out, 4, generator=generator) * 0.3
    down = torch.randn(4, into, *kernel, generator=generator) * 0.3
    return Concept({"<a>": torch.zeros(0, base.width)}, adapters={path: LowRank(up, down)})


def test_a_token_without_vectors_changes_no_word(base: Base) -> None:
    entries = [Weighted(lora(base))]
    named, plain = base.text(TARGET, entries), base.text(TARGET.replace("<a> ", ""), entries)
    assert torch.equal(named.states, plain.states) and named.tokens is not None
    assert named.tokens.named == ("<a>",) and not named.tokens.concepts
    assert named.adapted == tuple(entries) and plain.adapted == ()


@pytest.mark.parametrize("way", ["refine", "replace"])
def test_an_edit_with_adapters_alone(way: str, base: Base, inverted: Any) -> None:
    prompt = "a photo of a <a> cup on a table" if way == "refine" else "a photo of a <a> on a table"
    concept = lora(base)
    found = edited(base, inverted, concept, prompt, way=way)
    assert torch.equal(found.source, inverted.picture)  # the source row uses no adapter
    assert (found.latents - found.source).abs().max() > 0.1
    still = edited(base, inverted, concept, SOURCE)
    assert (still.latents - found.latents).abs().max() > 0.05


def test_guidance_compares_two_rows_with_the_adapters(base: Base, picture: Image.Image) -> None:
    """As a pipeline with the weights put in: at guidance 1 and at 3 alike."""
    import copy

    from diffusers import StableDiffusionPipeline

    concept = lora(base)
    parts = dict(base.pipeline.components)
    parts["unet"] = copy.deepcopy(parts["unet"])
    (path, adapter), = concept.adapters.items()  # fmt: skip
    with torch.no_grad():
        layers_of(parts["unet"], UNET)[path].weight += adapter.delta()
    tuned = Base.wrap(StableDiffusionPipeline(**parts, requires_safety_checker=False), "put in")
    latents = base.encode(picture)
    for guidance in (1.0, 3.0):
        target = base.text("a photo of a <a> cup", [Weighted(concept)])
        found = run(base, sdedit(base, latents, target, steps=STEPS, guidance=guidance)).latents
        plain = tuned.text("a photo of a cup")
        wanted = run(tuned, sdedit(tuned, latents, plain, steps=STEPS, guidance=guidance)).latents
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


# exported


def test_an_embedding_goes_out_and_comes_back(base: Base, tmp_path: Path) -> None:
    made = Concept({"<a>": vectors(base, 3)}, base=base.concept_fingerprint)
    for form in ("kohya", "diffusers", "diffusers-bin"):
        saved = save_concept(made, tmp_path / form, base, form)
        back = load_concept(list(saved.files), base, Description(base=base.concept_fingerprint))
        assert back.digest == made.digest
