"""A base's parts from a folder: loaded one by one, checked, brought to their device."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import diffusers
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from customedit.diffusion import autoencoder
from customedit.diffusion.compatibility import (
    check_channels,
    check_folder,
    check_unet,
    first_line,
    read_json,
)
from customedit.diffusion.folder import check_weight_files, choose, listing
from customedit.diffusion.schedule import Schedule
from customedit.errors import InputError

T = TypeVar("T")

_PADDING: Final = 128
"""Rows by which a text encoder's table may exceed the vocabulary: some are padded to a multiple."""


def load_pipeline(folder: Path, name: str) -> StableDiffusionPipeline:
    """The pipeline in ``folder``, on the CPU, its weights as float32. Never asks a hub.

    Part by part, so that an error names the part and its cause. The scheduler's settings are those
    that diffusers' pipeline corrects: steps_offset 1, no clip_sample.

    Raises:
        InputError: for one that is incomplete, damaged, of another kind than Stable Diffusion 1.x
            and 2.x, or larger than the memory.
    """
    check_folder(folder, name)
    files = listing(folder)

    def weights(part: str) -> dict[str, Any]:
        chosen = choose(files, part, name)
        check_weight_files(folder, chosen, name)
        return {
            "subfolder": part, "variant": chosen.variant, "use_safetensors": True,
            "local_files_only": True, "output_loading_info": True,
        }  # fmt: skip

    def scheduler() -> Any:
        kind = read_json(folder / "scheduler" / "scheduler_config.json", name)["_class_name"]
        return getattr(diffusers, kind).from_pretrained(folder, subfolder="scheduler")

    def denoiser() -> UNet2DConditionModel:
        unet, info = UNet2DConditionModel.from_pretrained(folder, **weights("unet"))
        return _complete(unet, info)

    def codec() -> Any:
        kind = getattr(diffusers, read_json(folder / "vae" / "config.json", name)["_class_name"])
        vae, info = kind.from_pretrained(folder, **weights("vae"))
        return _complete(vae, info)

    def text_encoder() -> CLIPTextModel:
        options = weights("text_encoder") | {"dtype": torch.float32}
        encoder, info = CLIPTextModel.from_pretrained(folder, **options)
        return _complete(encoder, info)

    def tokenizer() -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)

    with warnings.catch_warnings():  # of the settings that the pipeline corrects
        warnings.simplefilter("ignore")
        return StableDiffusionPipeline(
            scheduler=_part("scheduler", name, scheduler),
            tokenizer=_part("tokenizer", name, tokenizer),
            text_encoder=_part("text encoder", name, text_encoder),
            vae=_part("autoencoder", name, codec),
            unet=_part("UNet", name, denoiser),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def _part(kind: str, name: str, load: Callable[[], T]) -> T:
    """What ``load`` gives. Raises InputError that names the part, whatever goes wrong."""
    try:
        return load()
    except InputError:
        raise
    except Exception as error:  # loaders raise errors of every class for a damaged file
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate" in str(error):
            raise InputError(
                "base", f"{name} does not fit this machine's memory", "use a machine with more"
            ) from None
        raise InputError(
            "base",
            f"{name} does not load: its {kind} is damaged or incomplete ({first_line(error)})",
            "download or copy it again",
        ) from None


def _complete(part: T, info: dict[str, Any]) -> T:
    """``part`` unless weights were missing, which loaders fill with random numbers."""
    missing = sorted(k for k in info["missing_keys"] if not k.endswith("position_ids"))
    if missing:
        raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
    return part


def check(pipeline: StableDiffusionPipeline, name: str, dtype: torch.dtype) -> None:
    """Raises InputError for parts that cannot be driven, or do not go together.

    dtype: what UNet and text encoder will compute in: their weights must be finite there.
    """
    unet = pipeline.unet
    if not isinstance(unet, UNet2DConditionModel):
        raise InputError("base", f"{name} has no UNet2DConditionModel", "use SD 1.x or 2.x")
    check_unet(unet.config, name)
    check_channels(unet.config, pipeline.vae.config, name)
    check_text(unet.config, pipeline.text_encoder, pipeline.tokenizer, name)
    Schedule.from_config(pipeline.scheduler.config)
    check_finite(unet, "UNet", dtype, name)
    check_finite(pipeline.text_encoder, "text encoder", dtype, name)
    check_finite(pipeline.vae, "autoencoder", autoencoder.DTYPE, name)


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
            "use a smaller dtype, free memory, or use cpu",
        ) from None


def key_value_weights(unet: UNet2DConditionModel, layers: Sequence[str]) -> dict[str, Tensor]:
    """``{layer}.to_k.weight`` and ``{layer}.to_v.weight``, float32."""
    names = [f"{n}.{part}.weight" for n in layers for part in ("to_k", "to_v")]
    state = unet.state_dict()
    return {name: state[name].float() for name in names}
