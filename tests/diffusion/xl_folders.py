"""A small Stable Diffusion XL of random weights, as diffusers saves it.

Every part has the class and the settings of the real one: two text encoders, of which the second
projects, tokenizers that pad in two ways, a UNet that is told pooled text and sizes, an autoencoder
with KL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from customedit import mini

SIDE = 64
"""Of the pictures, in pixels; 4 a latent cell."""

ONE, TWO = 16, 24
"""Widths of the two text encoders."""


def tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """The bundled base's, which knows few words."""
    return CLIPTokenizer.from_pretrained(mini.path() / "tokenizer", pad_token=pad)


def text_config(width: int, **more: Any) -> CLIPTextConfig:
    words = tokenizer()
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=40,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        **more,
    )


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE // 4,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=(1, 1, 3),
        attention_head_dim=(2, 4, 4),
        cross_attention_dim=ONE + TWO,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=TWO + 6 * 8,
        use_linear_projection=True,
        norm_num_groups=8,
    )


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
        scaling_factor=0.13025,
        force_upcast=True,
    )


def xl(*, zeros: bool = True) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL's form. zeros: ``force_zeros_for_empty_prompt``."""
    torch.manual_seed(0)
    return StableDiffusionXLPipeline(
        vae=vae().eval(),
        text_encoder=CLIPTextModel(text_config(ONE)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(TWO, hidden_act="gelu")).eval(),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer("!"),
        unet=unet().eval(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )


def saved(folder: Path, **settings: Any) -> Path:
    """``xl(**settings)`` in ``folder``."""
    xl(**settings).save_pretrained(folder, safe_serialization=True)
    return folder
