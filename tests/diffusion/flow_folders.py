"""Small Stable Diffusion 3 and FLUX.1 models of random weights, as diffusers saves them.

Every part has the class and the settings of the real ones: two CLIPs and T5, RMS norms of queries
and keys, an image-only second attention (Stable Diffusion 3.5 medium), joint and single blocks.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from customedit import mini
from customedit.diffusion.base import Base
from customedit.diffusion.profile import Profile, by_architecture
from customedit.mini import vocabulary

SIDE = 32
"""Of the pictures, in pixels; 2 a latent cell, 4 a token."""

T5_LENGTH = 24


def clip_tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """The bundled base's, which knows few words."""
    return CLIPTokenizer.from_pretrained(mini.path() / "tokenizer", pad_token=pad)


def t5_tokenizer() -> T5Tokenizer:
    """A unigram tokenizer of the bundled base's words and of single letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(f"\u2581{word}", -3.0) for word in sorted(vocabulary.words())]
    pieces += [(c, -8.0) for c in string.ascii_letters + string.digits + string.punctuation]
    return T5Tokenizer(vocab=pieces, extra_ids=8, model_max_length=T5_LENGTH)


def clip_config(width: int, projection: int, **more: Any) -> CLIPTextConfig:
    tokenizer = clip_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=projection,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=40,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **more,
    )


def t5_config(width: int) -> T5Config:
    return T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.5,
        shift_factor=0.06,
    )


def sd3(*, t5: bool = True, **scheduler: Any) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5 medium's form. scheduler: its settings, shift 3 if none are given."""
    torch.manual_seed(0)
    one, two, wide = 16, 24, 48
    transformer = SD3Transformer2DModel(
        sample_size=SIDE // 2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=wide,
        caption_projection_dim=16,
        pooled_projection_dim=one + two,
        pos_embed_max_size=24,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(**(scheduler or {"shift": 3.0})),
        vae=vae().eval(),
        text_encoder=CLIPTextModelWithProjection(clip_config(one, one)).eval(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(two, two, hidden_act="gelu")).eval(),
        tokenizer_2=clip_tokenizer("!"),
        text_encoder_3=T5EncoderModel(t5_config(wide)).eval() if t5 else None,
        tokenizer_3=t5_tokenizer() if t5 else None,
    )


def flux(*, guidance: bool = True, **scheduler: Any) -> FluxPipeline:
    """FLUX.1's form: dev with ``guidance``, schnell without."""
    torch.manual_seed(1)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=3,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        pooled_projection_dim=16,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )
    dynamic = {"shift": 3.0, "use_dynamic_shifting": True, "base_image_seq_len": 16}
    return FluxPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(**(scheduler or dynamic)),
        vae=vae().eval(),
        text_encoder=CLIPTextModel(clip_config(16, 16)).eval(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=T5EncoderModel(t5_config(24)).eval(),
        tokenizer_2=t5_tokenizer(),
    )


def profile(pipeline: Any) -> Profile:
    """The profile of its architecture, but for the side of the pictures."""
    return by_architecture(pipeline.transformer.config).model_copy(update={"side": SIDE})


def wrapped(pipeline: Any) -> Base:
    """``pipeline`` as a base."""
    return Base.wrap(pipeline, type(pipeline).__name__, profile=profile(pipeline))


def saved(pipeline: Any, folder: Path) -> Path:
    """``pipeline`` in ``folder``, with its profile."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "customedit.json").write_text(profile(pipeline).model_dump_json(by_alias=True))
    return folder
