"""LoRAs in the key styles that users own: read for a base to the published formula, and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from customedit.concepts.checks import check_concept
from customedit.concepts.concept import Concept
from customedit.concepts.effect import measure_effect, prove_effect
from customedit.concepts.files import Description, load_concept, save_concept
from customedit.concepts.files.entries import read_state_dict
from customedit.concepts.files.lora import Lora, lora_entries, read_lora
from customedit.diffusion.adapters import (
    TEXT_ENCODER,
    UNET,
    Adapter,
    Hadamard,
    Kronecker,
    LowRank,
    layers_of,
)
from customedit.diffusion.base import Base
from customedit.diffusion.engine import run
from customedit.diffusion.text import Weighted
from customedit.errors import InputError

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
LINEAR = [f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn2.to_out.0"]
CONVOLUTIONS = ["down_blocks.0.resnets.0.conv1", "down_blocks.0.attentions.0.proj_in"]
TEXT = "encoder.layers.0.self_attn.q_proj"
RANK, ALPHA = 4, 2.0

Entries = dict[str, Tensor]


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.load()


@pytest.fixture(scope="module")
def layers(base: Base) -> dict[str, nn.Linear | nn.Conv2d]:
    return layers_of(base.denoiser, UNET) | layers_of(base.pipeline.text_encoder, TEXT_ENCODER)


@pytest.fixture
def randn() -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(7)
    return lambda *shape: 0.1 * torch.randn(shape, generator=generator)


def kohya(path: str) -> str:
    if path.startswith(UNET):
        return "lora_unet_" + path.removeprefix(UNET).replace(".", "_")
    return "lora_te_text_model_" + path.removeprefix(TEXT_ENCODER).replace(".", "_")


def text_model(path: str) -> str:
    return path.replace(TEXT_ENCODER, TEXT_ENCODER + "text_model.")


def old_processor(path: str) -> str:
    start, end = path.removeprefix(UNET).rsplit(".to_", 1)
    return f"{start}.processor.to_{end.removesuffix('.0')}_lora"


STYLES: dict[str, tuple[Callable[[str], str], str, str]] = {
    # how a layer is called, and the two factors
    "kohya": (kohya, "lora_down.weight", "lora_up.weight"),
    "PEFT": (
        lambda p: "base_model.model." + p.removeprefix(UNET).removeprefix(TEXT_ENCODER),
        "lora_A.weight",
        "lora_B.weight",
    ),
    "PEFT, default": (
        lambda p: "base_model.model." + p,
        "lora_A.default.weight",
        "lora_B.default.weight",
    ),
    "diffusers": (text_model, "lora.down.weight", "lora.up.weight"),
    "diffusers, PEFT": (text_model, "lora_A.weight", "lora_B.weight"),
    "diffusers, text": (text_model, "lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    "old diffusers": (old_processor, "down.weight", "up.weight"),
    "older diffusers": (lambda p: UNET + old_processor(p), "down.weight", "up.weight"),
}


def factors(shape: tuple[int, ...], randn: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    up = randn(shape[0], RANK, *(1 for _ in shape[2:]))
    return randn(RANK, *shape[1:]), up


@pytest.mark.parametrize("style", STYLES)
def test_each_key_style_is_read_to_the_formula(
    style: str,
    base: Base,
    layers: dict[str, nn.Linear | nn.Conv2d],
    randn: Callable[..., Tensor],
    tmp_path: Path,
) -> None:
    name, down_name, up_name = STYLES[style]
    old = "old" in style
    paths = [UNET + n for n in LINEAR]
    if not old:
        paths += [TEXT_ENCODER + TEXT, *(UNET + n for n in CONVOLUTIONS)]
    entries: Entries = {}
    wanted: dict[str, Tensor] = {}
    for path in paths:
        shape = tuple(layers[path].weight.shape)
        down, up = factors(shape, randn)
        entries |= {f"{name(path)}.{down_name}": down, f"{name(path)}.{up_name}": up}
        scale = 1.0
        if style == "kohya":
            entries[f"{name(path)}.alpha"] = torch.tensor(ALPHA)
            scale = ALPHA / RANK
        wanted[path] = scale * (up.flatten(1).double() @ down.flatten(1).double()).reshape(shape)
    file = tmp_path / "my lora.safetensors"
    save_file(entries, file)
    concept = load_concept(file, base)
    assert concept.adapters.keys() == wanted.keys()
    for path, delta in wanted.items():
        torch.testing.assert_close(
            concept.adapters[path].delta().double(), delta, atol=1e-6, rtol=1e-5
        )
    told = concept.recipe["imported"]
    assert told["layers_used"] == told["layers"] == len(paths)
    assert told["kind"].startswith("LoRA" if old else "LoCon, LoRA")
    assert told["kind"].endswith(f"({style.replace('older', 'old').split(',')[0]})")
    assert list(concept.tokens) == ["<my-lora>"]
    assert concept.tokens["<my-lora>"].shape == (0, base.width)
    assert run(base, measure_effect(base, concept)) > 1e-4


def _loha(shape: tuple[int, ...], randn: Callable[..., Tensor], rank: int) -> Entries:
    flat = int(torch.tensor(shape[1:]).prod())
    sides = {"hada_w1_a": shape[0], "hada_w1_b": flat, "hada_w2_a": shape[0], "hada_w2_b": flat}
    return {n: randn(*((rank, s) if n.endswith("b") else (s, rank))) for n, s in sides.items()}


def _tucker(shape: tuple[int, ...], randn: Callable[..., Tensor]) -> Entries:
    out, into, *kernel = shape
    return {
        "hada_w1_a": randn(RANK, out), "hada_w1_b": randn(RANK, into),
        "hada_w2_a": randn(RANK, out), "hada_w2_b": randn(RANK, into),
        "hada_t1": randn(RANK, RANK, *kernel), "hada_t2": randn(RANK, RANK, *kernel),
    }  # fmt: skip


def _rebuilt(f: Entries, number: str) -> Tensor:
    """LyCORIS' own rebuilding of a factor with its core."""
    a, b, t = f[f"hada_w{number}_a"], f[f"hada_w{number}_b"], f[f"hada_t{number}"]
    return torch.einsum("ijkl,jr,ip->prkl", t, b, a)


CONVOLUTION = UNET + CONVOLUTIONS[0]
ATTENTION = UNET + LINEAR[0]


def _kin(kind: str, layers: Any, randn: Callable[..., Tensor]) -> tuple[str, Entries, Tensor, type]:
    """(layer, entries, dW as LyCORIS makes it, the adapter's class)."""
    path = ATTENTION if kind.endswith("linear") else CONVOLUTION
    shape = tuple(layers[path].weight.shape)
    out, into, *kernel = shape
    if kind.startswith("loha tucker"):
        f = _tucker(shape, randn)
        return path, f, _rebuilt(f, "1") * _rebuilt(f, "2"), LowRank
    if kind.startswith("loha"):
        rank = 12 if "high" in kind else 2
        f = _loha(shape, randn, rank)
        delta = (f["hada_w1_a"] @ f["hada_w1_b"]) * (f["hada_w2_a"] @ f["hada_w2_b"])
        return path, f, delta.reshape(shape), Hadamard if "high" in kind else LowRank
    if kind.startswith("locon mid"):
        f = {
            "lora_down.weight": randn(RANK, into, 1, 1),
            "lora_mid.weight": randn(RANK, RANK, *kernel),
            "lora_up.weight": randn(out, RANK, 1, 1),
        }
        delta = torch.einsum(
            "om,mrkl,ri->oikl", f["lora_up.weight"].flatten(1), f["lora_mid.weight"],
            f["lora_down.weight"].flatten(1),
        )  # fmt: skip
        return path, f, delta, LowRank
    w1, (c, d) = randn(4, 4), (out // 4, into // 4)
    if "whole" in kind:
        w2 = randn(c, d, *kernel)
        f = {"lokr_w1": w1, "lokr_w2": w2}
    elif "tucker" in kind:
        f = {"lokr_w1": w1, "lokr_w2_a": randn(RANK, c), "lokr_w2_b": randn(RANK, d),
             "lokr_t2": randn(RANK, RANK, *kernel)}  # fmt: skip
        w2 = torch.einsum("ijkl,ip,jr->prkl", f["lokr_t2"], f["lokr_w2_a"], f["lokr_w2_b"])
    else:
        f = {"lokr_w1_a": randn(4, RANK), "lokr_w1_b": randn(RANK, 4), "lokr_w2_a": randn(c, RANK),
             "lokr_w2_b": randn(RANK, d * int(torch.tensor(kernel).prod()))}  # fmt: skip
        w1 = f["lokr_w1_a"] @ f["lokr_w1_b"]
        w2 = (f["lokr_w2_a"] @ f["lokr_w2_b"]).reshape(c, d, *kernel)
    left = w1.reshape(4, 4, *(1 for _ in kernel))
    return path, f, torch.kron(left, w2.contiguous()), Kronecker


KIN = ["loha linear", "loha high linear", "loha", "loha tucker", "locon mid", "lokr linear",
       "lokr whole linear", "lokr", "lokr whole", "lokr tucker"]  # fmt: skip


@pytest.mark.parametrize("kind", KIN)
def test_lycoris_kinds_are_read_to_its_formulas(
    kind: str, base: Base, layers: Any, randn: Callable[..., Tensor], tmp_path: Path
) -> None:
    path, entries, delta, adapter = _kin(kind, layers, randn)
    rank = {"loha": 2, "loha linear": 2, "loha high linear": 12}.get(kind, RANK)
    scale = 1.0 if "whole" in kind else ALPHA / rank
    file = tmp_path / "x.safetensors"
    named = {f"{kohya(path)}.{n}": t for n, t in entries.items()}
    save_file(named | {f"{kohya(path)}.alpha": torch.tensor(ALPHA)}, file)
    concept = load_concept(file, base)
    found = concept.adapters[path]
    assert type(found) is adapter
    torch.testing.assert_close(found.delta(), scale * delta, atol=1e-6, rtol=1e-4)

    # and what is exported of it is read to the same change
    saved = save_concept(concept, tmp_path / "out", base, "kohya")
    again = load_concept(list(saved.files), base).adapters[path]
    torch.testing.assert_close(again.delta(), found.delta(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("scales", [(0.0, 0.0), (0.0, 2.0), (2.0, 2.0), (1.0, 2.0)])
def test_layers_that_are_turned_off_are_exported_as_such(
    scales: tuple[float, float], base: Base, layers: Any, randn: Callable[..., Tensor],
    tmp_path: Path,
) -> None:  # fmt: skip
    """A file has one alpha; layers of alpha 0 have a scale of 0, and no alpha divides by it."""
    adapters: dict[str, Adapter] = {}
    for name, scale in zip(LINEAR, scales, strict=False):
        down, up = factors(tuple(layers[UNET + name].weight.shape), randn)
        adapters[UNET + name] = LowRank(up, down, scale=scale)
    entries = lora_entries(adapters)
    assert all(bool(t.isfinite().all()) for t in entries.values())
    alphas = {float(t) for n, t in entries.items() if n.endswith("alpha")}
    assert len(alphas) == 1 and alphas.pop() > 0
    save_file(entries, tmp_path / "x.safetensors")
    found = _read(tmp_path / "x.safetensors", base).adapters
    for path, adapter in adapters.items():
        torch.testing.assert_close(found[path].delta(), adapter.delta(), atol=1e-6, rtol=1e-4)


def test_pefts_alpha_is_read_from_beside_the_file_or_its_metadata(
    base: Base, layers: Any, randn: Callable[..., Tensor], tmp_path: Path
) -> None:
    path = UNET + LINEAR[0]
    down, up = factors(tuple(layers[path].weight.shape), randn)
    entries = {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
    wanted = 2.0 * up @ down
    folder = tmp_path / "peft"
    folder.mkdir()
    save_file(
        {f"base_model.model.{n.removeprefix(UNET)}": t for n, t in entries.items()},
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 8}))
    torch.testing.assert_close(load_concept(folder, base).adapters[path].delta(), wanted)
    note = {"lora_adapter_metadata": json.dumps({"unet.r": RANK, "unet.lora_alpha": 8})}
    save_file(entries, tmp_path / "pytorch_lora_weights.safetensors", note)
    found = load_concept(tmp_path / "pytorch_lora_weights.safetensors", base)
    torch.testing.assert_close(found.adapters[path].delta(), wanted)
    (folder / "adapter_config.json").write_text(json.dumps({"use_rslora": True}))
    with pytest.raises(InputError, match="uses PEFT's use_rslora"):
        load_concept(folder, base)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="settings of PEFT that cannot be read"):
        load_concept(folder, base)


# proof of effect


def _entries(base: Base, layers: Any, randn: Callable[..., Tensor], count: int = 3) -> Entries:
    entries: Entries = {}
    for n in LINEAR[:count]:
        down, up = factors(tuple(layers[UNET + n].weight.shape), randn)
        name = kohya(UNET + n)
        entries |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    return entries


def test_a_lora_without_effect_is_refused(
    base: Base, layers: Any, randn: Callable[..., Tensor], tmp_path: Path
) -> None:
    entries = _entries(base, layers, randn)
    zeros = {n: torch.zeros_like(t) if "up" in n else t for n, t in entries.items()}
    save_file(zeros, tmp_path / "x.safetensors")
    read = load_concept(tmp_path / "x.safetensors", base)
    with pytest.raises(InputError, match=r"has no effect: its weights change .* by 0 of it"):
        run(base, prove_effect(base, read))
    assert run(base, prove_effect(base, read, allow_none=True)).base == base.concept_fingerprint


def test_what_is_not_used_is_refused_unless_it_is_allowed(
    base: Base, layers: Any, randn: Callable[..., Tensor], tmp_path: Path
) -> None:
    entries = _entries(base, layers, randn)
    other = "lora_unet_down_blocks_3_attentions_0_proj_in"
    more = {f"{other}.lora_down.weight": randn(4, 8), f"{other}.lora_up.weight": randn(8, 4)}
    file = tmp_path / "x.safetensors"
    save_file(entries | more, file)
    with pytest.raises(
        InputError, match=rf"can use 3 of 4 layers: it has no {other}; .*`allow_unused`"
    ):
        load_concept(file, base)
    told = load_concept(file, base, allow_unused=True).recipe["imported"]
    assert (told["layers_used"], told["layers"]) == (3, 4)
    save_file(more, file)
    with pytest.raises(InputError, match="can use 0 of 1 layers"):
        load_concept(file, base, allow_unused=True)
    save_file(entries | {f"{kohya(ATTENTION)}.oft_blocks": randn(2, 2)}, file)
    with pytest.raises(InputError, match="oft_blocks"):
        load_concept(file, base)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda n, t: ("lora_te2_" + n[10:], t), "LoRA for Stable Diffusion XL; this base is"),
        (lambda n, t: (n.replace("down_blocks_0", "double_blocks_0"), t), "a LoRA for FLUX"),
        (lambda n, t: (n, t.new_ones(4, 999)) if "attn1_to_q.lora_down" in n else (n, t),
         r"is a LoRA .* 2 of 3 layers: unet\.down_blocks\.0.* is 96 x 96 and not 96 x 999"),
        (lambda n, t: (n, t[:, :3]) if "lora_up" in n else (n, t), "make no change"),
        (lambda n, t: (n.replace("lora_up.weight", "dora_scale"), t), "is a DoRA"),
        (lambda n, t: (n, t * torch.nan), "not finite"),
        (lambda n, t: (n.replace("lora_up", "lora_down"), t), "make no change"),
    ],
)  # fmt: skip
def test_loras_that_cannot_be(
    change: Callable[[str, Tensor], tuple[str, Tensor]], problem: str,
    base: Base, layers: Any, randn: Callable[..., Tensor], tmp_path: Path,
) -> None:  # fmt: skip
    entries = dict(change(n, t) for n, t in _entries(base, layers, randn).items())
    save_file({n: t.contiguous() for n, t in entries.items()}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=problem):
        load_concept(tmp_path / "x.safetensors", base)


def test_a_lora_needs_a_base(
    base: Base, layers: Any, randn: Callable[..., Tensor], tmp_path: Path
) -> None:
    save_file(_entries(base, layers, randn), tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"base: is missing; .* is a LoRA"):
        load_concept(tmp_path / "x.safetensors")


def test_a_lora_with_its_word(
    base: Base, layers: Any, randn: Callable[..., Tensor], tmp_path: Path
) -> None:
    word = {"bundle_emb.watercolor.emb_params": randn(3, base.width)}
    save_file(_entries(base, layers, randn) | word, tmp_path / "x.safetensors")
    concept = load_concept(tmp_path / "x.safetensors", base, Description(noun="cup"))
    assert torch.equal(concept.tokens["<watercolor>"], word["bundle_emb.watercolor.emb_params"])
    assert len(concept.adapters) == 3 and concept.noun == "cup"


# written for others


def changed(base: Base, randn: Callable[..., Tensor]) -> Concept:
    """A full-rank change of every key and value."""

    def part(name: str) -> Entries:
        own = {n: base.weights[f"{n}.{name}.weight"] for n in base.layers}
        return {n: w + 0.3 * randn(*w.shape) for n, w in own.items()}

    return Concept({"<plaid>": randn(2, base.width)}, part("to_k"), part("to_v"))


def test_a_full_rank_concept_as_kohyas_lora_with_the_error_that_is_stated(
    base: Base, randn: Callable[..., Tensor], tmp_path: Path
) -> None:
    made = changed(base, randn)
    whole = save_concept(made, tmp_path / "whole", base, "kohya")
    assert [f.name for f in whole.files] == ["plaid-lora.safetensors", "plaid.safetensors"]
    assert whole.error < 1e-5
    lora = _read(whole.files[0], base)
    for name, weight in made.weights.items():
        delta = lora.adapters[UNET + name.removesuffix(".weight")].delta()
        torch.testing.assert_close(base.weights[name] + delta, weight, atol=1e-4, rtol=0)
    assert torch.equal(load_file(whole.files[1])["emb_params"], made.tokens["<plaid>"])

    thin = save_concept(made, tmp_path / "thin", base, "kohya", rank=8)
    lora = _read(thin.files[0], base)
    lost = total = 0.0
    for name, weight in made.weights.items():
        delta = lora.adapters[UNET + name.removesuffix(".weight")].delta()
        lost += float((base.weights[name] + delta - weight).square().sum())
        total += float((weight - base.weights[name]).square().sum())
    assert thin.error == pytest.approx((lost / total) ** 0.5, rel=1e-3) and thin.error > 0.1

    # drawn with as an import: what the concept itself draws, within 1e-3
    back = load_concept(list(whole.files), base, Description(token="<plaid>"))
    check_concept(back, base)
    rows = [base.text("a photo of a <plaid> cup", [Weighted(c)]) for c in (made, back)]
    x = torch.randn(1, base.channels, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, other = base.predict(x.repeat(2, 1, 1, 1), 501, rows).noise
    assert (one - other).abs().max() <= 1e-3


def _read(path: Path, base: Base) -> Lora:
    return read_lora(read_state_dict(path, 2**31), base)


def test_stock_diffusers_loads_the_exported_lora(
    base: Base, randn: Callable[..., Tensor], tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="diffusers loads LoRAs with PEFT alone")
    from diffusers import StableDiffusionPipeline

    from customedit import mini

    made = changed(base, randn)
    saved = save_concept(made, tmp_path, base, "kohya")
    pipe: Any = StableDiffusionPipeline.from_pretrained(mini.path(), safety_checker=None)
    x = torch.randn(1, base.channels, 16, 16, generator=torch.Generator().manual_seed(1))
    states = torch.randn(1, 9, base.width, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = pipe.unet(x, torch.tensor(501), states).sample
        pipe.load_lora_weights(str(tmp_path), weight_name=saved.files[0].name)
        after = pipe.unet(x, torch.tensor(501), states).sample
        by_hand: Any = StableDiffusionPipeline.from_pretrained(mini.path(), safety_checker=None)
        by_hand.unet.load_state_dict(made.weights, strict=False)
        wanted = by_hand.unet(x, torch.tensor(501), states).sample
    assert (after - wanted).abs().max() <= 1e-3
    assert (after - before).abs().max() > 1e-2


def test_formats_that_have_no_place_for_it(
    base: Base, layers: Any, randn: Callable[..., Tensor], tmp_path: Path
) -> None:
    save_file(_entries(base, layers, randn), tmp_path / "x.safetensors")
    concept = load_concept(tmp_path / "x.safetensors", base)
    with pytest.raises(InputError, match="adobe has no place for adapters"):
        save_concept(concept, tmp_path / "delta.bin", base, "adobe")
    with pytest.raises(InputError, match="format: 'zip' is unknown; use one of own, diffusers"):
        save_concept(concept, tmp_path / "x.zip", base, "zip")
    with pytest.raises(InputError, match="rank: has no effect on diffusers"):
        save_concept(concept, tmp_path / "x", base, "diffusers", rank=3)
    files = save_concept(concept, tmp_path / "out", base, "diffusers").files
    assert [f.name for f in files] == ["pytorch_lora_weights.safetensors"]
    again = load_concept(tmp_path / "out", base, Description(token="<x>"))
    assert again.digest == concept.digest
