"""Whether a base can be driven, as far as its configurations tell.

The engine drives UNets of Stable Diffusion 1.x and 2.x: conditions are the time and one row of text
states, attention is the plain kind of ``attention.Processor``. Everything else is refused when the
base is loaded, by name and in one line, before its weights are read. What tokenizer, text encoder
and weights must be is in ``loading``. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from customedit.errors import InputError

SUPPORTED: Final = "use a Stable Diffusion 1.x or 2.x base (see customedit models list)"

_FAMILIES: Final[Mapping[str, str]] = {
    "StableDiffusionXL": "Stable Diffusion XL",
    "StableDiffusion3": "Stable Diffusion 3",
    "StableCascade": "Stable Cascade",
    "StableAudio": "Stable Audio",
    "StableVideo": "Stable Video Diffusion",
    "Flux2": "FLUX.2",
    "Flux": "FLUX.1",
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


_CHANNELS: Final[Mapping[int, str]] = {
    5: "depth-to-image",
    7: "an upscaler",
    8: "InstructPix2Pix",
    9: "inpainting",
}
"""UNets with 4 latent channels that read more than the latents: their input channels."""

_BLOCKS: Final = frozenset(
    {"CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}
)
_MIDDLE: Final = frozenset({"UNetMidBlock2DCrossAttn"})

_CONDITIONS: Final[Mapping[str, str]] = {
    "class_embed_type": "class labels",
    "num_class_embeds": "class labels",
    "addition_embed_type": "more than a prompt's states (SDXL, image prompts)",
    "encoder_hid_dim_type": "more than a prompt's states (image prompts)",
    "encoder_hid_dim": "states of another width, which it projects",
    "time_cond_proj_dim": "the guidance weight (a latent consistency model, LCM)",
}
"""Settings of a UNet that has a further condition, and what it is."""

_ATTENTION: Final = (
    "cross_attention_norm", "dual_cross_attention", "only_cross_attention",
    "mid_block_only_cross_attention",
)  # fmt: skip

SCHEDULERS: Final = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDIM", "DDIMInverse", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep",
        "DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSDE", "DPMSolverSinglestep",
        "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete",
        "KDPM2Discrete", "LMSDiscrete", "PNDM", "SASolver", "UniPCMultistep",
    )
)  # fmt: skip
"""Schedulers of diffusers whose configuration a DDIMScheduler takes over as it is."""

_FEW_STEPS: Final = frozenset({"LCMScheduler", "TCDScheduler"})

AUTOENCODERS: Final = ("AutoencoderKL", "AutoencoderTiny")


def check_folder(folder: Path, name: str) -> None:
    """Raises InputError if the JSON files of a base say that it cannot be driven."""
    check_index(folder, name)
    unet = read_json(folder / "unet" / "config.json", name)
    kind = unet.get("_class_name", "UNet2DConditionModel")
    if kind != "UNet2DConditionModel":
        raise InputError("base", f"{name} has a {kind}, not a UNet2DConditionModel", SUPPORTED)
    vae = read_json(folder / "vae" / "config.json", name)
    if vae.get("_class_name") not in AUTOENCODERS:
        raise InputError(
            "base",
            f"{name} has the autoencoder {vae.get('_class_name')!r}",
            f"use a base with {' or '.join(AUTOENCODERS)}",
        )
    check_unet(unet, name)
    check_channels(unet, vae, name)
    text = read_json(folder / "text_encoder" / "config.json", name)
    if text.get("model_type", "clip_text_model") not in ("clip_text_model", "clip"):
        raise InputError(
            "base", f"{name} has the text encoder {text['model_type']!r}, not CLIP's", SUPPORTED
        )
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json", name)
    check_scheduler({"_class_name": "scheduler without a class", **scheduler})


def check_index(folder: Path, name: str) -> None:
    """Raises InputError for a pipeline that is not Stable Diffusion 1.x or 2.x, saying what it is.

    Pipelines of Stable Diffusion for other tasks pass: whether their parts fit is seen from the
    parts.
    """
    kind = read_json(folder / "model_index.json", name).get("_class_name")
    kind = kind[-1] if isinstance(kind, list) and kind else kind  # community pipelines
    if not isinstance(kind, str):
        raise InputError(
            "base", f"{name}: model_index.json names no pipeline (_class_name)", SUPPORTED
        )
    family = next((f for begin, f in _FAMILIES.items() if kind.startswith(begin)), None)
    unet = folder / "unet" / "config.json"
    if family is None and not kind.startswith("StableDiffusion"):
        of_unet = read_json(unet, name).get("_class_name") if unet.is_file() else None
        family = None if of_unet == "UNet2DConditionModel" else f"{kind}"
    if family is not None:
        raise InputError(
            "base", f"{name} is a {family} model ({kind}), which is not supported", SUPPORTED
        )


def check_unet(config: Mapping[str, Any], name: str) -> None:
    """Raises InputError for a UNet whose conditions, blocks or attention the engine has not."""
    for setting, condition in _CONDITIONS.items():
        if config.get(setting) is not None:
            raise InputError(
                "base", f"{name} has a UNet that needs {condition} ({setting})", SUPPORTED
            )
    if config.get("attention_type", "default") != "default":
        kind = config["attention_type"]
        raise InputError("base", f"{name} has a UNet with {kind} attention (GLIGEN)", SUPPORTED)
    for setting in _ATTENTION:
        value = config.get(setting)
        if any(value) if isinstance(value, list | tuple) else value:
            raise InputError("base", f"{name} has a UNet with {setting}", SUPPORTED)
    blocks = [*config.get("down_block_types", ()), *config.get("up_block_types", ())]
    middle = config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    strange = sorted({*blocks} - _BLOCKS) + ([] if middle in (*_MIDDLE, None) else [middle])
    if strange:
        raise InputError("base", f"{name} has a UNet with {strange[0]} blocks", SUPPORTED)
    if middle is None and not any("CrossAttn" in b for b in blocks):
        raise InputError("base", f"{name} has a UNet without cross-attention", SUPPORTED)


def check_channels(unet: Mapping[str, Any], vae: Mapping[str, Any], name: str) -> None:
    """Raises InputError if the UNet does not take and give the autoencoder's latents."""
    latent = vae.get("latent_channels", 4)
    taken, given = unet.get("in_channels", 4), unet.get("out_channels", 4)
    if taken != latent:
        use = f" ({_CHANNELS[taken]})" if latent == 4 and taken in _CHANNELS else ""
        raise InputError(
            "base",
            f"{name} has a UNet that takes {taken} channels{use}, its latents have {latent}",
            SUPPORTED,
        )
    if given != latent:
        raise InputError(
            "base", f"{name} has a UNet that gives {given} channels, its latents have {latent}",
            SUPPORTED,
        )  # fmt: skip


def check_scheduler(config: Mapping[str, Any]) -> None:
    """Raises InputError for a scheduler whose noise schedule has no DDIM form."""
    name = config.get("_class_name")
    if name in _FEW_STEPS:
        raise InputError(
            "base",
            f"its scheduler is a {name}: the model is distilled for a few steps (LCM, TCD), and "
            "DDIM does not draw with it",
            "use the model it was distilled from",
        )
    flow = " with use_flow_sigmas" if config.get("use_flow_sigmas") else ""
    if flow or (name is not None and name not in SCHEDULERS):
        raise InputError(
            "base", f"its scheduler is a {name}{flow}, which has no DDIM form", SUPPORTED
        )


def read_json(path: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file of a base. Raises InputError naming the file."""
    where = f"{path.parent.name}/{path.name}" if path.name == "config.json" else path.name
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError("base", f"{name} has no {where}", "download or copy it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            "base", f"{name}: {where} cannot be read ({first_line(error)})", "download it again"
        ) from None
    if not isinstance(found, dict):
        raise InputError("base", f"{name}: {where} is not a JSON object", "download it again")
    return found


def first_line(error: BaseException) -> str:
    """The first line of an error's text, its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
