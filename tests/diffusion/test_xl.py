"""Stable Diffusion XL against stock diffusers: the forward, the text, a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor

from customedit.diffusion import autoencoder
from customedit.diffusion.base import Base
from customedit.diffusion.compatibility import check_folder
from customedit.diffusion.engine import run
from customedit.diffusion.families.known import STABLE_DIFFUSION_XL
from customedit.diffusion.folder import listing, required
from customedit.diffusion.text import Weighted
from customedit.editing.editor import Editor
from customedit.editing.method_settings import SDEditSettings
from customedit.editing.sdedit import sdedit
from customedit.errors import InputError
from customedit.schemas.methods import EXPERTS, EditMethod

from . import folders, xl_folders
from .test_adapters import Carrier, lora, on_layers, put_in, random_of

PROMPTS = ["a photo of a red cup on a table", "a blue ball", ""]
TIMES = torch.tensor([901, 501, 21])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return xl_folders.saved(tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return Base.load(folder)


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def told(pipe: Any, prompts: list[str], sizes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """What the stock UNet is told."""
    with torch.no_grad():
        states, _, pooled, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False)
    return states, {"text_embeds": pooled, "time_ids": sizes}


def test_it_is_known_and_its_sizes_and_layers_are_read(base: Base, folder: Path) -> None:
    assert check_folder(folder, "x") == STABLE_DIFFUSION_XL == base.family.layout
    assert (base.side, base.factor, base.multiple, base.channels) == (64, 4, 16, 4)
    assert base.width == xl_folders.ONE + xl_folders.TWO
    assert len(base.layers) == 2 * 1 + 2 * 3 + 3 + 3 * 3 + 3 * 1
    assert base.profile.architecture == "Stable Diffusion XL" and base.guidance == 5
    assert base.profile.training.of("custom-diffusion")["rank"] == 16
    named = set(required([*listing(folder), "README.md"], "x"))
    assert {f"text_encoder_2/{n}" for n in ("config.json", "model.safetensors")} <= named
    assert "tokenizer_2/tokenizer.json" in named and "README.md" not in named


def test_the_forward_is_that_of_diffusers(base: Base, stock: Any) -> None:
    """Rows of different prompts, times and sizes in one forward."""
    sizes = [(64, 64, 0, 0, 64, 64), (200, 100, 8, 4, 64, 64), (64, 64, 0, 0, 64, 64)]
    x = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    given: list[Any] = [None, sizes[1], None]
    texts = [
        dataclasses.replace(base.text(p), sizes=s) for p, s in zip(PROMPTS, given, strict=True)
    ]
    states, added = told(stock, PROMPTS, torch.tensor(sizes, dtype=torch.float32))
    states[2], added["text_embeds"][2] = 0, 0  # the empty prompt
    with torch.no_grad():
        wanted = stock.unet(x, TIMES, states, added_cond_kwargs=added).sample
        found, maps = base.output(x, TIMES, texts)
        moved, _ = base.output(x, TIMES, [dataclasses.replace(t, sizes=sizes[1]) for t in texts])
    assert (found - wanted).abs().max() <= 1e-5
    assert maps is None
    assert (moved[0] - found[0]).abs().max() > 1e-4  # sizes are heard


def test_without_zeros_the_empty_prompt_is_encoded(folder: Path, stock: Any) -> None:
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    other = Base.wrap(pipe, "encoded")
    states, added = told(stock, [""], torch.zeros(1, 6))
    text = other.text("")
    assert text.pooled is not None
    torch.testing.assert_close(text.states, states[0])
    torch.testing.assert_close(text.pooled, added["text_embeds"][0])
    assert other.fingerprint != Base.load(folder).fingerprint


def test_a_picture_is_that_of_the_stock_pipeline(base: Base, stock: Any) -> None:
    """Drawn from text, same seed, guided."""
    prompt, steps, guidance, seed = PROMPTS[0], 4, 5.0, 3
    start = torch.zeros(1, 4, 16, 16)
    latents = run(
        base,
        sdedit(
            base, start, base.text(prompt), settings=SDEditSettings(strength=1.0), steps=steps,
            guidance=guidance, seed=seed,
        ),
    ).latents  # fmt: skip
    pixels = autoencoder.decode(base.pipeline.vae, latents, base.device)[0]
    ours = (pixels / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
    # SDEdit at full strength keeps a trace of the source, as much as the schedule leaves
    times = base.schedule.downwards(steps)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed))
    begun = base.schedule.add_noise(start, noise, times[0][0])
    wanted = stock(
        prompt, height=64, width=64, num_inference_steps=steps, guidance_scale=guidance,
        latents=begun, output_type="np",
    ).images[0]  # fmt: skip
    assert np.abs(ours - wanted).max() <= 1e-3
    assert np.std(wanted) > 1e-3


def test_it_computes_in_bfloat16(folder: Path, base: Base) -> None:
    half = Base.load(folder, dtype=torch.bfloat16)
    assert half.fingerprint == base.fingerprint
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = half.predict(x, 501, [half.text(p) for p in PROMPTS[:2]]).noise
        wanted = base.predict(x, 501, [base.text(p) for p in PROMPTS[:2]]).noise
    assert found.dtype == torch.float32
    assert (found - wanted).norm() <= 0.05 * wanted.norm()


def test_what_does_not_go_together_is_refused(folder: Path, tmp_path: Path) -> None:
    pipe = xl_folders.xl()
    pipe.unet.register_to_config(projection_class_embeddings_input_dim=99)
    with pytest.raises(InputError, match=r"told 99 numbers .* have 72"):
        Base.wrap(pipe, "x")
    pipe = xl_folders.xl()
    pipe.text_encoder_2.config.hidden_size = 99
    with pytest.raises(InputError, match="states of width 16 and 99, its UNet reads 40"):
        Base.wrap(pipe, "x")
    copy = xl_folders.saved(tmp_path / "copy")
    folders.replace(copy / "text_encoder_2" / "model.safetensors", b"")
    with pytest.raises(InputError, match=r"text_encoder_2/model.safetensors is empty"):
        Base.load(copy)


def test_rows_of_different_adapters_equal_models_with_the_weights_put_in(base: Base) -> None:
    randn = random_of(9)
    folded = {
        f"unet.{name.removesuffix('.weight')}": lora(tuple(weight.shape), randn)
        for name, weight in base.weights.items()
    }
    a = Carrier({path: adapter.to(base.device, torch.float32) for path, adapter in folded.items()})
    b = Carrier(on_layers(base, lora, 0, linear=True, text=True))
    c = Carrier(on_layers(base, lora, 1, linear=False, text=False))
    d = Carrier(on_layers(base, lora, 1, linear=True, text=False))
    rows: list[list[Weighted]] = [
        [],
        [Weighted(a)],
        [Weighted(b)],
        [Weighted(c)],
        [Weighted(b, 0.5), Weighted(d)],
        [Weighted(a, 0.5), Weighted(c)],
    ]
    prompt, x = PROMPTS[0], random_of(5)(len(rows), base.channels, 16, 16).float()
    contexts = [base.text(prompt, entries, everywhere=True) for entries in rows]
    assert not contexts[1].adapted and contexts[2].adapted  # keys and values cost nothing per step
    times = torch.tensor([900, 700, 501, 501, 300, 100])
    with torch.no_grad():
        found, _ = base.output(x, times, contexts)
        plain, _ = base.output(x, times, [base.text(prompt)] * len(rows))
        for row, entries in enumerate(rows):
            model = put_in(base, entries)
            wanted, _ = model.output(x[row : row + 1], times[row : row + 1], [model.text(prompt)])
            assert (found[row] - wanted[0]).abs().max() <= 1e-5
            moved = float((found[row] - plain[row]).abs().max())
            assert moved > 1e-3 if entries else moved <= 1e-6


@pytest.mark.parametrize("method", [m for m in EXPERTS if m != "flowedit"])
def test_every_editor_draws_beside_the_source(base: Base, method: EditMethod) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8)
    session = Editor(base).open(Image.fromarray(pixels), "a photo of a red cup on a table")
    options: dict[str, Any] = {"method": method, "steps": 3, method: {"blend_over": "none"}}
    plans = session.plan("a photo of a blue cup on a table", **options, strengths=[0.1, 0.9])
    less, more = (result.drawing.latents for result in session.run(plans))
    assert less.isfinite().all() and more.isfinite().all()
    assert (less - more).abs().max() > 1e-4  # the source's features act
