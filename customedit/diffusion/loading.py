"""A base's parts from a folder: loaded one by one, checked, brought to their device."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
import transformers

from customedit.diffusion import autoencoder
from customedit.diffusion.compatibility import check_folder, first_line, read_json
from customedit.diffusion.families.family import Family
from customedit.diffusion.families.known import family_of, layout_of_class
from customedit.diffusion.families.layout import SUPPORTED, EncoderLayout, Layout
from customedit.diffusion.folder import check_weight_files, choose, listing
from customedit.diffusion.independent_rows import make_rows_independent
from customedit.errors import InputError

T = TypeVar("T")


def load_pipeline(folder: Path, name: str) -> Any:
    """The pipeline in ``folder``, on the CPU, its weights as float32. Never asks a hub.

    Part by part, so that an error names the part and its cause. The scheduler's settings are those
    that diffusers' pipeline corrects.

    Raises:
        InputError: for one that is incomplete, damaged, of no known family, or larger than the
            memory.
    """
    layout = check_folder(folder, name)
    files = listing(folder)

    def weights(part: str) -> dict[str, Any]:
        chosen = choose(files, part, name, layout)
        check_weight_files(folder, chosen, name)
        return {
            "subfolder": part, "variant": chosen.variant, "use_safetensors": True,
            "local_files_only": True, "output_loading_info": True,
        }  # fmt: skip

    def scheduler() -> Any:
        kind = read_json(folder / "scheduler" / "scheduler_config.json", name)["_class_name"]
        return getattr(diffusers, kind).from_pretrained(folder, subfolder="scheduler")

    def denoiser() -> Any:
        kind = getattr(diffusers, layout.denoiser_class)
        return _complete(*kind.from_pretrained(folder, **weights(layout.denoiser)))

    def codec() -> Any:
        kind = getattr(diffusers, read_json(folder / "vae" / "config.json", name)["_class_name"])
        return _complete(*kind.from_pretrained(folder, **weights("vae")))

    def text_encoder(encoder: EncoderLayout) -> Any:
        kind = getattr(transformers, encoder.encoder_class)
        options = weights(encoder.part) | {"dtype": torch.float32}
        return _complete(*kind.from_pretrained(folder, **options))

    def tokenizer(encoder: EncoderLayout) -> Any:
        kind = getattr(transformers, encoder.tokenizer_class)
        return kind.from_pretrained(folder, subfolder=encoder.tokenizer, local_files_only=True)

    index = read_json(folder / "model_index.json", name)
    options = {n: index.get(n, default) for n, default in layout.options.items()}
    with warnings.catch_warnings():  # of the settings that the pipeline corrects
        warnings.simplefilter("ignore")
        parts = {"scheduler": _part("scheduler", name, scheduler)}
        for number, encoder in enumerate(layout.encoders):
            which = f" {number + 1}" if number else ""
            read = functools.partial(tokenizer, encoder)
            parts[encoder.tokenizer] = _part(f"tokenizer{which}", name, read)
            read = functools.partial(text_encoder, encoder)
            parts[encoder.part] = _part(f"text encoder{which}", name, read)
        parts["vae"] = _part("autoencoder", name, codec)
        parts[layout.denoiser] = _part(_called(layout), name, denoiser)
        return family_of(layout).assemble(parts, options)


def _called(layout: Layout) -> str:
    """What the denoiser is called in errors."""
    return "UNet" if layout.denoiser == "unet" else layout.denoiser


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


def family_of_pipeline(pipeline: Any, name: str) -> Family:
    """The family that drives ``pipeline``. Raises InputError for a pipeline of none."""
    kind = type(pipeline).__name__
    layout = layout_of_class(kind)
    if layout is None:
        raise InputError("base", f"{name} is a {kind}, which is not supported", SUPPORTED)
    if type(getattr(pipeline, layout.denoiser, None)).__name__ != layout.denoiser_class:
        raise InputError("base", f"{name} has no {layout.denoiser_class}", SUPPORTED)
    return family_of(layout)(pipeline)


def check(family: Family, name: str, dtype: torch.dtype) -> None:
    """Raises InputError for parts that cannot be driven, or do not go together.

    dtype: what denoiser and text encoders will compute in: their weights must be finite there.
    """
    layout, vae = family.layout, family.pipeline.vae
    layout.check_denoiser(family.denoiser.config, vae.config, name)
    family.check(name)
    family.schedule()
    check_finite(family.denoiser, _called(layout), dtype, name)
    for encoder in family.encoders:
        check_finite(encoder.model, "text encoder", dtype, name)
    check_finite(vae, "autoencoder", autoencoder.DTYPE, name)


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


def place(family: Family, name: str, device: torch.device, dtype: torch.dtype) -> None:
    """Freeze the parts and bring them to ``device``; all but the autoencoder in ``dtype``.

    On a GPU convolutions have their weights with channels last, as its matrix units read them; on a
    processor that gains nothing (docs/performance.md), and a row has there the same bits whatever
    other rows there are (``independent_rows``).

    Raises:
        InputError: if the device has too little memory.
    """
    if device.type == "cuda":  # read when cuBLAS starts: without it no training can be repeated
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    parts = [
        (family.denoiser, dtype),
        *((encoder.model, dtype) for encoder in family.encoders),
        (family.pipeline.vae, autoencoder.DTYPE),
    ]
    try:
        for part, numbers in parts:
            part.requires_grad_(False).eval().to(device=device, dtype=numbers)
            if device.type == "cuda":
                part.to(memory_format=torch.channels_last)
            elif device.type == "cpu" and part is not family.pipeline.vae:
                make_rows_independent(part)
        for encoder in (e.model for e in family.encoders if e.is_t5 and dtype == torch.float16):
            _widen_outputs(encoder)
    except torch.OutOfMemoryError:
        raise InputError(
            "device",
            f"{device} has too little free memory for {name} in {dtype}",
            "use a smaller dtype, free memory, or use cpu",
        ) from None


def _widen_outputs(t5: torch.nn.Module) -> None:
    """Keep the layers in float32 that overflow in float16, as transformers does when it loads T5.

    Their module brings its input to their dtype.
    """
    for name, module in t5.named_modules():
        if name.endswith(".wo"):
            module.float()
