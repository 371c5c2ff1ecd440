"""Stage ``clip``: a small CLIP, contrastive; its text tower becomes the pipeline's encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer

from customedit.mini import loop
from customedit.mini.captions import describe, full
from customedit.mini.data import Shards
from customedit.mini.loop import Average, Loss, Run, Step
from customedit.mini.scenes import SIZE, Scene
from customedit.mini.text import MAX_TOKENS, load_tokenizer
from customedit.mini.vae import to_tensor

WIDTH = 256
"""Width of the text states, the UNet's ``cross_attention_dim``."""

GROUP = 16
"""Scenes of a batch that share the thing's colour and the wall's: colour tells none apart."""

READING = 0.5
"""Weight of the word reading loss beside the contrastive one."""

SHARPNESS = 16.0
"""Factor on the cosines of the word reading loss."""


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


def look_alikes(scenes: Sequence[Scene]) -> list[NDArray[np.intp]]:
    """Indices of ``scenes`` in sets, each of one colour of the thing and one of the wall."""
    sets: dict[tuple[str, str], list[int]] = {}
    for index, scene in enumerate(scenes):
        sets.setdefault((scene.colour, scene.wall), []).append(index)
    return [np.array(found) for found in sets.values()]


def hard_batch(
    sets: Sequence[NDArray[np.intp]], batch: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """``batch`` scenes (or all there are), GROUP and GROUP from sets drawn by their sizes."""
    sizes = np.array([len(s) for s in sets], float)
    order = rng.choice(len(sets), len(sets), replace=False, p=sizes / sizes.sum())
    rows: list[NDArray[np.intp]] = []
    for k in order:
        rows.append(rng.permutation(sets[k])[:GROUP])
        if sum(map(len, rows)) >= batch:
            break
    return np.concatenate(rows)[:batch]


def reading_loss(states: Tensor, ids: Tensor, words: Tensor, end: int) -> Tensor:
    """Cross entropy of reading each token back from its own final state.

    states: [rows, tokens, width]; ids: [rows, tokens]; words: the token embeddings [vocabulary,
    width], to which states are compared by their cosine times SHARPNESS. Without it nothing keeps
    the states of words apart that seldom decide which picture a caption belongs to, and a UNet that
    reads them cannot tell a jug from a ball. Padding (``end``) is passed over.
    """
    meant = ids != end
    cosines = F.normalize(states[meant].float(), dim=-1) @ F.normalize(words.float(), dim=-1).T
    return F.cross_entropy(SHARPNESS * cosines, ids[meant])


def train(run: Run, model: CLIPModel) -> Average:
    """Train ``model`` on the run's scenes: symmetric contrastive loss and word reading.

    Batches are made of look-alikes, so that only shape, pattern, table and material tell the
    pictures of a group apart.
    """
    shards = Shards(run.folder / "scenes", run.shards)
    tokenizer = load_tokenizer(run.folder / "tokenizer")
    batch, device = run.batch, run.device
    sets = look_alikes(shards.scenes)
    words = model.text_model.embeddings.token_embedding.weight

    def loss(step: Step) -> Loss:
        indices = hard_batch(sets, batch, step.numpy)
        images = shards.small_batch(indices)
        flip = step.numpy.random(len(indices)) < 0.5
        images[flip] = images[flip, :, ::-1]
        captions = [words_for(shards, int(i), step.numpy) for i in indices]
        ids = tokenize(tokenizer, captions, short=True).to(device)
        with run.half():
            out = model(input_ids=ids, pixel_values=to_tensor(images).to(device))
            logits = out.logits_per_text.float()
        target = torch.arange(len(indices), device=device)
        pairing = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        states = out.text_model_output.last_hidden_state
        reading = reading_loss(states, ids, words, tokenizer.eos_token_id)
        right = (logits.argmax(1) == target).float().mean().item()
        parts = {"pairing": pairing.item(), "reading": reading.item(), "top1": right}
        return pairing + READING * reading, parts | {"scale": model.logit_scale.exp().item()}

    return loop.train("clip", model, loss, run)
