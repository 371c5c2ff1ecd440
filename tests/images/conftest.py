"""Pictures as files, made by hand where an encoder would not make them so."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

FORMATS = ["PNG", "JPEG", "WEBP"]


def picture(size: tuple[int, int] = (40, 24), seed: int = 0) -> Image.Image:
    """Smooth colours, so that lossy formats keep them closely."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    return Image.fromarray((np.stack([x, y, (x + seed) / 2 % 1], -1) * 255).astype(np.uint8))


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Levels by chance."""
    levels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(levels)


def saved(image: Image.Image, name: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=name, **options)
    return stream.getvalue()


def far(a: Image.Image, b: Image.Image) -> float:
    """The largest difference of a level."""
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())


def png_chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    found = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", found)


def png(
    size: tuple[int, int], rows: bytes, *, depth: int = 8, kind: int = 2, extra: bytes = b""
) -> bytes:
    """A PNG of unfiltered ``rows`` (each led by a 0), with ``extra`` chunks before them."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + extra + data + png_chunk(b"IEND", b"")


def with_chunk(data: bytes, chunk: bytes) -> bytes:
    """A PNG with ``chunk`` after its header."""
    return data[:33] + chunk + data[33:]


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def with_segment(data: bytes, segment: bytes) -> bytes:
    """A JPEG with ``segment`` after its start."""
    return data[:2] + segment + data[2:]


def scans_of(data: bytes) -> list[int]:
    """Where the scans (SOS) of a JPEG begin, and where its end mark is."""
    at, found = 2, []
    while data[at : at + 2] != b"\xff\xd9":
        if data[at + 1] == 0xDA:
            found.append(at)
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        if data[found[-1] + 1 if found else 0] == 0xDA and found[-1] < at:
            while data[at] != 0xFF or data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7:
                at += 1
    return [*found, at]


def profile(gamma: float, *, grey: bool = False) -> bytes:
    """An ICC profile (v2, one curve) of sRGB's primaries, or of grey, with another gamma."""

    def tag(kind: bytes, body: bytes) -> bytes:
        return (kind + bytes(4) + body).ljust(-(-(8 + len(body)) // 4) * 4, b"\0")

    def xyz(*values: float) -> bytes:
        return tag(b"XYZ ", b"".join(struct.pack(">i", round(v * 65536)) for v in values))

    curve = tag(b"curv", struct.pack(">IH", 1, round(gamma * 256)))
    tags = {b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    if grey:
        tags |= {b"kTRC": curve}
    else:
        tags |= {
            b"rXYZ": xyz(0.4361, 0.2225, 0.0139), b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
            b"bXYZ": xyz(0.1431, 0.0606, 0.7141), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
        }  # fmt: skip
    at = 128 + 4 + 12 * len(tags)
    table, bodies = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", at + len(bodies), len(body))
        bodies += body
    space = b"GRAY" if grey else b"RGB "
    head = struct.pack(">I4sI4s4s4s12x4s", 0, b"test", 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    head = (head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0")
    whole = head + table + bodies
    return struct.pack(">I", len(whole)) + whole[4:]
