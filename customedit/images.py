"""Pictures at the edge: uploads read safely, files written whole, and what lies between.

Nothing here trusts what it is given: sizes are read from the header before anything is decoded,
and whatever a decoder trips over becomes an InputError that says what was wrong and what to do.
"""

from __future__ import annotations

import io
import math
import os
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from customedit.errors import InputError

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000
MIN_SIDE = 16

_AGAIN = "save it again as PNG, JPEG or WebP"
_SAVE: dict[str, tuple[str, dict[str, int]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95}),
}
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders are known to raise for files that are not what they say."""


@dataclass(frozen=True)
class Decoded:
    """A picture that was read.

    image: RGB, upright, 8 bits a channel; alpha: whether some of it was transparent, and so was
    laid on white; original_size: (width, height) in the file, before its orientation was applied.
    """

    image: Image.Image
    alpha: bool
    original_size: tuple[int, int]


def read(
    data: bytes | Path,
    *,
    field: str = "image",
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    min_side: int = MIN_SIDE,
) -> Decoded:
    """Decode a PNG, JPEG or WebP, told by its contents; of an animation the first frame.

    data: the file or where it lies; field: its name in errors; max_bytes: of the file;
    max_pixels: width x height; min_side: pixels of the shorter side. Both of the last are checked
    on the header, so that a decompression bomb costs nothing.

    Raises:
        InputError: naming ``field``, what was found, the limit and the remedy.
    """
    found = _bytes(data, field, max_bytes)
    try:
        if _is_webp(found):  # Pillow makes room for the whole canvas when it opens one
            _check_size(_webp_size(found), field, max_pixels, min_side)
        opened = _open(found, field)
        _check_size(opened.size, field, max_pixels, min_side)
        opened.load()
        return _upright_rgb(opened)
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(
            field, f"cannot be decoded, it is damaged or incomplete ({error})", _AGAIN
        ) from error


def _bytes(data: bytes | Path, field: str, max_bytes: int) -> bytes:
    """The file's bytes; a file's size is looked at before it is read."""
    try:
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if size > max_bytes:
            raise InputError(
                field,
                f"is {_mib(size)} large, the limit is {_mib(max_bytes)}",
                "make it smaller or save it as JPEG or WebP",
            )
        found = data.read_bytes() if isinstance(data, Path) else data
    except OSError as error:
        raise InputError(
            field, f"cannot be read from {data!s} ({error.strerror})", "mend the path"
        ) from error
    if not found:
        raise InputError(field, "is empty (0 bytes)", "give a PNG, JPEG or WebP file")
    return found


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**19 else f"{size} bytes"


def _open(found: bytes, field: str) -> ImageFile.ImageFile:
    """The picture with its header read, nothing decoded.

    By the decoders' own classes: ``Image.open`` warns of a size that is refused here anyway, and
    takes a JPEG with a depth map beside it for another format.
    """
    stream = io.BytesIO(found)
    if found.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(stream)
    if found.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(stream)
    if _is_webp(found):
        return WebPImageFile(stream)
    raise InputError(field, f"is no PNG, JPEG or WebP (it begins with {found[:8]!r})", _AGAIN)


def _is_webp(found: bytes) -> bool:
    return found[:4] == b"RIFF" and found[8:12] == b"WEBP"


def _webp_size(found: bytes) -> tuple[int, int]:
    """(width, height) that a WebP file's first chunk declares (RFC 9649, sections 2.5 to 2.7)."""
    kind, head = found[12:16], found[20:30]
    if len(head) < 10:
        raise ValueError("the header is cut off")
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError(f"chunk {kind!r} is no picture")


def _check_size(size: tuple[int, int], field: str, max_pixels: int, min_side: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise InputError(
            field,
            f"is {width} x {height} = {width * height / 1e6:.1f} million pixels, "
            f"the limit is {max_pixels / 1e6:g} million",
            "scale it down",
        )
    if min(size) < min_side:
        raise InputError(
            field,
            f"is {width} x {height} pixels, each side must have {min_side} or more",
            "give a larger picture",
        )


def _upright_rgb(opened: Image.Image) -> Decoded:
    size = opened.size
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip and not scale
        image = _scaled_grey(image)
    image = _in_srgb(image)
    if not image.has_transparency_data:
        return Decoded(image.convert("RGB"), False, size)
    image = image.convert("RGBA")
    lowest, _ = image.getchannel("A").getextrema()
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return Decoded(white.convert("RGB"), lowest != 255, size)


def _in_srgb(image: Image.Image) -> Image.Image:
    """``image`` by its ICC profile in sRGB, which models are trained on; as it is without one.

    A profile that cannot be read, or is of another kind than the pixels, is passed over, as viewers
    do.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    solid = image.convert("RGB") if alpha is not None else image
    try:
        found = ImageCms.profileToProfile(
            solid, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    if found is None:
        return image
    if alpha is not None:
        found.putalpha(alpha)
    elif "transparency" in image.info:  # a colour that is clear: it is told by the old values
        return image
    return found


def _scaled_grey(image: Image.Image) -> Image.Image:
    """16-bit grey as L, or as LA if the file names a value that is transparent."""
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def write(image: Image.Image, path: Path) -> None:
    """Write ``image`` as PNG, JPEG or WebP by the suffix of ``path``: whole, or not at all.

    JPEG without chroma subsampling at quality 95, WebP at 95. The folder must be there.

    Raises:
        InputError: for another suffix.
        OSError: if it cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in _SAVE:
        raise InputError(
            "path", f"ends in {suffix or 'no suffix'!r}", f"use one of {', '.join(_SAVE)}"
        )
    name, options = _SAVE[suffix]
    if name == "JPEG" and image.mode != "RGB":
        image = image.convert("RGB")
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            image.save(stream, format=name, **options)
        os.chmod(draft, 0o666 & ~_umask())  # mkstemp makes files that only their owner reads
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def fit(size: tuple[int, int], multiple: int, area: int) -> tuple[int, int]:
    """(width, height) near ``area`` pixels in the aspect of ``size``, sides of whole multiples.

    Each side is rounded to the nearest multiple, and is at least one. Of a picture so narrow that
    one side would be less, the other side stops where the area is full, and the aspect gives way.

    Raises:
        ValueError: unless all numbers are positive.
    """
    width, height = size
    if min(width, height, multiple, area) < 1:
        raise ValueError(f"size {size}, multiple {multiple} and area {area} must be positive")
    scale = math.sqrt(area / (width * height))
    narrow = min(width, height) * scale < multiple
    longest = max(1, area // multiple**2) if narrow else math.inf  # in multiples

    def side(pixels: int) -> int:
        return multiple * int(min(max(1, round(pixels * scale / multiple)), longest))

    return side(width), side(height)
