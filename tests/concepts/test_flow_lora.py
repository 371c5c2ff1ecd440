"""LoRAs for FLUX.1 and Stable Diffusion 3 in every key style: against diffusers and the formula."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from customedit.concepts.effect import measure_effect
from customedit.concepts.files import load_concept
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.text import Weighted
from customedit.errors import InputError

from ..diffusion import flow_folders as folders

RANK, ALPHA = 4, 2.0
PROMPT = "a photo of a red cup"

Entries = dict[str, Tensor]

FLUX_ORIGINAL = {  # original name: the base's layers whose rows it has
    "double_blocks.0.img_attn.qkv": [
        "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k",
        "transformer_blocks.0.attn.to_v",
    ],
    "double_blocks.1.txt_attn.qkv": [
        "transformer_blocks.1.attn.add_q_proj", "transformer_blocks.1.attn.add_k_proj",
        "transformer_blocks.1.attn.add_v_proj",
    ],
    "double_blocks.2.txt_mlp.0": ["transformer_blocks.2.ff_context.net.0.proj"],
    "double_blocks.2.img_mod.lin": ["transformer_blocks.2.norm1.linear"],
    "single_blocks.0.linear2": ["single_transformer_blocks.0.proj_out"],
    "single_blocks.1.modulation.lin": ["single_transformer_blocks.1.norm.linear"],
}  # fmt: skip
FLUX_MORE = {  # diffusers' converter knows these at FLUX's own widths alone
    "single_blocks.0.linear1": [
        "single_transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.attn.to_k",
        "single_transformer_blocks.0.attn.to_v", "single_transformer_blocks.0.proj_mlp",
    ],
    "txt_in": ["context_embedder"],
    "guidance_in.out_layer": ["time_text_embed.guidance_embedder.linear_2"],
}  # fmt: skip
SD3_ORIGINAL = {
    "joint_blocks.0.x_block.attn.qkv": [
        "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k",
        "transformer_blocks.0.attn.to_v",
    ],
    "joint_blocks.0.x_block.attn2.proj": ["transformer_blocks.0.attn2.to_out.0"],
    "joint_blocks.2.context_block.attn.qkv": [
        "transformer_blocks.2.attn.add_q_proj", "transformer_blocks.2.attn.add_k_proj",
        "transformer_blocks.2.attn.add_v_proj",
    ],
    "joint_blocks.1.context_block.mlp.fc2": ["transformer_blocks.1.ff_context.net.2"],
    "joint_blocks.1.x_block.adaLN_modulation.1": ["transformer_blocks.1.norm1.linear"],
    "y_embedder.mlp.0": ["time_text_embed.text_embedder.linear_1"],
}  # fmt: skip
XLABS = {
    "double_blocks.0.processor.qkv_lora1": FLUX_ORIGINAL["double_blocks.0.img_attn.qkv"],
    "double_blocks.1.processor.qkv_lora2": FLUX_ORIGINAL["double_blocks.1.txt_attn.qkv"],
    "double_blocks.0.processor.proj_lora1": ["transformer_blocks.0.attn.to_out.0"],
    "double_blocks.2.processor.proj_lora2": ["transformer_blocks.2.attn.to_add_out"],
    "single_blocks.1.processor.qkv_lora": [
        f"single_transformer_blocks.1.attn.to_{part}" for part in "qkv"
    ],
    "single_blocks.0.processor.proj_lora": ["single_transformer_blocks.0.proj_out"],
}


def flat(name: str) -> str:
    return name.replace(".", "_")


def apart(table: dict[str, list[str]]) -> dict[str, list[str]]:
    """The same layers by diffusers' own names."""
    return {layer: [layer] for layers in table.values() for layer in layers}


LAYERS = {"flux": FLUX_ORIGINAL, "sd3": SD3_ORIGINAL}

# family, style: (its table, how a layer is called, the factors' names, whether it has an alpha,
# whether stock diffusers reads it)
Variant = tuple[str, dict[str, list[str]], Callable[[str], str], str, str, bool, bool]
VARIANTS: dict[str, Variant] = {}
for _family, _table in LAYERS.items():
    _kohya = ("lora_down.weight", "lora_up.weight", True)
    _peft = ("lora_A.weight", "lora_B.weight", False)
    _known = _family == "flux"
    VARIANTS |= {
        f"{_family} kohya": (_family, _table, lambda n: "lora_unet_" + flat(n), *_kohya, _known),
        f"{_family} kohya, diffusers' layers": (
            _family, apart(_table), lambda n: "lora_transformer_" + flat(n), *_kohya, False,
        ),
        f"{_family} diffusers": (
            _family, apart(_table), lambda n: "transformer." + n, *_peft, True,
        ),
        f"{_family} PEFT": (
            _family, apart(_table), lambda n: "base_model.model." + n, *_peft, False,
        ),
        f"{_family} ComfyUI": (_family, _table, lambda n: "diffusion_model." + n, *_peft, False),
        f"{_family} BFL": (_family, _table, lambda n: n, *_peft, False),
    }  # fmt: skip
VARIANTS["flux XLabs"] = ("flux", XLABS, lambda n: n, "down.weight", "up.weight", False, True)
VARIANTS["flux kohya, all"] = (
    "flux", FLUX_MORE, lambda n: "lora_unet_" + flat(n), "lora_down.weight", "lora_up.weight",
    True, False,
)  # fmt: skip


@pytest.fixture(scope="module")
def bases() -> dict[str, Base]:
    return {
        "flux": folders.wrapped(folders.flux()),
        "sd3": folders.wrapped(folders.sd3()),
    }


def entries_of(variant: Variant, base: Base) -> tuple[Entries, dict[str, Tensor]]:
    """A file's entries, and what they change: path in the transformer to dW."""
    _, table, named, down_name, up_name, has_alpha, _ = variant
    g = torch.Generator().manual_seed(5)
    entries: Entries = {}
    changes: dict[str, Tensor] = {}
    for name, layers in table.items():
        weights = [base.denoiser.get_submodule(layer).weight for layer in layers]
        sizes, into = [len(w) for w in weights], weights[0].shape[1]
        down = 0.3 * torch.randn(RANK, into, generator=g)
        up = 0.3 * torch.randn(sum(sizes), RANK, generator=g)
        entries |= {f"{named(name)}.{down_name}": down, f"{named(name)}.{up_name}": up}
        scale = 1.0
        if has_alpha:
            entries[f"{named(name)}.alpha"] = torch.tensor(ALPHA)
            scale = ALPHA / RANK
        changes |= zip(layers, (scale * up @ down).split(sizes), strict=True)
    return entries, changes


def velocity(base: Base, rows: list[Any]) -> Tensor:
    """Of one noisy latent, by rows that read the texts given."""
    latents = torch.randn(1, base.channels, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return base.predict(latents.expand(len(rows), -1, -1, -1), 700.0, rows).noise


@pytest.mark.parametrize("name", VARIANTS)
def test_each_key_style_is_read_to_the_formula(
    name: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    variant = VARIANTS[name]
    base = bases[variant[0]]
    entries, changes = entries_of(variant, base)
    file = tmp_path / "look.safetensors"
    save_file(entries, file)
    concept = load_concept(file, base)
    assert concept.adapters.keys() == {f"transformer.{path}" for path in changes}
    told = concept.recipe["imported"]
    style = name.split(" ", 1)[1].split(",")[0]
    assert told["kind"] == f"LoRA ({style})"
    assert told["layers_used"] == told["layers"] == len(variant[1])
    assert run(base, measure_effect(base, concept)) > 1e-3
    plain, changed = velocity(
        base,
        [base.text(PROMPT), base.text(f"{PROMPT} <look>", [Weighted(concept)])],
    )  # the token has no column, so both read the same words
    weights = {p: base.denoiser.get_submodule(p).weight for p in changes}
    kept = {path: weight.clone() for path, weight in weights.items()}
    try:
        with torch.no_grad():
            for path, delta in changes.items():
                weights[path] += delta
        merged = velocity(base, [base.text(PROMPT)])[0]
    finally:
        with torch.no_grad():
            for path, weight in kept.items():
                weights[path].copy_(weight)
    torch.testing.assert_close(changed, merged, atol=1e-5, rtol=0)
    assert (changed - plain).abs().max() > 1e-2


@pytest.mark.parametrize("name", [n for n, v in VARIANTS.items() if v[-1]])
def test_what_stock_diffusers_reads_changes_as_much(
    name: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    variant = VARIANTS[name]
    base = bases[variant[0]]
    entries, _ = entries_of(variant, base)
    save_file(entries, tmp_path / "look.safetensors")
    concept = load_concept(tmp_path / "look.safetensors", base)
    ours = velocity(base, [base.text(f"{PROMPT} <look>", [Weighted(concept)])])
    stock: Any = getattr(folders, variant[0])()
    stock.load_lora_weights(tmp_path / "look.safetensors")
    stock.fuse_lora()
    stock.unload_lora_weights()
    fused = folders.wrapped(stock)
    torch.testing.assert_close(ours, velocity(fused, [fused.text(PROMPT)]), atol=1e-5, rtol=0)


def test_a_modulation_with_its_halves_exchanged(bases: dict[str, Base], tmp_path: Path) -> None:
    base = bases["flux"]
    g = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 32, generator=g), torch.randn(64, 2, generator=g)
    name = "lora_unet_final_layer_adaLN_modulation_1"
    save_file(
        {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "l.safetensors"
    )
    (adapter,) = load_concept(tmp_path / "l.safetensors", base).adapters.values()
    shift, scale = (up @ down).chunk(2)  # diffusers has the scale first
    torch.testing.assert_close(adapter.delta(), torch.cat([scale, shift]))


@pytest.mark.parametrize(("of", "to"), [("flux", "sd3"), ("sd3", "flux")])
def test_a_lora_of_another_family_is_named(
    of: str, to: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    entries, _ = entries_of(VARIANTS[f"{of} kohya"], bases[of])
    save_file(entries, tmp_path / "l.safetensors")
    wanted = {"flux": "FLUX.1", "sd3": "Stable Diffusion 3.x"}
    with pytest.raises(InputError) as refused:
        load_concept(tmp_path / "l.safetensors", bases[to])
    assert f"is a LoRA for {wanted[of]}; this base is {wanted[to]}" in str(refused.value)


@pytest.mark.parametrize(
    ("family", "encoder", "part", "layer"),
    [
        ("flux", "te1_text_model", "text_encoder", "encoder.layers.0.mlp.fc1"),
        ("flux", "te3", "text_encoder_2", "encoder.block.0.layer.0.SelfAttention.q"),
        ("sd3", "te2_text_model", "text_encoder_2", "encoder.layers.1.self_attn.k_proj"),
        ("sd3", "te3", "text_encoder_3", "encoder.block.1.layer.1.DenseReluDense.wo"),
    ],
)
def test_text_encoders_are_counted_as_kohyas_scripts_do(
    family: str, encoder: str, part: str, layer: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    base, path, name = bases[family], f"{part}.{layer}", f"lora_{encoder}_{flat(layer)}"
    weight = base.family.adaptable[path].weight
    g = torch.Generator().manual_seed(0)
    down = torch.randn(2, weight.shape[1], generator=g)
    up = torch.randn(weight.shape[0], 2, generator=g)
    save_file(
        {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "l.safetensors"
    )
    concept = load_concept(tmp_path / "l.safetensors", base)
    assert list(concept.adapters) == [path]
    changed = base.text(f"{PROMPT} <l>", [Weighted(concept)])
    plain = base.text(PROMPT)
    same_pooled = (
        changed.pooled is not None
        and plain.pooled is not None
        and torch.equal(changed.pooled, plain.pooled)
    )
    assert not torch.equal(changed.states, plain.states) or not same_pooled
