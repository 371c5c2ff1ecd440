"""State dicts of other programs' files: read without running anything that is in them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from customedit.concepts.checks import check_finite
from customedit.concepts.files.identify import (
    AGAIN,
    is_safetensors,
    read_header,
    refuse_models,
    refuse_other_files,
)
from customedit.errors import InputError
from customedit.files import replacing

TRUSTED = f"{AGAIN}, from someone you trust"


@dataclass(frozen=True)
class StateDict:
    """A file's entries by name, and its metadata (of safetensors only)."""

    path: Path
    entries: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """What one file brings to a concept.

    tokens: to [n, width] or [width], a token that the file does not name being called ""; weights:
    as in ``Concept.weights``.
    """

    tokens: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)


def read_state_dict(path: Path, max_bytes: int) -> StateDict:
    """The entries of a safetensors file or of a PyTorch pickle, on the CPU.

    max_bytes: of the file, and of what it unpacks to.

    Raises:
        InputError: naming the file, for one that is missing, too large, truncated, of another
            kind (which it is called), or would run code.
    """
    refuse_other_files(path)
    safe = is_safetensors(path)
    if safe:
        refuse_models(read_header(path).names, path)  # before its size: it says more
    check_size(path, max_bytes)
    state = _read_safetensors(path) if safe else StateDict(path, _read_pickle(path, max_bytes))
    entries: Any = state.entries  # of a pickle
    if not isinstance(entries, Mapping) or not all(isinstance(k, str) for k in entries):
        raise InputError(
            "concept",
            f"{path} holds a {type(entries).__name__}, not named entries",
            "give a file of Custom Diffusion, textual inversion or LoRA",
        )
    refuse_models([*entries, *_nested(entries)], path)
    return state


def _nested(entries: Mapping[str, Any]) -> list[str]:
    """The names inside ``state_dict``, where checkpoints have them.

    Without the keys and values of cross-attention: of adobe's first code's files these are all.
    """
    inner = entries.get("state_dict")
    names = inner if isinstance(inner, Mapping) else ()
    return [k for k in names if isinstance(k, str) and ".attn2.to_" not in k]


def check_size(path: Path, max_bytes: int) -> None:
    """Look at a file before it is read.

    Raises:
        InputError: naming it, if it is missing, no file, or larger than ``max_bytes``.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise InputError("concept", f"{path} cannot be read ({error.strerror})") from None
    if size is None:
        raise InputError("concept", f"{path} is not a file", "correct the path")
    if size > max_bytes:
        raise InputError(
            "concept",
            f"{path} has {size} bytes, the limit is {max_bytes}",
            "so large are whole models, which are no concepts; a large concept can be compressed",
        )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a safetensors file.

    Raises:
        InputError: naming it, for one that is truncated or damaged.
    """
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {n: file.get_tensor(n) for n in header.names}, header.metadata
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            "concept", f"{path} is truncated or not a safetensors file ({error})", AGAIN
        ) from None


def _read_safetensors(path: Path) -> StateDict:
    return StateDict(path, *read_safetensors(path))


def _read_pickle(path: Path, max_bytes: int) -> Any:
    """What is pickled in ``path``, by torch's own unpickler that calls nothing but tensors' makers.

    Sizes are looked at on both sides of it: archives can be packed, and a tensor of a few bytes
    can claim, by strides of zero, to be of any size.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _check_unpacked(path, sum(i.file_size for i in archive.infolist()), max_bytes)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # hostile pickles make the unpickler raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            "concept",
            f"{path} is truncated, not a PyTorch file, or holds more than tensors ({reason[0]})",
            TRUSTED,
        ) from None
    _check_unpacked(path, _tensor_bytes(content, path), max_bytes)
    return content


def write_pickle(path: Path, entries: dict[str, Any]) -> None:
    """Pickle ``entries`` into ``path``, whole or not at all."""
    with replacing(path) as draft, draft.open("wb") as stream:
        torch.save(entries, stream)


def _check_unpacked(path: Path, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise InputError(
            "concept",
            f"{path} unpacks to {size} bytes, the limit is {max_bytes}",
            "so large are whole models, which are no concepts; a large concept can be compressed",
        )


def _tensor_bytes(content: Any, path: Path) -> int:
    """Of all tensors in nested dicts, if each were made whole; dicts may hold themselves."""
    size, left, seen = 0, [content], set()
    while left:
        entry = left.pop()
        if isinstance(entry, Mapping) and id(entry) not in seen:
            seen.add(id(entry))
            left += entry.values()
        elif isinstance(entry, Tensor):
            if entry.layout != torch.strided or entry.is_quantized or entry.device.type != "cpu":
                raise InputError("concept", f"{path} holds a tensor that is not plain", TRUSTED)
            size += entry.numel() * entry.element_size()
    return size


def plain_tensor(value: Any, name: str, path: Path) -> Tensor:
    """``value`` as a tensor of its own, without gradient or strides of zero.

    Raises:
        InputError: naming file and entry, for one that is no tensor, or holds no finite floats.
    """
    if not isinstance(value, Tensor):
        raise InputError(
            "concept", f"{path} holds a {type(value).__name__} for {name}, not a tensor", TRUSTED
        )
    tensor = value.detach().contiguous()
    check_finite({name: tensor}, str(path))
    return tensor


def portable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory, as safetensors wants them."""
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}


def foreign_entry(name: str, path: Path) -> InputError:
    """The error for an entry that no concept has."""
    return InputError(
        "concept",
        f"{path} holds {name}; Custom Diffusion's files have tokens and cross-attention keys and "
        "values only",
        "train it without queries, outputs or text encoder (freeze_model crossattn_kv)",
    )
