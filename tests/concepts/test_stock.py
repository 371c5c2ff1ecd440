"""An exported concept in the stock pipeline draws what ours draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from customedit import mini
from customedit.concepts.concept import Concept
from customedit.concepts.files.diffusers import DIFFUSERS_WEIGHTS, Suffix, save_diffusers
from customedit.diffusion.base import Base
from customedit.diffusion.text import Weighted
from customedit.mini.draw import load

STEPS, GUIDANCE = 8, 5.0


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_stock_diffusers_draws_the_same(suffix: Suffix, tmp_path: Path) -> None:
    base = Base.load()
    generator = torch.Generator().manual_seed(1)

    def part(name: str) -> dict[str, torch.Tensor]:
        weights = {n: base.weights[f"{n}.{name}.weight"] for n in base.layers}
        return {n: w + 0.02 * torch.randn(w.shape, generator=generator) for n, w in weights.items()}

    table = base.pipeline.text_encoder.get_input_embeddings().weight
    concept = Concept({"<a>": table[300].detach() * 1.1}, part("to_k"), part("to_v"))
    save_diffusers(concept, tmp_path, suffix=suffix)
    stock = load(mini.path())
    stock.unet.load_attn_procs(
        str(tmp_path), weight_name=f"{DIFFUSERS_WEIGHTS}{suffix}", _pipeline=stock
    )
    stock.load_textual_inversion(str(tmp_path), weight_name=f"<a>{suffix}")

    prompt = "a photo of a <a> patterned cup on a blue table"
    x = torch.randn((1, base.channels, 16, 16), generator=torch.Generator().manual_seed(2))
    wanted = stock(
        prompt, latents=x.clone(), num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        output_type="np",
    ).images[0]  # fmt: skip
    entry = [Weighted(concept)]
    rows = [base.text("", entry, everywhere=True), base.text(prompt, entry)]
    with torch.no_grad():
        for time, to in base.schedule.downwards(STEPS):
            none, worded = base.predict(torch.cat([x, x]), time, rows).noise.chunk(2)
            x = base.schedule.step(x, none + GUIDANCE * (worded - none), time, to)
        pixels = base.pipeline.vae.decode(x / base.pipeline.vae.config.scaling_factor).sample
    got = (pixels[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
    assert np.abs(got - wanted).max() <= 1e-3
    assert got.std() > 0.02  # a picture
