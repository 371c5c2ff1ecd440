"""A base's parts from a folder or the hub: found, looked at, brought to their device."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from customedit.diffusion import autoencoder
from customedit.errors import InputError


def locate(name: str | Path | None) -> tuple[str, str]:
    """(what from_pretrained is given, how the user knows it).

    Raises:
        InputError: for a path that is no folder saved by diffusers.
    """
    if name is None or str(name) == "mini":
        from customedit import mini

        return str(mini.path()), "mini"
    path = Path(name)
    if path.is_dir():
        if not (path / "model_index.json").exists():
            raise InputError(
                "base", f"{path} has no model_index.json", "give a folder saved by diffusers"
            )
        return str(path), str(path)
    if path.is_file() or str(name).startswith((".", "/", "~")):
        raise InputError("base", f"{name} is no folder", "give a diffusers folder or a hub name")
    return str(name), str(name)


def pipeline_of(chosen: str, spelled: str, *, local: bool) -> StableDiffusionPipeline:
    """The pipeline that ``locate`` found, on the CPU. local: never ask a hub.

    Raises:
        InputError: for one that is incomplete or does not fit the memory.
    """
    try:
        return StableDiffusionPipeline.from_pretrained(
            chosen,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            local_files_only=local or Path(chosen).exists(),
        )
    except torch.OutOfMemoryError as error:
        raise InputError("base", "does not fit this machine's memory", str(error)) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            "base", f"{spelled} does not load: {reason}", "see customedit models check"
        ) from None


def check(pipeline: StableDiffusionPipeline, name: str) -> None:
    """Raises InputError for an architecture that is no Stable Diffusion 1.x or 2.x."""
    if not isinstance(pipeline.unet, UNet2DConditionModel):
        raise InputError("base", f"{name} has no UNet2DConditionModel", "take SD 1.x or 2.x")
    if pipeline.unet.config.addition_embed_type or pipeline.unet.config.encoder_hid_dim_type:
        raise InputError(
            "base", f"{name} conditions on more than text (SDXL, IP)", "take SD 1.x or 2.x"
        )


def place(
    pipeline: StableDiffusionPipeline, name: str, device: torch.device, dtype: torch.dtype
) -> None:
    """Freeze the parts and bring them to ``device``; all but the autoencoder in ``dtype``.

    Raises:
        InputError: if the device has too little memory.
    """
    if device.type == "cuda":  # read when cuBLAS starts: without it no training can be repeated
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    parts = (
        (pipeline.unet, dtype),
        (pipeline.text_encoder, dtype),
        (pipeline.vae, autoencoder.DTYPE),
    )
    try:
        for part, numbers in parts:
            part.requires_grad_(False).eval().to(device=device, dtype=numbers)
    except torch.OutOfMemoryError:
        raise InputError(
            "device",
            f"{device} has too little free memory for {name} in {dtype}",
            "take a smaller dtype, free memory, or take cpu",
        ) from None


def key_value_weights(unet: UNet2DConditionModel, layers: Sequence[str]) -> dict[str, Tensor]:
    """``{layer}.to_k.weight`` and ``{layer}.to_v.weight``, float32."""
    names = [f"{n}.{part}.weight" for n in layers for part in ("to_k", "to_v")]
    state = unet.state_dict()
    return {name: state[name].float() for name in names}


def fingerprint(layers: Sequence[str], weights: Mapping[str, Tensor]) -> str:
    """A digest of the key and value weights' shapes and numbers.

    Of the weights as they are in the file, before they are rounded to what the base computes in: so
    that it is the same for every dtype, whether the file is in float16 or in float32.
    """
    digest = hashlib.sha256(json.dumps(layers).encode())
    for name, weight in weights.items():
        sample = weight.flatten()[:: max(1, weight.numel() // 64)][:64].float().cpu()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(sample.half().numpy().tobytes())
    return digest.hexdigest()[:16]
