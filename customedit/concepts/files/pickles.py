"""Other programs' pickles, read without running anything that is in them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from customedit.concepts.files.state_dict import AGAIN
from customedit.errors import InputError
from customedit.files import replacing


def read(path: Path, max_bytes: int) -> Any:
    """What is pickled in ``path``, by torch's own unpickler that calls nothing but tensors' makers.

    Sizes are looked at on both sides of it: archives can be packed, and a tensor of a few bytes
    can claim, by strides of zero, to be of any size.

    Raises:
        InputError: naming the file, for one that is truncated, no PyTorch file, unpacks to more
            than ``max_bytes``, or holds more than plain tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _check_room(path, sum(i.file_size for i in archive.infolist()), max_bytes)
        held = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # hostile pickles make the unpickler raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            "concept",
            f"{path} is truncated, no PyTorch file, or holds more than tensors ({reason[0]})",
            AGAIN,
        ) from None
    _check_room(path, _bytes(held, path), max_bytes)
    return held


def write(path: Path, entries: dict[str, Any]) -> None:
    """Pickle ``entries`` into ``path``, whole or not at all."""
    with replacing(path) as draft, draft.open("wb") as stream:
        torch.save(entries, stream)


def _check_room(path: Path, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise InputError(
            "concept",
            f"{path} unpacks to {size} bytes, the limit is {max_bytes}",
            "compress it to low rank, or raise the limit if you trust it",
        )


def _bytes(held: Any, path: Path) -> int:
    """Of all tensors in nested dicts, if each were made whole; dicts may hold themselves."""
    size, left, seen = 0, [held], set()
    while left:
        entry = left.pop()
        if isinstance(entry, Mapping) and id(entry) not in seen:
            seen.add(id(entry))
            left += entry.values()
        elif isinstance(entry, Tensor):
            if entry.layout != torch.strided or entry.is_quantized or entry.device.type != "cpu":
                raise InputError("concept", f"{path} holds a tensor that is not plain", AGAIN)
            size += entry.numel() * entry.element_size()
    return size
