"""Which key styles are read for which family: those that the files beside do not hold.

Each is read to the published formula, whole, and with an effect; docs/bases.md has the whole table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from customedit.concepts.effect import prove_effect
from customedit.concepts.files import load_concept
from customedit.diffusion.adapters import Adapter, Hadamard, Kronecker
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.errors import InputError

from ..diffusion import flow_folders, xl_folders

RANK, ALPHA = 4, 2.0
FAMILIES = ("sd", "xl", "sd3", "flux")
Entries = dict[str, Tensor]


@pytest.fixture(scope="module")
def bases() -> dict[str, Base]:
    return {
        "sd": Base.load(),
        "xl": Base.wrap(xl_folders.xl(), "xl"),
        "sd3": flow_folders.wrapped(flow_folders.sd3()),
        "flux": flow_folders.wrapped(flow_folders.flux()),
    }


def flat(path: str) -> str:
    return path.replace(".", "_")


def stacks(base: Base) -> dict[str, list[str]]:
    """Original names of the denoiser's attention layers, and the base's layers in each."""
    family = base.family
    names = {n: found.layers for n, found in family.original_names().items() if not found.swapped}
    chosen = {n: [f"{family.layout.denoiser}.{x}" for x in layers] for n, layers in names.items()}
    return {
        n: layers for n, layers in chosen.items()
        if all(".attn" in x and x in family.adaptable for x in layers) and "linear1" not in n
    }  # fmt: skip


def read(entries: Entries, base: Base, folder: Path) -> dict[str, Adapter]:
    """The adapters of a file, every layer of which is used and which changes what is drawn."""
    file = folder / "look.safetensors"
    save_file({n: t.contiguous() for n, t in entries.items()}, file)
    concept = run(base, prove_effect(base, load_concept(file, base)))
    told = concept.recipe["imported"]
    assert told["layers_used"] == told["layers"] and told["effect"] > 0
    return dict(concept.adapters)


def low_rank(
    base: Base, table: dict[str, list[str]], named: Callable[[str], str], factors: tuple[str, str]
) -> tuple[Entries, dict[str, Tensor]]:
    """A LoRA's entries, and each layer's dW."""
    g = torch.Generator().manual_seed(3)
    entries: Entries = {}
    wanted: dict[str, Tensor] = {}
    has_alpha = factors[0].startswith("lora_down")
    for name, layers in table.items():
        weights = [base.family.adaptable[layer].weight for layer in layers]
        sizes = [len(w) for w in weights]
        shape = weights[0].shape[1:]
        down = torch.randn(RANK, *shape, generator=g)
        up = torch.randn(sum(sizes), RANK, generator=g)
        wide = up[:, :, None, None] if len(shape) > 1 else up
        entries |= {f"{named(name)}.{factors[0]}": down, f"{named(name)}.{factors[1]}": wide}
        if has_alpha:
            entries[f"{named(name)}.alpha"] = torch.tensor(ALPHA)
        delta = (ALPHA / RANK if has_alpha else 1.0) * (up @ down.flatten(1))
        parts = delta.unflatten(1, shape).split(sizes)
        wanted |= zip(layers, parts, strict=True)
    return entries, wanted


def check(found: dict[str, Adapter], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for path, delta in wanted.items():
        torch.testing.assert_close(found[path].delta(), delta, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_comfyuis_own_files(family: str, bases: dict[str, Base], tmp_path: Path) -> None:
    """As its node writes them: original names of every layer, kohya's factors."""
    base = bases[family]
    entries, wanted = low_rank(
        base, stacks(base), lambda n: f"diffusion_model.{n}", ("lora_down.weight", "lora_up.weight")
    )
    assert len(wanted) > 20
    check(read(entries, base, tmp_path), wanted)


def test_old_diffusers_names_of_stable_diffusion_xl(bases: dict[str, Base], tmp_path: Path) -> None:
    base = bases["xl"]
    table = {x: [x] for layers in stacks(base).values() for x in layers if ".to_" in x}

    def named(path: str) -> str:
        start, end = path.rsplit(".to_", 1)
        return f"{start}.processor.to_{end.removesuffix('.0')}_lora"

    entries, wanted = low_rank(base, table, named, ("down.weight", "up.weight"))
    check(read(entries, base, tmp_path), wanted)


ENCODERS = [  # family, kohya's and ComfyUI's names of an encoder, diffusers', a layer of it
    ("sd", "lora_te_text_model", "clip_l", "text_encoder", "encoder.layers.1.self_attn.q_proj"),
    ("xl", "lora_te1_text_model", "clip_l", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
    ("xl", "lora_te2_text_model", "clip_g", "text_encoder_2", "encoder.layers.0.mlp.fc1"),
    ("sd3", "lora_te1_text_model", "clip_l", "text_encoder", "encoder.layers.0.mlp.fc2"),
    ("sd3", "lora_te2_text_model", "clip_g", "text_encoder_2", "encoder.layers.1.self_attn.v_proj"),
    ("sd3", "lora_te3", "t5xxl", "text_encoder_3", "encoder.block.0.layer.0.SelfAttention.q"),
    ("flux", "lora_te1_text_model", "clip_l", "text_encoder", "encoder.layers.0.self_attn.k_proj"),
    ("flux", "lora_te3", "t5xxl", "text_encoder_2", "encoder.block.1.layer.1.DenseReluDense.wo"),
]


@pytest.mark.parametrize("style", ["kohya", "diffusers", "ComfyUI"])
@pytest.mark.parametrize(("family", "kohya", "comfy", "part", "layer"), ENCODERS)
def test_text_encoders_in_each_style(
    style: str, family: str, kohya: str, comfy: str, part: str, layer: str,
    bases: dict[str, Base], tmp_path: Path,
) -> None:  # fmt: skip
    model = "" if ".block." in layer else "text_model."
    name = {
        "kohya": f"{kohya}_{flat(layer)}",
        "diffusers": f"{part}.{model}{layer}",
        "ComfyUI": f"text_encoders.{comfy}.transformer.{model}{layer}",
    }[style]
    factors = {
        "kohya": ("lora_down.weight", "lora_up.weight"),
        "diffusers": ("lora_A.weight", "lora_B.weight"),
        "ComfyUI": ("lora_down.weight", "lora_up.weight"),
    }[style]
    table = {name: [f"{part}.{layer}"]}
    entries, wanted = low_rank(bases[family], table, lambda n: n, factors)
    check(read(entries, bases[family], tmp_path), wanted)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["LoHa", "LoKr"])
def test_lycoris_kinds_in_every_family(
    kind: str, family: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    """Of a layer that is several in the base, each gets its rows of the product."""
    base = bases[family]
    g = torch.Generator().manual_seed(1)
    entries: Entries = {}
    wanted: dict[str, Tensor] = {}
    for name, layers in list(stacks(base).items())[:4]:
        weights = [base.family.adaptable[x].weight for x in layers]
        sizes, into = [len(w) for w in weights], weights[0].flatten(1).shape[1]
        out, start = sum(sizes), f"lora_unet_{flat(name)}"
        if kind == "LoHa":
            shapes = {"hada_w1_a": (out, 2), "hada_w1_b": (2, into)}
            shapes |= {"hada_w2_a": (out, 2), "hada_w2_b": (2, into)}
            f = {n: torch.randn(shape, generator=g) for n, shape in shapes.items()}
            a, b, c, d = f.values()
            delta = ALPHA / 2 * (a @ b) * (c @ d)
            entries[f"{start}.alpha"] = torch.tensor(ALPHA)
        else:
            f = {"lokr_w1": torch.randn(4, 4, generator=g)}
            f["lokr_w2"] = torch.randn(out // 4, into // 4, generator=g)
            delta = torch.kron(f["lokr_w1"], f["lokr_w2"])
        entries |= {f"{start}.{n}": t for n, t in f.items()}
        shaped = [d.reshape(w.shape) for d, w in zip(delta.split(sizes), weights, strict=True)]
        wanted |= zip(layers, shaped, strict=True)
    found = read(entries, base, tmp_path)
    check(found, wanted)
    if kind == "LoKr" and family in ("sd", "xl"):
        assert all(isinstance(a, Kronecker) for a in found.values())
    assert kind == "LoKr" or not any(isinstance(a, Kronecker) for a in found.values())
    assert not any(
        isinstance(a, Hadamard) and a.numbers > a.delta().numel() for a in found.values()
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("key", ["dora_scale", "lora_magnitude_vector.weight"])
def test_a_dora_is_refused_by_its_name(
    key: str, family: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    base = bases[family]
    name = next(iter(stacks(base)))
    entries, _ = low_rank(
        base, {name: stacks(base)[name]}, lambda n: f"lora_unet_{flat(n)}",
        ("lora_down.weight", "lora_up.weight"),
    )  # fmt: skip
    entries[f"lora_unet_{flat(name)}.{key}"] = torch.ones(1, 4)
    save_file(entries, tmp_path / "look.safetensors")
    with pytest.raises(InputError, match="is a DoRA"):
        load_concept(tmp_path / "look.safetensors", base)
