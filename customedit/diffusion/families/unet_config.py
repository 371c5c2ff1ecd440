"""Which UNets can be driven, as far as their configurations tell.

Conditions are the time, one row of text states and, in some families, a pooled text with sizes;
attention is the plain kind of ``attention.Processor``. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from customedit.diffusion.families.layout import SUPPORTED
from customedit.errors import InputError

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


def check_unet(
    config: Mapping[str, Any], name: str, conditions: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Raises InputError for a UNet whose conditions, blocks or attention the engine has not.

    conditions: settings of further conditions that the family has, with the value they must have.
    """
    for setting, value in conditions.items():
        if config.get(setting) != value:
            raise InputError(
                "base",
                f"{name} has a UNet with {setting} {config.get(setting)!r}, not {value!r}",
                SUPPORTED,
            )
    for setting, condition in _CONDITIONS.items():
        if config.get(setting) is not None and setting not in conditions:
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
