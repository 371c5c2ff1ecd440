"""Copies of the bundled base with a part exchanged: folders of every kind that users have."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from customedit import mini

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def copied(folder: Path) -> Path:
    """The bundled base in ``folder``, by links; write to it by the functions below only."""
    for source in mini.path().rglob("*"):
        target = folder / source.relative_to(mini.path())
        if source.is_file() and source.parent.name != "clip" and source.suffix != ".txt~":
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another file system
                target.write_bytes(source.read_bytes())
    return folder


def replace(path: Path, content: bytes | str) -> None:
    """Write ``path`` anew: the bundled file that it was a link to stays."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def configure(path: Path, changes: Mapping[str, Any]) -> None:
    """Change entries of a JSON file; None removes one."""
    found = json.loads(path.read_text()) | dict(changes)
    replace(path, json.dumps({k: v for k, v in found.items() if v is not ...}))


def reweigh(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Change the tensors of a safetensors file."""
    tensors = change(load_file(path))
    path.unlink()
    save_file({k: t.contiguous() for k, t in tensors.items()}, path, {"format": "pt"})


def shard(path: Path, count: int = 2, variant: str = "") -> None:
    """Split a safetensors file into shards with an index, as diffusers and transformers do."""
    tensors = load_file(path)
    stem, middle = path.name.removesuffix(".safetensors"), f".{variant}" if variant else ""
    places: dict[str, str] = {}
    names = sorted(tensors)
    for k in range(count):
        own = names[k::count]
        file = f"{stem}{middle}-{k + 1:05d}-of-{count:05d}.safetensors"
        save_file({n: tensors[n] for n in own}, path.with_name(file), {"format": "pt"})
        places |= dict.fromkeys(own, file)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    name = f"{stem}.safetensors.index{middle}.json"
    path.with_name(name).write_text(json.dumps(index))
    path.unlink()


def widened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values as float32."""
    return {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}


def nudged(name: str, by: float = 2.0**-9) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """A change of one number of the tensor ``name``."""

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors[name] = tensors[name].clone()
        flat = tensors[name].view(-1)
        flat[len(flat) // 2 + 1 if len(flat) > 2 else 0] += by
        return tensors

    return change


def poisoned(name: str, value: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """One number of the tensor ``name`` becomes ``value``."""

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors[name] = tensors[name].float()
        tensors[name].view(-1)[0] = value
        return tensors

    return change


def as_pickle(path: Path) -> None:
    """The weights as a pickle in the place of safetensors."""
    name = "pytorch_model.bin" if path.parent.name == "text_encoder" else f"{path.stem}.bin"
    torch.save(load_file(path), path.with_name(name))
    path.unlink()
