"""Stable Diffusion 3 and FLUX.1 through the engine, against stock diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from customedit.diffusion import autoencoder
from customedit.diffusion.adapters import LowRank
from customedit.diffusion.base import Base
from customedit.diffusion.engine import Engine, run
from customedit.diffusion.text import Weighted
from customedit.editing.direct_edit import direct_edit
from customedit.editing.inversion import invert
from customedit.editing.method_settings import DirectEditSettings, SDEditSettings
from customedit.editing.sdedit import sdedit
from customedit.errors import InputError

from . import flow_folders as folders

PROMPT = "a photo of a red cup, near a dog"
KINDS = ("sd3", "flux", "schnell")
STEPS = 4


def pipeline(kind: str) -> Any:
    return {
        "sd3": folders.sd3,
        "sd3 dynamic": lambda: folders.sd3(
            shift=3.0, use_dynamic_shifting=True, base_image_seq_len=16
        ),
        "sd3 without T5": lambda: folders.sd3(t5=False),
        "flux": folders.flux,
        "schnell": lambda: folders.flux(guidance=False, shift=1.0),
    }[kind]()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def bases() -> dict[str, Base]:
    return {kind: folders.wrapped(pipeline(kind)) for kind in KINDS}


class Change:
    """A concept of low-rank changes of a transformer and a text encoder, with an embedding."""

    def __init__(self, base: Base, token: str, seed: int, *, rank: int = 3) -> None:
        g = torch.Generator().manual_seed(seed)
        self.tokens = {token: 0.5 * torch.randn(base.width, generator=g)}
        self.keys: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}
        paths = [
            "transformer.context_embedder",
            "transformer.transformer_blocks.0.attn.add_k_proj",
            "transformer.transformer_blocks.1.attn.to_q",
            "transformer.transformer_blocks.1.ff.net.2",
            "transformer.transformer_blocks.2.norm1.linear",
            "transformer.time_text_embed.text_embedder.linear_1",
            "text_encoder.encoder.layers.0.self_attn.v_proj",
            "transformer.pos_embed.proj",  # of Stable Diffusion 3, a convolution: LoCon
        ]
        paths = [path for path in paths if path in base.family.adaptable]
        self.adapters = {}
        for path in paths:
            out, *into = base.family.adaptable[path].weight.shape
            up, down = torch.randn(out, rank, generator=g), torch.randn(rank, *into, generator=g)
            self.adapters[path] = LowRank(0.2 * up, 0.2 * down, scale=1.5)


@pytest.mark.parametrize("kind", [*KINDS, "sd3 dynamic", "sd3 without T5"])
def test_a_picture_drawn_from_text_is_the_stock_pipelines(kind: str) -> None:
    stock = pipeline(kind)
    guidance = 1.0 if kind == "schnell" else 3.0
    wanted = stock(
        PROMPT, generator=torch.Generator().manual_seed(7), num_inference_steps=STEPS, height=32,
        width=48, guidance_scale=guidance, output_type="np", max_sequence_length=256
        if kind == "sd3 without T5" else folders.T5_LENGTH,
    ).images[0]  # fmt: skip
    base = folders.wrapped(pipeline(kind))
    latents = run(
        base,
        sdedit(
            base, torch.zeros(1, 4, 16, 24), base.text(PROMPT), steps=STEPS, guidance=guidance,
            seed=7, settings=SDEditSettings(strength=1.0),
        ),
    ).latents  # fmt: skip
    drawn = autoencoder.decode(base.pipeline.vae, latents, base.device)[0] / 2 + 0.5
    found = drawn.clamp(0, 1).permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() <= 1e-3
    assert wanted.std() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_forward_is_that_of_diffusers(kind: str, bases: dict[str, Base]) -> None:
    """Of what the stock pipeline gives its transformer in the second step, guided."""
    base, stock = bases[kind], pipeline(kind)
    guidance, calls = 1.0 if kind == "schnell" else 3.0, []
    stock.transformer.register_forward_hook(
        lambda _, args, told, output: calls.append((told, output[0])), with_kwargs=True
    )
    stock(
        PROMPT, generator=torch.Generator().manual_seed(7), num_inference_steps=2, height=32,
        width=48, guidance_scale=guidance, output_type="latent",
        max_sequence_length=folders.T5_LENGTH,
    )  # fmt: skip
    told, wanted = calls[1]
    latents, times = told["hidden_states"], told["timestep"]
    if kind != "sd3":
        latents, wanted = (
            stock._unpack_latents(x, 32, 48, stock.vae_scale_factor) for x in (latents, wanted)
        )
        times = 1000 * times
    rows = base.family.guided(base.text(PROMPT), base.text(""), guidance)
    with torch.no_grad():
        found, _ = base.output(latents, times, rows)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_the_stock_pipelines(kind: str, bases: dict[str, Base]) -> None:
    base, stock = bases[kind], pipeline(kind)
    for prompt in (PROMPT, "", "a cup " * 11):
        ours = base.text(prompt)
        with torch.no_grad():
            if kind == "sd3":
                states, _, pooled, _ = stock.encode_prompt(
                    prompt, prompt, prompt, do_classifier_free_guidance=False,
                    max_sequence_length=folders.T5_LENGTH,
                )  # fmt: skip
            else:
                states, pooled, _ = stock.encode_prompt(
                    prompt, max_sequence_length=folders.T5_LENGTH
                )
        torch.testing.assert_close(ours.states, states[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.pooled, pooled[0], atol=1e-5, rtol=0)


def rows_of(base: Base, texts: list[Any], control: Any = None) -> Tensor:
    g = torch.Generator().manual_seed(2)
    latents = torch.randn(1, base.channels, 16, 16, generator=g)
    times = torch.full((len(texts),), 640.0)
    with torch.no_grad():
        return base.predict(latents.expand(len(texts), -1, -1, -1), times, texts, control).noise


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_one_forward_are_the_models_with_the_weights_put_in(
    kind: str, bases: dict[str, Base]
) -> None:
    base = bases[kind]
    a, b, c = (Change(base, f"<{n}>", k) for k, n in enumerate("abc"))
    words = "a photo of a {} cup"
    used: list[list[Weighted]] = [[], [Weighted(a)], [Weighted(b, 0.5)], [Weighted(a), Weighted(c)]]
    texts = [
        base.text(words.format(" ".join(t for w in entries for t in w.concept.tokens)), entries)
        for entries in used
    ]
    together = rows_of(base, texts)
    for row, entries in enumerate(used):
        layers = base.family.adaptable
        kept = {p: m.weight.clone() for p, m in layers.items()}
        try:
            with torch.no_grad():
                for entry in entries:
                    for path, adapter in entry.concept.adapters.items():  # type: ignore[attr-defined]
                        layers[path].weight += entry.weight * adapter.delta()
            plain = [Weighted(_Token(w.concept.tokens)) for w in entries]
            alone = rows_of(base, [base.text(texts[row].prompt, plain)])[0]
        finally:
            with torch.no_grad():
                for path, weight in kept.items():
                    layers[path].weight.copy_(weight)
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)
    assert (together[1:] - together[0]).abs().flatten(1).amax(1).min() > 1e-2


class _Token:
    """An embedding without changes of weights."""

    def __init__(self, tokens: Any) -> None:
        self.tokens = tokens
        self.keys: dict[str, Any] = {}
        self.values: dict[str, Any] = {}


def test_rows_are_told_their_own_guidance(bases: dict[str, Base]) -> None:
    base = bases["flux"]
    (text,) = base.family.guided(base.text(PROMPT), base.text(""), 3.5)
    told = [base.text(PROMPT), text]
    together = rows_of(base, told)
    for row, one in enumerate(told):
        torch.testing.assert_close(together[row], rows_of(base, [one])[0], atol=1e-5, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3
    schnell = bases["schnell"]
    target, empty = schnell.text(PROMPT), schnell.text("")
    assert schnell.family.guided(target, empty, 1.0) == (target,)
    assert schnell.family.guided(target, empty, 2.0) == (empty, target)


def test_jobs_of_several_times_share_a_forward(bases: dict[str, Base]) -> None:
    base = bases["sd3"]

    def drawing(steps: int, seed: int) -> Any:
        return sdedit(
            base, torch.zeros(1, 4, 16, 16), base.text(PROMPT), steps=steps, guidance=3.0,
            seed=seed, settings=SDEditSettings(strength=1.0),
        )  # fmt: skip

    engine = Engine(base)
    tickets = [engine.submit(drawing(steps, seed)) for seed, steps in enumerate((2, 3))]
    while not engine.idle:
        engine.tick()
    assert engine.calls == 3
    for seed, (ticket, steps) in enumerate(zip(tickets, (2, 3), strict=True)):
        alone = run(base, drawing(steps, seed)).latents
        torch.testing.assert_close(ticket.result().latents, alone, atol=1e-4, rtol=0)


def test_columns_of_a_word_are_clips_and_t5s(bases: dict[str, Base]) -> None:
    base = bases["sd3"]
    vectors = {"<plaid>": torch.zeros(2, base.width)}
    tokens = base.tokens("a <plaid> cup", vectors)
    length = base.tokenizer.model_max_length
    assert list(tokens.columns(1)) == [2, 3, length + 1, length + 2]  # CLIP has a start token
    assert list(bases["flux"].tokens("a <plaid> cup", vectors).columns(1)) == [1, 2]


def test_a_long_prompt_is_clips_beginning_and_t5s_limit(bases: dict[str, Base]) -> None:
    base = bases["flux"]
    clip, t5 = base.family.encoders
    clip.tokenizer.model_max_length = 8
    try:
        text = base.text(PROMPT)
        assert text.states.shape[0] == folders.T5_LENGTH
        torch.testing.assert_close(text.pooled, base.text("a photo of a red cup,").pooled)
        with pytest.raises(InputError, match=f"the model reads {folders.T5_LENGTH}"):
            base.text("cup " * folders.T5_LENGTH, field="target_prompt")
    finally:
        clip.tokenizer.model_max_length = 40
    assert base.family.tokenizers == [(t5.tokenizer, folders.T5_LENGTH)]


@pytest.mark.parametrize("kind", ["sd3", "sd3 without T5", "flux"])
def test_a_folder_is_loaded(kind: str, tmp_path: Path) -> None:
    stock = pipeline(kind)
    folder = folders.saved(stock, tmp_path / "base")
    base = Base.load(folder)
    assert base.sizes.side == folders.SIDE
    assert base.profile.architecture.startswith("FLUX.1 dev" if kind == "flux" else "Stable Diff")
    again = folders.wrapped(stock)
    assert base.fingerprint == again.fingerprint
    assert base.concept_fingerprint == again.concept_fingerprint
    assert len(base.family.encoders) == (3 if kind == "sd3" else 2)


def test_folders_that_cannot_be_driven_are_named(tmp_path: Path) -> None:
    folder = folders.saved(folders.flux(), tmp_path / "base")

    def refused(path: str, changes: dict[str, Any], match: str) -> None:
        file = folder / path
        text = file.read_text()
        file.write_text(json.dumps(json.loads(text) | changes))
        with pytest.raises(InputError, match=match):
            Base.load(folder)
        file.write_text(text)

    refused("transformer/config.json", {"in_channels": 96}, r"FLUX\.1 Fill")
    refused("transformer/config.json", {"in_channels": 32}, "Canny or Depth")
    refused("transformer/config.json", {"patch_size": 2}, "patch_size")
    refused("scheduler/scheduler_config.json", {"invert_sigmas": True}, "invert_sigmas")
    refused("scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"}, "DDIMScheduler")
    refused("text_encoder_2/config.json", {"model_type": "umt5"}, "umt5")
    refused("transformer/config.json", {"joint_attention_dim": 48}, "damaged|width")


def test_t5_keeps_in_float32_what_overflows_in_float16() -> None:
    base = Base.wrap(
        folders.flux(), "half", dtype=torch.float16, profile=folders.profile(folders.flux())
    )
    t5 = base.family.encoders[1].model
    kinds = {n.rpartition(".")[2]: m.weight.dtype for n, m in t5.named_modules() if ".wo" in n}
    assert kinds == {"wo": torch.float32}
    assert t5.encoder.block[0].layer[0].SelfAttention.q.weight.dtype == torch.float16
    assert bool(base.text(PROMPT).states.isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_direct_edit_gives_the_source_back_by_its_own_prompt(
    kind: str, bases: dict[str, Base]
) -> None:
    base, steps = bases[kind], 3
    side = base.side // base.factor
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn((1, base.channels, side, side), generator=generator)
    inversion = run(base, invert(base, latents, PROMPT, steps=steps))
    texts = base.text(PROMPT), base.text("a photo of a blue ball, near a dog")

    def edited(target: int, strength: float) -> Tensor:
        settings = DirectEditSettings(strength=strength)
        method = direct_edit(
            base, inversion, texts[0], texts[target], settings=settings, guidance=1.0
        )
        return run(base, method).latents

    assert (edited(0, 0.0) - latents).abs().max() <= 1e-4
    assert (edited(0, 1.0) - latents).abs().max() <= 1e-4
    free, held = edited(1, 0.0), edited(1, 1.0)
    assert (free - latents).abs().max() > 1e-3
    assert (free - held).abs().max() > 1e-5  # values of the source's image tokens act
    for method in ("masactrl", "pnp", "ddpm"):
        with pytest.raises(InputError, match=f"{method} is not in this family"):
            base.family.require(method, "method")
