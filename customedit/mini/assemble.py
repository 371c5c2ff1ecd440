"""From training checkpoints to the folder that ships: half precision, stock layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPModel

from customedit.mini import clip, judge, profile, unet, vae
from customedit.mini.loop import save_atomically
from customedit.mini.text import load_tokenizer

LIMIT = 48 * 1024 * 1024
"""Most bytes that all weights together may take."""


def load_average(model: nn.Module, checkpoint: Path) -> int:
    """Put the moving average of ``checkpoint`` into ``model``; returns the step it was taken at.

    Raises FileNotFoundError naming the stage to run first.
    """
    if not checkpoint.exists():
        raise FileNotFoundError(
            f"{checkpoint} is missing; run: python -m customedit.mini.train {checkpoint.stem}"
        )
    saved = torch.load(checkpoint, weights_only=True, map_location="cpu")
    model.load_state_dict(saved["average"])
    model.eval()
    return int(saved["step"])


def latent_scale(folder: Path) -> float:
    """1 / standard deviation of the training latents: times this, they have unit variance."""
    return 1.0 / unet.Latents(folder / "scenes", 4).std()


def assemble(folder: Path, out: Path) -> dict[str, Any]:
    """Write the pipeline, ``clip/`` and ``judge.safetensors`` to ``out``.

    Weights are kept in float16 and load as float32: transformers would load its part as it is kept,
    diffusers its parts as float32, and the two would not meet. Returns the training steps of each
    part, which ``training.json`` keeps, too.

    Raises ValueError when the weights take more than LIMIT.
    """
    tokenizer = load_tokenizer(folder / "tokenizer")
    whole, codec, denoiser, eye = (
        clip.build(tokenizer), vae.build(), unet.build(), judge.Judge()
    )  # fmt: skip
    parts = {"clip": whole, "decoder": codec, "unet": denoiser, "judge": eye}
    steps = {name: load_average(part, folder / f"{name}.pt") for name, part in parts.items()}
    codec.register_to_config(scaling_factor=latent_scale(folder))
    pipeline = StableDiffusionPipeline(
        vae=codec,
        text_encoder=clip.text_encoder(whole),
        tokenizer=tokenizer,
        unet=denoiser,
        scheduler=unet.scheduler(),
        safety_checker=None,
        feature_extractor=clip.image_processor(),
        requires_safety_checker=False,
    )
    out.mkdir(parents=True, exist_ok=True)
    pipeline.to(dtype=torch.float16).save_pretrained(out, safe_serialization=True)
    whole.half().save_pretrained(out / "clip", safe_serialization=True)
    tokenizer.save_pretrained(out / "clip")
    clip.image_processor().save_pretrained(out / "clip")
    for config in (out / "text_encoder" / "config.json", out / "clip" / "config.json"):
        config.write_text(config.read_text().replace('"float16"', '"float32"'))
    for name in ("vocab.json", "merges.txt"):  # for readers that know no tokenizer.json
        for part in ("tokenizer", "clip"):
            shutil.copyfile(folder / "tokenizer" / name, out / part / name)
    halves = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in eye.state_dict().items()
    }
    save_file(halves, out / "judge.safetensors")
    profile.write(out)
    (out / "training.json").write_text(json.dumps({"steps": steps}, indent=2) + "\n")
    size = sum(p.stat().st_size for p in out.rglob("*.safetensors"))
    if size > LIMIT:
        raise ValueError(f"the weights take {size} bytes, more than the {LIMIT} they may")
    return steps


def restore(weights: Path, folder: Path) -> None:
    """Unpack an assembled folder into checkpoints, for stages to go on from.

    Finished parts get their steps back. The UNet starts a new schedule at step 0 from the weights
    that shipped, without the optimiser's memory. Checkpoints that exist are left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    steps = json.loads((weights / "training.json").read_text())["steps"]
    if not (folder / "tokenizer").exists():
        shutil.copytree(weights / "tokenizer", folder / "tokenizer")
    codec = AutoencoderTiny.from_pretrained(weights / "vae").float().state_dict()
    whole = CLIPModel.from_pretrained(weights / "clip").float().state_dict()
    denoiser = UNet2DConditionModel.from_pretrained(weights / "unet").float().state_dict()
    eye = judge.load(weights / "judge.safetensors").state_dict()
    found = {"clip": whole, "vae": codec, "decoder": codec, "judge": eye, "unet": denoiser}
    for name, state in found.items():
        if not (folder / f"{name}.pt").exists():
            step = 0 if name == "unet" else steps.get(name, 0)
            saved = {"model": state, "average": state, "optimizer": None, "step": step}
            save_atomically(saved, folder / f"{name}.pt")
