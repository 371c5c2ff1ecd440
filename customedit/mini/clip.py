"""Stage ``clip``: a small CLIP, contrastive; its text tower becomes the pipeline's encoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer

from customedit.mini import loop
from customedit.mini.captions import describe, full
from customedit.mini.data import Shards
from customedit.mini.loop import Average, Loss, Run, Step
from customedit.mini.scenes import SIZE
from customedit.mini.text import MAX_TOKENS, load_tokenizer
from customedit.mini.vae import to_tensor

WIDTH = 256
"""Width of the text states, the UNet's ``cross_attention_dim``."""


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIPModel of random weights: 4 text layers of WIDTH, 4 of 192 over 16 px image patches."""
    end = tokenizer.eos_token_id
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": end, "pad_token_id": end}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "projection_dim": 256,
        **ids,
    }
    vision = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "image_size": SIZE,
        "patch_size": 16,
        "projection_dim": 256,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=256))


def text_encoder(model: CLIPModel) -> CLIPTextModel:
    """The text tower of ``model`` as the text encoder of a Stable Diffusion pipeline."""
    encoder = CLIPTextModel(model.config.text_config)
    encoder.load_state_dict(model.text_model.state_dict())
    return encoder.eval()


def image_processor() -> CLIPImageProcessor:
    """How this CLIP wants its images: [0, 1] to [-1, 1], SIZE x SIZE."""
    return CLIPImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def tokenize(tokenizer: CLIPTokenizer, captions: list[str], *, short: bool = False) -> Tensor:
    """Token ids [n, length]; ``short`` pads to the longest only (a causal mask hides the rest)."""
    return tokenizer(
        captions, padding=True if short else "max_length", truncation=True, return_tensors="pt"
    ).input_ids


def words_for(shards: Shards, index: int, rng: np.random.Generator) -> str:
    """A caption for training: half the time whole, half the time with parts left out."""
    scene = shards.scenes[index]
    return full(scene, int(rng.integers(5))) if rng.random() < 0.5 else describe(scene, rng)


def train(run: Run, model: CLIPModel) -> Average:
    """Train ``model`` on the run's scenes with the symmetric contrastive loss."""
    shards = Shards(run.folder / "scenes", run.shards)
    tokenizer = load_tokenizer(run.folder / "tokenizer")
    batch, device = run.batch, run.device

    def loss(step: Step) -> Loss:
        indices = step.numpy.choice(len(shards), batch, replace=False)
        images = shards.batch(indices)
        flip = step.numpy.random(batch) < 0.5
        images[flip] = images[flip, :, ::-1]
        captions = [words_for(shards, int(i), step.numpy) for i in indices]
        with run.half():
            out = model(
                input_ids=tokenize(tokenizer, captions, short=True).to(device),
                pixel_values=to_tensor(images).to(device),
            )
            logits = out.logits_per_text.float()
        target = torch.arange(batch, device=device)
        value = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        right = (logits.argmax(1) == target).float().mean().item()
        return value, {"top1": right, "scale": model.logit_scale.exp().item()}

    return loop.train("clip", model, loss, run)
