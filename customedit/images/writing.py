"""Pictures to files: PNG and WebP keep every level, JPEG does not."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from PIL import Image

from customedit.errors import InputError

_FORMATS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),  # exact: also where it is transparent
}
SUFFIXES: Final = tuple(_FORMATS)


def is_lossy(path: Path) -> bool:
    """Whether a file of this name changes levels: JPEG does, PNG and WebP are written lossless.

    Raises:
        InputError: for a suffix that is none of ``SUFFIXES``.
    """
    return _format(path)[0] == "JPEG"


def encode(image: Image.Image, path: Path) -> bytes:
    """``image`` as a file of the format that the suffix of ``path`` names.

    PNG and WebP are lossless; JPEG has quality 95 and no chroma subsampling, and is RGB.

    Raises:
        InputError: for a suffix that is none of ``SUFFIXES``.
    """
    name, options = _format(path)
    if name == "JPEG" and image.mode != "RGB":
        image = image.convert("RGB")
    stream = io.BytesIO()
    image.save(stream, format=name, **options)
    return stream.getvalue()


def write(image: Image.Image, path: Path) -> None:
    """Write ``image`` as ``encode`` gives it: whole, or not at all. The folder must be there.

    Raises:
        InputError: for a suffix that is none of ``SUFFIXES``.
        OSError: if it cannot be written.
    """
    content = encode(image, path)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(draft, 0o666 & ~_umask())  # mkstemp makes files that only their owner reads
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _format(path: Path) -> tuple[str, dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise InputError(
            "path", f"ends in {suffix or 'no suffix'!r}", f"use one of {', '.join(SUFFIXES)}"
        )
    return _FORMATS[suffix]


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
