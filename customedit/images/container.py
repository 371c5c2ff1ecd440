"""What the files of all formats have in common before a pixel is decoded: limits and findings."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final, Literal

MIN_SIDE: Final = 16
MAX_PROFILE_BYTES: Final = 4 * 2**20
"""Larger colour profiles are passed over: a printer's largest have 3 MB."""

MediaType = Literal["image/png", "image/jpeg", "image/webp"]


class Damaged(ValueError):
    """A file is not built as its format asks, so that its pixels cannot be read."""


@dataclass(frozen=True)
class Limits:
    """What a picture may have.

    max_bytes: of the file; max_pixels: width x height; min_side: pixels of the shorter side;
    setting: the name of the setting that raises ``max_pixels``, for the error; None if the caller
    cannot raise it.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 40_000_000
    min_side: int = MIN_SIDE
    setting: str | None = None


@dataclass(frozen=True)
class Container:
    """What a file says of its picture, read without decoding.

    media_type: of the contents; size: (width, height) as stored; data: what the decoder is to read:
    the file without the parts that it does not need, with an end mark where that was missing;
    depth: bits of a sample; memory: bytes that a decoder takes to check it, about; cut: whether the
    file ended before its end mark; unit: (width, height) in pixels of what is coded together;
    warnings: what was passed over, each a sentence without its subject.
    """

    media_type: MediaType
    size: tuple[int, int]
    data: bytes
    depth: int = 8
    memory: int = 0
    cut: bool = False
    unit: tuple[int, int] = (1, 1)
    warnings: tuple[str, ...] = ()


def inflate(data: bytes, most: int) -> bytes | None:
    """``data`` unpacked (zlib); None if it is damaged or gives more than ``most`` bytes."""
    unpacking = zlib.decompressobj()
    try:
        out = unpacking.decompress(data, most + 1)
    except zlib.error:
        return None
    return out if unpacking.eof and len(out) <= most else None
