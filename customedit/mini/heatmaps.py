"""Where a word looks: cross-attention maps of the class noun over an inverted picture's steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from diffusers import DDIMInverseScheduler, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from customedit.mini import grounding
from customedit.mini.data import CELLS
from customedit.mini.vae import to_tensor

THRESHOLD: Final = 0.3
"""A cell belongs to the noun if its attention is at least this share of the map's maximum, as in
Prompt-to-Prompt's local blend (arXiv 2208.01626).
"""


def token_of(pipeline: StableDiffusionPipeline, prompt: str, word: str) -> int:
    """The position of ``word`` in the prompt's tokens, the start token counted.

    Raises ValueError if the word is not there as one whole token.
    """
    tokens = pipeline.tokenizer.convert_ids_to_tokens(pipeline.tokenizer(prompt).input_ids)
    if f"{word}</w>" not in tokens:
        raise ValueError(f"{word!r} is no token of {prompt!r}")
    return tokens.index(f"{word}</w>")


@torch.no_grad()
def noun_maps(
    pipeline: StableDiffusionPipeline,
    images: NDArray[np.uint8],
    prompts: Sequence[str],
    nouns: Sequence[str],
    *,
    steps: int = 50,
    on_step: Callable[[], None] | None = None,
) -> NDArray[np.float32]:
    """Attention of each noun, [n, CELLS, CELLS], the mean over heads, layers of 16 x 16 and steps.

    Each image [n, 128, 128, 3] is encoded and inverted by DDIM (Song et al., arXiv 2010.02502, run
    backwards) with its own prompt, without guidance. The pipeline is left as it was.
    """
    position = torch.tensor([token_of(pipeline, p, w) for p, w in zip(prompts, nouns, strict=True)])
    row = torch.arange(len(images))
    backwards = DDIMInverseScheduler.from_config(pipeline.scheduler.config)
    backwards.set_timesteps(steps)
    latents = pipeline.vae.encode(to_tensor(images)).latents * pipeline.vae.config.scaling_factor
    states, _ = pipeline.encode_prompt(list(prompts), "cpu", 1, False)
    total = torch.zeros(len(images), CELLS * CELLS)
    before = dict(pipeline.unet.attn_processors)
    layers = grounding.watch(pipeline.unet)
    try:
        for t in backwards.timesteps:
            v = pipeline.unet(latents, t, states).sample
            latents = backwards.step(v, t, latents).prev_sample
            total += torch.stack(layers).mean(0)[row, :, position]
            layers.clear()
            if on_step is not None:
                on_step()
    finally:
        pipeline.unet.set_attn_processor(before)
    return (total / steps).view(-1, CELLS, CELLS).numpy()


def above(maps: NDArray[np.float32], share: float = THRESHOLD) -> NDArray[np.bool_]:
    """The cells of each map [n, h, w] whose value is at least ``share`` of that map's maximum."""
    return maps >= share * maps.max((1, 2), keepdims=True)


def heated(
    image: NDArray[np.uint8], heat: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """``image`` [h, h, 3] darkened where ``heat`` [m, m] is small, the mask's outline in white.

    heat is taken relative to its maximum; mask: bool [m, m], the region that the heat should fill.
    """
    side = len(image)
    warm = Image.fromarray((heat / heat.max() * 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    share = np.asarray(warm, np.float32)[..., None] / 255
    mixed = image * (0.25 + 0.35 * share) + share * np.array([100, 60, 0], np.float32)
    out = np.clip(mixed, 0, 255).astype(np.uint8)
    times = side // len(mask)
    whole = mask.repeat(times, 0).repeat(times, 1)
    padded = np.pad(whole, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    out[whole & ~inner] = 255
    return out
