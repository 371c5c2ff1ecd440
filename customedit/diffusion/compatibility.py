"""Whether a base can be driven, as far as its configurations tell.

What no family can drive is refused when the base is loaded, by name and in one line, before its
weights are read. What tokenizers, text encoders and weights must be is in ``loading``. No torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from customedit.diffusion.families.known import OTHERS, layout_of_class, layout_of_files
from customedit.diffusion.families.layout import SUPPORTED, Layout
from customedit.errors import InputError

AUTOENCODERS: Final = ("AutoencoderKL", "AutoencoderTiny")


def check_folder(folder: Path, name: str) -> Layout:
    """The layout of a base's folder.

    Raises InputError if its JSON files say that it cannot be driven.
    """
    layout = check_index(folder, name)
    index = read_json(folder / "model_index.json", name)
    layout = layout.with_encoders(lambda part: any(index.get(part) or ()))
    config = read_json(folder / layout.denoiser / "config.json", name)
    kind = config.get("_class_name", layout.denoiser_class)
    if kind != layout.denoiser_class:
        raise InputError("base", f"{name} has a {kind}, not a {layout.denoiser_class}", SUPPORTED)
    vae = read_json(folder / "vae" / "config.json", name)
    if vae.get("_class_name") not in AUTOENCODERS:
        raise InputError(
            "base",
            f"{name} has the autoencoder {vae.get('_class_name')!r}",
            f"use a base with {' or '.join(AUTOENCODERS)}",
        )
    layout.check_denoiser(config, vae, name)
    for encoder in layout.encoders:
        text = read_json(folder / encoder.part / "config.json", name)
        if text.get("model_type", encoder.kinds[0]) not in encoder.kinds:
            raise InputError(
                "base",
                f"{name} has the text encoder {text['model_type']!r}, not {encoder.kinds[0]!r}",
                SUPPORTED,
            )
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json", name)
    layout.check_schedule({"_class_name": "scheduler without a class", **scheduler})
    return layout


def check_index(folder: Path, name: str) -> Layout:
    """The layout of the pipeline in ``folder``, by the class that ``model_index.json`` names.

    Pipelines for other tasks pass, and unknown ones with a UNet: whether their parts fit is seen
    from the parts. Raises InputError for a pipeline of no known family, saying what it is.
    """
    kind = read_json(folder / "model_index.json", name).get("_class_name")
    kind = kind[-1] if isinstance(kind, list) and kind else kind  # community pipelines
    if not isinstance(kind, str):
        raise InputError(
            "base", f"{name}: model_index.json names no pipeline (_class_name)", SUPPORTED
        )
    layout = layout_of_class(kind)
    if layout is not None:
        return layout
    other = next((what for begin, what in OTHERS.items() if kind.startswith(begin)), None)
    if other is None:
        layout = layout_of_files([p.relative_to(folder).as_posix() for p in folder.glob("*/*")])
        config = folder / layout.denoiser / "config.json"
        found = read_json(config, name).get("_class_name") if config.is_file() else None
        if found == layout.denoiser_class:
            return layout
    raise InputError(
        "base", f"{name} is a {other or kind} model ({kind}), which is not supported", SUPPORTED
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
