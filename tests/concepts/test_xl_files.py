"""Files of other programs for Stable Diffusion XL: LoRAs in every key style, and embeddings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from customedit.concepts.concept import Concept
from customedit.concepts.effect import prove_effect
from customedit.concepts.files.load import Description, load_concept
from customedit.concepts.files.save import save_concept
from customedit.diffusion.adapters import LowRank
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.families.unet_names import unet_names
from customedit.diffusion.text import Weighted
from customedit.errors import InputError

from ..diffusion import xl_folders

PROMPT = "a photo of a red cup on a table"
ALPHA = 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return xl_folders.saved(tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return Base.load(folder)


def adapters_of(base: Base, *, text: bool, convolutions: bool) -> dict[str, LowRank]:
    """Of all attentions, the UNet's resnets and both text encoders, as asked."""
    generator = torch.Generator().manual_seed(4)

    def made(shape: tuple[int, ...]) -> LowRank:
        up = torch.randn(shape[0], 4, generator=generator) * 0.1
        down = torch.randn(4, *shape[1:], generator=generator) * 0.1
        return LowRank(up, down, scale=ALPHA / 4)

    def wanted(path: str, layer: nn.Module) -> bool:
        if path.startswith("text_encoder"):
            return text and "self_attn" in path
        attention = re.search(r"\.attn[12]\.|\.ff\.|proj_(?:in|out)$", path) is not None
        changing = convolutions and (".resnets." in path or ".downsamplers." in path)
        return attention or (changing and isinstance(layer, nn.Conv2d))

    layers = base.family.adaptable
    return {p: made(tuple(m.weight.shape)) for p, m in layers.items() if wanted(p, m)}


@dataclass(frozen=True)
class Style:
    """How a program calls a layer and its factors, and what it changes."""

    layer: Callable[[Base, str], str]
    factors: tuple[str, str] = ("lora_down.weight", "lora_up.weight")
    text: bool = True
    convolutions: bool = False
    alpha: bool = True


def kohya(base: Base, path: str, original: bool = False) -> str:
    part, _, inner = path.partition(".")
    if part == "unet":
        if original:
            unet = base.denoiser
            inner = {ours: theirs for theirs, ours in unet_names(unet, unet.config).items()}[inner]
        return "lora_unet_" + inner.replace(".", "_")
    number = "2" if part.endswith("_2") else "1"
    return f"lora_te{number}_text_model_" + inner.replace(".", "_")


def dotted(path: str, unet: str) -> str:
    part, _, inner = path.partition(".")
    return unet + inner if part == "unet" else f"{part}.text_model.{inner}"


OLDER = ("lora.down.weight", "lora.up.weight")
PEFT = ("lora_A.weight", "lora_B.weight")
STYLES: Mapping[str, Style] = {
    "kohya, original names": Style(lambda b, p: kohya(b, p, True), convolutions=True),
    "kohya, original names without convolutions": Style(lambda b, p: kohya(b, p, True)),
    "kohya, diffusers' names": Style(kohya, convolutions=True),
    "diffusers": Style(lambda b, p: dotted(p, "unet."), OLDER, alpha=False),
    "diffusers of PEFT": Style(lambda b, p: dotted(p, "unet."), PEFT, alpha=False),
    "PEFT": Style(lambda b, p: dotted(p, "base_model.model."), PEFT, text=False, alpha=False),
}


def entries_of(base: Base, style: Style, adapters: Mapping[str, LowRank]) -> dict[str, Tensor]:
    down, up = style.factors
    found: dict[str, Tensor] = {}
    for path, adapter in adapters.items():
        name = style.layer(base, path)
        wide = adapter.up[:, :, None, None] if adapter.down.ndim == 4 else adapter.up
        if style.alpha:
            found[f"{name}.alpha"] = torch.tensor(ALPHA)
        else:  # where the programs write none
            wide = wide * adapter.scale
        found |= {f"{name}.{down}": adapter.down.clone(), f"{name}.{up}": wide.clone()}
    return {n: t.contiguous() for n, t in found.items()}


@pytest.mark.parametrize("name", STYLES)
def test_every_style_is_read_whole_and_takes_effect(name: str, base: Base, tmp_path: Path) -> None:
    style = STYLES[name]
    wanted = adapters_of(base, text=style.text, convolutions=style.convolutions)
    save_file(entries_of(base, style, wanted), tmp_path / "look.safetensors")
    concept = run(base, prove_effect(base, load_concept(tmp_path / "look.safetensors", base)))
    told = concept.recipe["imported"]
    assert told["layers"] == told["layers_used"] == len(wanted) and told["effect"] > 1e-3
    assert concept.adapters.keys() == wanted.keys()
    for path, adapter in wanted.items():
        torch.testing.assert_close(concept.adapters[path].delta(), adapter.delta())


@pytest.mark.parametrize(
    "name",
    [
        "kohya, original names without convolutions",
        "kohya, diffusers' names",
        "diffusers of PEFT",
    ],
)
def test_the_forward_is_that_of_diffusers(
    name: str, base: Base, folder: Path, tmp_path: Path
) -> None:
    style = STYLES[name]
    adapters = adapters_of(base, text=True, convolutions=style.convolutions)
    entries = entries_of(base, style, adapters)
    save_file(entries, tmp_path / "look.safetensors")
    concept = load_concept(tmp_path / "look.safetensors", base)
    pipe: Any = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    before = output(pipe)
    pipe.load_lora_weights(tmp_path, weight_name="look.safetensors")
    wanted = output(pipe)
    text = base.text(PROMPT, [Weighted(concept)], everywhere=True)
    with torch.no_grad():
        found, _ = base.output(noise(), 501, [text])
    assert (wanted - before).abs().max() > 1e-3
    assert (found - wanted).abs().max() <= 1e-5


def noise() -> Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))


def output(pipe: Any) -> Tensor:
    with torch.no_grad():
        states, _, pooled, _ = pipe.encode_prompt(PROMPT, do_classifier_free_guidance=False)
        sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]])
        told = {"text_embeds": pooled, "time_ids": sizes}
        found: Tensor = pipe.unet(noise(), 501, states, added_cond_kwargs=told).sample
    return found


def test_an_exported_lora_is_loaded_by_diffusers(base: Base, folder: Path, tmp_path: Path) -> None:
    adapters = adapters_of(base, text=True, convolutions=False)
    concept = Concept({"<look>": torch.zeros(0, base.width)}, adapters=dict(adapters))
    save_concept(concept, tmp_path / "out", base, "diffusers")
    pipe: Any = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipe.load_lora_weights(tmp_path / "out")
    text = base.text(PROMPT, [Weighted(concept)], everywhere=True)
    with torch.no_grad():
        found, _ = base.output(noise(), 501, [text])
    assert (found - output(pipe)).abs().max() <= 1e-5


def test_a_full_rank_concept_is_kohyas_lora_with_the_error_that_is_stated(
    base: Base, folder: Path, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(6)

    def part(name: str) -> dict[str, Tensor]:
        own = {n: base.weights[f"{n}.{name}.weight"] for n in base.layers}
        return {n: w + 0.3 * torch.randn(w.shape, generator=generator) for n, w in own.items()}

    made = Concept({"<look>": torch.ones(base.width)}, part("to_k"), part("to_v"))
    whole = save_concept(made, tmp_path / "whole", base, "kohya")
    assert whole.error < 1e-5
    pipe: Any = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    before = output(pipe)
    pipe.load_lora_weights(tmp_path / "whole", weight_name=whole.files[0].name)
    by_hand: Any = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    by_hand.unet.load_state_dict(made.weights, strict=False)
    assert (output(pipe) - output(by_hand)).abs().max() <= 1e-3
    assert (output(pipe) - before).abs().max() > 1e-2

    thin = save_concept(made, tmp_path / "thin", base, "kohya", rank=3)
    read = load_concept(thin.files[0], base).adapters
    wanted = {n: w - base.weights[n] for n, w in made.weights.items()}
    lost = sum(
        float((read[f"unet.{n.removesuffix('.weight')}"].delta() - change).square().sum())
        for n, change in wanted.items()
    )
    total = sum(float(change.square().sum()) for change in wanted.values())
    assert thin.error == pytest.approx((lost / total) ** 0.5, rel=1e-3) and thin.error > 0.1


def test_embeddings_have_a_vector_for_each_text_encoder(base: Base, tmp_path: Path) -> None:
    one, two = torch.randn(3, xl_folders.ONE), torch.randn(3, xl_folders.TWO)
    files = {
        "look": {"clip_l": one, "clip_g": two},
        "look_emb": {"text_encoders_0": one, "text_encoders_1": two},
    }
    for name, entries in files.items():
        save_file(entries, tmp_path / f"{name}.safetensors")
        concept = load_concept(
            tmp_path / f"{name}.safetensors", base, Description(token="<look>", noun="cup")
        )
        assert concept.tokens["<look>"].equal(torch.cat([one, two], -1))
    for number, vectors in (("", one), ("_2", two)):
        save_file({"<look>": vectors}, tmp_path / f"learned_embeds{number}.safetensors")
    both = [tmp_path / f"learned_embeds{n}.safetensors" for n in ("", "_2")]
    assert load_concept(both, base).tokens["<look>"].equal(torch.cat([one, two], -1))
    text = base.text("a <look> cup", [Weighted(concept)])
    assert text.tokens is not None and len(text.tokens.concepts) == 3
    save_concept(concept, tmp_path / "out", base, "kohya")
    written = load_file(tmp_path / "out" / "look.safetensors")
    assert written["clip_l"].equal(one) and written["clip_g"].equal(two)


def test_embeddings_of_other_bases_are_refused(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "look.safetensors"
    save_file({"clip_l": torch.ones(1, xl_folders.ONE), "clip_g": torch.ones(1, 3)}, path)
    with pytest.raises(InputError, match=r"embedding of .*; this base's text encoders are clip_l"):
        load_concept(path, base)
    with pytest.raises(InputError, match="base: is missing"):
        load_concept(path)
    with pytest.raises(InputError, match="this base's text encoders are clip_l of width"):
        load_concept(path, Base.load())
