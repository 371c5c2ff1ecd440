"""Whether a base can be driven: what its configurations, tokenizer and weights must be.

The engine drives UNets of Stable Diffusion 1.x and 2.x: conditions are the time and one row of text
states, attention is the plain kind of ``attention.Processor``. Everything else is refused when the
base is loaded, by name and in one line, before its weights are read where the configurations tell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from customedit.diffusion.schedule import SCHEDULERS, Schedule
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

AUTOENCODERS: Final = ("AutoencoderKL", "AutoencoderTiny")

_PADDING: Final = 128
"""Rows by which a text encoder's table may exceed the vocabulary: some are padded to a multiple."""


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
    if scheduler.get("_class_name") not in SCHEDULERS:
        Schedule.from_config({"_class_name": scheduler.get("_class_name", "nameless scheduler")})


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


def check_text(unet: Mapping[str, Any], encoder: Any, tokenizer: Any, name: str) -> None:
    """Raises InputError unless tokenizer, text encoder and UNet go together.

    A tokenizer that has no length of its own takes the text encoder's.
    """
    width, read = encoder.config.hidden_size, unet.get("cross_attention_dim")
    if read != width:
        raise InputError(
            "base",
            f"{name} has a text encoder with states of width {width}, its UNet reads {read}",
            "use the text encoder that the base was trained with",
        )
    positions = int(encoder.config.max_position_embeddings)
    if tokenizer.model_max_length > 1_000_000:  # transformers' number for "not said"
        tokenizer.model_max_length = positions
    if not 3 <= tokenizer.model_max_length <= positions:
        raise InputError(
            "base",
            f"{name} has a tokenizer for {tokenizer.model_max_length} tokens, its text encoder "
            f"reads {positions}",
            "use the tokenizer that the base was trained with",
        )
    rows, words = encoder.get_input_embeddings().num_embeddings, len(tokenizer)
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    if not rows - _PADDING < words <= rows or None in special:
        raise InputError(
            "base",
            f"{name} has a tokenizer with {words} tokens, its text encoder knows {rows}",
            "use the tokenizer that the base was trained with",
        )


def check_finite(part: torch.nn.Module, kind: str, dtype: torch.dtype, name: str) -> None:
    """Raises InputError, naming the weight, if one is not finite in ``dtype``.

    kind: what the part is called.
    """
    limit = torch.finfo(dtype).max
    for weight, tensor in part.state_dict().items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        least, most = (float(v) for v in torch.aminmax(tensor.detach().float()))
        if not (abs(least) <= limit and abs(most) <= limit):
            size = max(abs(least), abs(most))
            if size < float("inf"):
                raise InputError(
                    "dtype",
                    f"{name} has {size:g} in its {kind} ({weight}), more than {dtype} holds",
                    "use bfloat16 or float32",
                )
            raise InputError(
                "base",
                f"{name} has numbers that are not finite in its {kind} ({weight})",
                "download it again, or use another base",
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
