"""How files of pictures are built: what all formats have in common, PNG and WebP.

Read before a pixel is decoded. JPEG, which takes more, is in ``jpeg``.

PNG (W3C PNG, third edition): only chunks that decide pixels reach the decoder. So text that unpacks
to gigabytes, a broken EXIF block or a wrong checksum of a comment cannot keep a picture from being
read. WebP is RFC 9649.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
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


PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS: Final = 100_000
"""Encoders write 8 KiB and more in a chunk: 100,000 of those are 800 MB."""

_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_TEXT_LIMIT: Final = 2**20
_KEPT_TEXT: Final = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # may hold the orientation
_IEND: Final = b"\0\0\0\0IEND\xaeB`\x82"


def scan_png(data: bytes) -> Container:
    """The chunks of a PNG file; only those that decide pixels are kept.

    Damaged optional chunks are left out with a warning, as libpng does. A file that ends early is
    closed, so that one that lacks only its end chunk is read; missing pixels are the decoder's to
    find.

    Raises:
        Damaged: for a file without a header, or of more than ``MAX_CHUNKS`` chunks.
    """
    chunks: list[bytes | memoryview] = [PNG_SIGNATURE]
    warnings: list[str] = []
    header, ended = b"", False
    for name, body, whole, raw in _png_chunks(data):
        if name == b"IHDR" and not header:
            header = bytes(body)
        if name == b"acTL":
            warnings.append("is an animation, of which only the first picture is taken")
        if name in (b"IHDR", b"PLTE", b"IDAT"):
            chunks.append(raw if whole else _png_chunk(name, body))
        elif name in (b"tRNS", b"iCCP", b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            problem = _png_problem(name, body, whole, raw)
            if problem is None:
                chunks.append(raw)
            elif problem:
                warnings.append(problem)
        elif name == b"IEND":
            ended = True
            break
        elif not name[0] & 0x20:
            raise Damaged(f"holds a chunk {name!r} that no decoder knows")
    if len(header) < 13:
        raise Damaged("has no header")
    if not ended:
        warnings.append("ends without its end mark")
    chunks.append(_IEND)
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    depth, kind = header[8], header[9]
    bytes_per_pixel = 2 if kind == 0 and depth == 16 else 1 if kind in (0, 3) else 4
    return Container(
        "image/png",
        (width, height),
        b"".join(chunks),
        depth=depth,
        memory=width * (height * bytes_per_pixel + 16 * _CHANNELS.get(kind, 4)),
        cut=not ended,
        warnings=tuple(warnings),
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool, memoryview]]:
    """(name, body, whether all of it is there, the chunk as it stands) of each chunk."""
    at, view = len(PNG_SIGNATURE), memoryview(data)
    for _ in range(MAX_CHUNKS):
        if len(data) < at + 8:
            return
        length = int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        end = at + 12 + length
        yield name, view[at + 8 : end - 4], end <= len(data), view[at:end]
        at = end
    raise Damaged(f"has more than {MAX_CHUNKS} chunks")


def _png_chunk(name: bytes, body: memoryview) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(name)).to_bytes(4, "big")
    return b"".join([len(body).to_bytes(4, "big"), name, body, checksum])


def _png_problem(name: bytes, body: memoryview, whole: bool, raw: memoryview) -> str | None:
    """Why an optional chunk is left out; None: it is kept; empty: nobody misses it."""
    keyword, _, rest = bytes(body).partition(b"\0")
    if name in (b"tEXt", b"zTXt", b"iTXt") and keyword not in _KEPT_TEXT:
        return ""
    if not whole or zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(raw[-4:], "big"):
        return f"has a damaged {name.decode()} chunk, which is passed over"
    if name == b"iCCP" and inflate(rest[1:], MAX_PROFILE_BYTES) is None:
        return "has a colour profile that cannot be unpacked, which is passed over"
    if name == b"zTXt" and inflate(rest[1:], _TEXT_LIMIT) is None:
        return ""
    if name == b"iTXt" and rest[:1] != b"\0":  # packed: no writer of orientations does that
        return ""
    return None


_WEBP_BYTES_PER_PIXEL: Final = 16
"""Pillow's decoder of animations, which reads all WebP files: two canvases and two copies."""


def is_webp(data: bytes) -> bool:
    """Whether a file begins as WebP files do."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def scan_webp(data: bytes) -> Container:
    """What the first chunk of a WebP file declares (sections 2.5 to 2.7).

    Raises:
        Damaged: for a file that begins with no picture.
    """
    size = _webp_size(data)
    moves = data[12:16] == b"VP8X" and bool(data[20] & 2)
    return Container(
        "image/webp",
        size,
        data,
        memory=_WEBP_BYTES_PER_PIXEL * size[0] * size[1],
        warnings=("is an animation, of which only the first picture is taken",) if moves else (),
    )


def _webp_size(data: bytes) -> tuple[int, int]:
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
