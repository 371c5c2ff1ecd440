"""Bases of the shapes of public models with random weights: speed does not care what they hold."""

from __future__ import annotations

from typing import Any, Final

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from customedit import mini
from customedit.diffusion.base import Base

NAMES: Final = ("sd14", "sdxl")
TINY: Final = {"sd14": (32, 64), "sdxl": (32, 64, 64)}
"""Channels of the UNet's levels where only the code's paths are to be run."""


def random_base(
    name: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32, tiny: bool = False
) -> Base:
    """Stable Diffusion 1.4 (``sd14``) or XL (``sdxl``) with random weights, made on ``device``.

    tiny: the same parts with few channels, for latents of 16 x 16.
    """
    torch.manual_seed(0)
    place = torch.device("cuda" if device.startswith("cuda") else "cpu")
    with place:  # billions of random numbers take minutes on a processor
        pipeline = _xl(tiny) if name == "sdxl" else _sd(tiny)
    return Base.wrap(pipeline, f"{name}-random", device=device, dtype=dtype)


def _sd(tiny: bool) -> StableDiffusionPipeline:
    width = 64 if tiny else 768
    unet = UNet2DConditionModel(
        sample_size=16 if tiny else 64,
        cross_attention_dim=width,
        attention_head_dim=8,
        layers_per_block=1 if tiny else 2,
        block_out_channels=TINY["sd14"] if tiny else (320, 640, 1280, 1280),
        down_block_types=("CrossAttnDownBlock2D",) * (1 if tiny else 3) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (1 if tiny else 3),
    )
    tokenizer = _tokenizer("<|endoftext|>", tiny)
    return StableDiffusionPipeline(
        vae=_vae(tiny),
        text_encoder=CLIPTextModel(_text(tokenizer, width, 2 if tiny else 12, 2 if tiny else 12)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _xl(tiny: bool) -> StableDiffusionXLPipeline:
    one, two = (32, 32) if tiny else (768, 1280)
    sizes = 8 if tiny else 256
    unet = UNet2DConditionModel(
        sample_size=16 if tiny else 128,
        block_out_channels=TINY["sdxl"] if tiny else (320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1 if tiny else 2,
        transformer_layers_per_block=1 if tiny else (1, 2, 10),
        attention_head_dim=(2, 4, 4) if tiny else (5, 10, 20),
        cross_attention_dim=one + two,
        addition_embed_type="text_time",
        addition_time_embed_dim=sizes,
        projection_class_embeddings_input_dim=two + 6 * sizes,
        use_linear_projection=True,
    )
    tokenizers = _tokenizer("<|endoftext|>", tiny), _tokenizer("!", tiny)
    layers = (2, 2) if tiny else (12, 32)
    heads = (2, 2) if tiny else (12, 20)
    first = CLIPTextModel(_text(tokenizers[0], one, layers[0], heads[0]))
    second = CLIPTextModelWithProjection(_text(tokenizers[1], two, layers[1], heads[1]))
    return StableDiffusionXLPipeline(
        vae=_vae(tiny),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=_scheduler(),
        add_watermarker=False,
    )


def _tokenizer(pad: str, tiny: bool) -> Any:
    """The bundled base's words; in a row as long as CLIP's."""
    tokenizer = CLIPTokenizer.from_pretrained(mini.path() / "tokenizer", pad_token=pad)
    tokenizer.model_max_length = 32 if tiny else 77
    return tokenizer


def _text(tokenizer: Any, width: int, layers: int, heads: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _vae(tiny: bool) -> AutoencoderKL:
    levels = 2 if tiny else 4
    return AutoencoderKL(
        block_out_channels=(32, 32) if tiny else (128, 256, 512, 512),
        layers_per_block=1 if tiny else 2,
        latent_channels=4,
        sample_size=32 if tiny else 512,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
