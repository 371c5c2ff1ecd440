"""The families that are known, and which one a base is of. No torch."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from customedit.diffusion.families import flow_config
from customedit.diffusion.families.ddim_config import check_scheduler
from customedit.diffusion.families.layout import EncoderLayout, Layout
from customedit.diffusion.families.unet_config import check_channels, check_unet

if TYPE_CHECKING:
    from customedit.diffusion.families.family import Family


def _check_stable_diffusion(unet: Mapping[str, Any], vae: Mapping[str, Any], name: str) -> None:
    check_unet(unet, name)
    check_channels(unet, vae, name)


def _check_xl(unet: Mapping[str, Any], vae: Mapping[str, Any], name: str) -> None:
    check_unet(unet, name, {"addition_embed_type": "text_time"})
    check_channels(unet, vae, name)


STABLE_DIFFUSION: Final = Layout(
    name="Stable Diffusion 1.x or 2.x",
    pipeline="StableDiffusionPipeline",
    begins=("StableDiffusion",),
    family=("customedit.diffusion.families.stable_diffusion", "StableDiffusion"),
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    encoders=(EncoderLayout("text_encoder", "tokenizer"),),
    check_denoiser=_check_stable_diffusion,
    check_schedule=check_scheduler,
    options={},
)

STABLE_DIFFUSION_XL: Final = Layout(
    name="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    begins=("StableDiffusionXL",),
    family=("customedit.diffusion.families.stable_diffusion_xl", "StableDiffusionXL"),
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    encoders=(
        EncoderLayout("text_encoder", "tokenizer"),
        EncoderLayout(
            "text_encoder_2", "tokenizer_2", "CLIPTextModelWithProjection", embedding="clip_g"
        ),
    ),
    check_denoiser=_check_xl,
    check_schedule=check_scheduler,
    options={"force_zeros_for_empty_prompt": True},
)

STABLE_DIFFUSION_3: Final = Layout(
    name="Stable Diffusion 3.x",
    pipeline="StableDiffusion3Pipeline",
    begins=("StableDiffusion3",),
    family=("customedit.diffusion.families.stable_diffusion_3", "StableDiffusion3"),
    denoiser="transformer",
    denoiser_class="SD3Transformer2DModel",
    encoders=(
        EncoderLayout("text_encoder", "tokenizer", "CLIPTextModelWithProjection"),
        EncoderLayout(
            "text_encoder_2", "tokenizer_2", "CLIPTextModelWithProjection", embedding="clip_g"
        ),
        EncoderLayout(
            "text_encoder_3", "tokenizer_3", "T5EncoderModel", "T5Tokenizer", ("t5",), True, "t5xxl"
        ),
    ),
    check_denoiser=flow_config.check_sd3,
    check_schedule=flow_config.check_scheduler,
    options={},
)

FLUX: Final = Layout(
    name="FLUX.1",
    pipeline="FluxPipeline",
    begins=("Flux",),
    family=("customedit.diffusion.families.flux", "Flux"),
    denoiser="transformer",
    denoiser_class="FluxTransformer2DModel",
    encoders=(
        EncoderLayout("text_encoder", "tokenizer"),
        EncoderLayout(
            "text_encoder_2",
            "tokenizer_2",
            "T5EncoderModel",
            "T5Tokenizer",
            ("t5",),
            embedding="t5xxl",
        ),
    ),
    check_denoiser=flow_config.check_flux,
    check_schedule=flow_config.check_scheduler,
    options={},
)

LAYOUTS: Final = (STABLE_DIFFUSION_XL, STABLE_DIFFUSION_3, FLUX, STABLE_DIFFUSION)
"""Of equal beginnings of a class name the longer comes first."""

OTHERS: Final[Mapping[str, str]] = {
    "StableCascade": "Stable Cascade",
    "StableAudio": "Stable Audio",
    "StableVideo": "Stable Video Diffusion",
    "Flux2": "FLUX.2",
    "PixArt": "PixArt",
    "Sana": "Sana",
    "QwenImage": "Qwen-Image",
    "ZImage": "Z-Image",
    "HunyuanDiT": "Hunyuan-DiT",
    "HunyuanVideo": "HunyuanVideo",
    "Kandinsky": "Kandinsky",
    "AuraFlow": "AuraFlow",
    "Lumina": "Lumina",
    "Chroma": "Chroma",
    "CogView": "CogView",
    "CogVideo": "CogVideoX",
    "Wan": "Wan",
    "LTX": "LTX-Video",
    "IF": "DeepFloyd IF",
    "Wuerstchen": "Wuerstchen",
    "LatentConsistencyModel": "latent consistency (LCM)",
    "LDM": "latent diffusion (LDM)",
    "AltDiffusion": "AltDiffusion",
    "VersatileDiffusion": "Versatile Diffusion",
}
"""Beginnings of pipeline classes that are not supported, and what such a model is called."""


def layout_of_class(pipeline: str) -> Layout | None:
    """The layout of a pipeline's class name; None for an unknown or unsupported one."""
    if any(pipeline.startswith(begin) for begin in OTHERS):
        return None
    return next((known for known in LAYOUTS if pipeline.startswith(known.begins)), None)


def layout_of_files(files: Collection[str]) -> Layout:
    """The layout whose parts are among ``files``, paths within a base; of several the largest.

    Stable Diffusion's where none fits: then it is what loading finds missing.
    """
    present = [
        known.with_encoders(lambda part: f"{part}/config.json" in files) for known in LAYOUTS
    ]
    fitting = [
        known
        for known in present
        if {f"{part}/config.json" for part in known.stems}.issubset(files)
    ]
    return max(fitting, key=lambda known: len(known.stems), default=STABLE_DIFFUSION)


def family_of(layout: Layout) -> type[Family]:
    """The class that drives bases of ``layout``."""
    module, name = layout.family
    return cast("type[Family]", getattr(importlib.import_module(module), name))
