"""WebP files (RFC 9649): what they declare, before anything is decoded."""

from __future__ import annotations

import struct
from typing import Final

from customedit.images.container import Container, Damaged

_BYTES_PER_PIXEL: Final = 16
"""Pillow's decoder of animations, which reads all WebP files: two canvases and two copies."""


def is_webp(data: bytes) -> bool:
    """Whether a file begins as WebP files do."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def scan(data: bytes) -> Container:
    """What the first chunk of a WebP file declares (sections 2.5 to 2.7).

    Raises:
        Damaged: for a file that begins with no picture.
    """
    size = _size(data)
    moves = data[12:16] == b"VP8X" and bool(data[20] & 2)
    return Container(
        "image/webp",
        size,
        data,
        memory=_BYTES_PER_PIXEL * size[0] * size[1],
        warnings=("is an animation, of which only the first picture is taken",) if moves else (),
    )


def _size(data: bytes) -> tuple[int, int]:
    kind, head = data[12:16], data[20:30]
    if len(head) < 10:
        raise Damaged("is cut off in its header")
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise Damaged(f"begins with chunk {kind!r}, which is no picture")
