"""PNG files (W3C PNG, third edition): their chunks, before anything is decoded.

Only chunks that decide pixels reach the decoder. So text that unpacks to gigabytes, a broken EXIF
block or a wrong checksum of a comment cannot keep a picture from being read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from customedit.images.container import MAX_PROFILE_BYTES, Container, Damaged, inflate

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS: Final = 100_000
"""Encoders write 8 KiB and more in a chunk: 100,000 of those are 800 MB."""

_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_TEXT_LIMIT: Final = 2**20
_KEPT_TEXT: Final = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # may hold the orientation
_IEND: Final = b"\0\0\0\0IEND\xaeB`\x82"


def scan(data: bytes) -> Container:
    """The chunks of a PNG file; only those that decide pixels are kept.

    Damaged optional chunks are left out with a warning, as libpng does. A file that ends early is
    closed, so that one that lacks only its end chunk is read; missing pixels are the decoder's to
    find.

    Raises:
        Damaged: for a file without a header, or of more than ``MAX_CHUNKS`` chunks.
    """
    kept: list[bytes | memoryview] = [SIGNATURE]
    warnings: list[str] = []
    header, ended = b"", False
    for name, body, whole, raw in _chunks(data):
        if name == b"IHDR" and not header:
            header = bytes(body)
        if name == b"acTL":
            warnings.append("is an animation, of which only the first picture is taken")
        if name in (b"IHDR", b"PLTE", b"IDAT"):
            kept.append(raw if whole else _chunk(name, body))
        elif name in (b"tRNS", b"iCCP", b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            problem = _problem(name, body, whole, raw)
            if problem is None:
                kept.append(raw)
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
    kept.append(_IEND)
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    depth, kind = header[8], header[9]
    bytes_per_pixel = 2 if kind == 0 and depth == 16 else 1 if kind in (0, 3) else 4
    return Container(
        "image/png",
        (width, height),
        b"".join(kept),
        depth=depth,
        memory=width * (height * bytes_per_pixel + 16 * _CHANNELS.get(kind, 4)),
        cut=not ended,
        warnings=tuple(warnings),
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool, memoryview]]:
    """(name, body, whether all of it is there, the chunk as it stands) of each chunk."""
    at, view = len(SIGNATURE), memoryview(data)
    for _ in range(MAX_CHUNKS):
        if len(data) < at + 8:
            return
        length = int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        end = at + 12 + length
        yield name, view[at + 8 : end - 4], end <= len(data), view[at:end]
        at = end
    raise Damaged(f"has more than {MAX_CHUNKS} chunks")


def _chunk(name: bytes, body: memoryview) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(name)).to_bytes(4, "big")
    return b"".join([len(body).to_bytes(4, "big"), name, body, checksum])


def _problem(name: bytes, body: memoryview, whole: bool, raw: memoryview) -> str | None:
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
