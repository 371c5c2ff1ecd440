"""Files and folders to pictures: PNG, JPEG and WebP, told by their contents.

``check`` finds out whether a file can be decoded and takes little memory; ``read`` gives its
picture. Both take and refuse the same files. ``list_pictures`` finds the files in a folder.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from customedit.errors import InputError
from customedit.images import colours, jpeg, structure
from customedit.images.structure import Container, Damaged, Limits, MediaType

_REMEDY: Final = "save it again as PNG, JPEG or WebP"
_SUFFIXES: Final = {".png", ".jpg", ".jpeg", ".webp"}
_OTHERS: Final = {
    "it is a HEIC, as phones take them": re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL),
    "it is an AVIF": re.compile(rb"....ftypavi", re.DOTALL),
    "it is a GIF": re.compile(rb"GIF8"),
    "it is a TIFF, or a camera's raw file": re.compile(rb"II\*\0|MM\0\*"),
    "it is a BMP": re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL),
    "it is a JPEG XL": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "),
    "it is a JPEG 2000": re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    "it is a Photoshop file": re.compile(rb"8BPS"),
    "it is a PDF": re.compile(rb"%PDF"),
    "it is an SVG or a web page": re.compile(rb"\s*<"),
}
"""Files that people take for pictures we read, by how they begin."""
_BROKEN: Final = (
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

# The decoders' own classes: ``Image.open`` warns of sizes that are refused here anyway, and takes a
# JPEG with a depth map beside it for another format.
_DECODERS: Final[dict[MediaType, Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "image/png": PngImageFile,
    "image/jpeg": JpegImageFile,
    "image/webp": WebPImageFile,
}


@dataclass(frozen=True)
class Decoded:
    """A picture that was read.

    image: RGB, upright, 8 bits a channel, sRGB; alpha: whether some of it was transparent, and so
    was laid on white; original_size: (width, height) in the file, before its orientation was
    applied; warnings: what was passed over or is missing, each a sentence without its subject, as
    "ends without its end mark".
    """

    image: Image.Image
    alpha: bool
    original_size: tuple[int, int]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checked:
    """A file that can be decoded: its media type, (width, height) once upright, and warnings.

    Those of ``read``, but for what only shows when colours are converted.
    """

    media_type: MediaType
    size: tuple[int, int]
    warnings: tuple[str, ...] = ()


@contextmanager
def refusing(data: bytes | Path, field: str) -> Iterator[None]:
    """What scanners and decoders raise becomes an InputError, which names the path of a file."""
    name = f"{data} " if isinstance(data, Path) else ""
    try:
        yield
    except InputError as error:
        raise InputError(error.field, name + error.problem, error.remedy) from error
    except Damaged as error:
        raise InputError(field, name + str(error), _REMEDY) from error
    except _BROKEN as error:
        problem = f"{name}cannot be decoded, it is damaged or incomplete ({error})"
        raise InputError(field, problem, _REMEDY) from error


def read(data: bytes | Path, *, field: str = "image", limits: Limits | None = None) -> Decoded:
    """Decode a PNG, JPEG or WebP file; of an animation the first picture.

    Broken metadata (EXIF, colour profile, comments) is passed over. A JPEG that ends early is read
    as browsers do if at most two rows of its coded units and an eighth of its height are missing;
    of PNG and WebP all pixels must be there.

    data: the file or where it lies, which errors then name; field: its name in errors; limits: None
    for the usual ones.

    Raises:
        InputError: naming ``field``, what was found, the limit and the remedy.
    """
    stored = read_stored(data, field=field, limits=limits)
    warnings = list(stored.warnings)
    image = colours.in_srgb(colours.to_8_bits(stored.image, stored.depth), warnings)
    image, alpha = colours.on_white(image)
    image.info.clear()  # orientation and profile are applied, and no place is passed on
    return Decoded(image, alpha, stored.size, tuple(warnings))


@dataclass(frozen=True)
class Stored:
    """A picture as its file holds it, upright: any mode of Pillow, no colours converted.

    media_type: of the file; depth: bits of a sample in it; size: (width, height) before the picture
    was turned.
    """

    image: Image.Image
    media_type: MediaType
    depth: int
    size: tuple[int, int]
    warnings: tuple[str, ...] = ()


def read_stored(
    data: bytes | Path, *, field: str = "image", limits: Limits | None = None
) -> Stored:
    """Decode a file as ``read`` does, but leave its values as they are. Raises as ``read``."""
    with refusing(data, field):
        container = _scan(data, field, limits or Limits())
        warnings = list(container.warnings)
        image = colours.upright(_load(container, reduced=False), warnings)
        return Stored(image, container.media_type, container.depth, container.size, tuple(warnings))


def check(container: Container, *, field: str = "image") -> Checked:
    """Decode what ``scan`` took, as ``read`` does, but keep no picture.

    JPEG is decoded at an eighth of its size, so that it takes memory by its width and not by its
    area (files of several scans excepted).

    Raises:
        InputError: as ``read``.
    """
    with refusing(b"", field):
        warnings = list(container.warnings)
        turn = colours.orientation(_load(container, reduced=True), warnings)
        size = colours.turned_size(container.size, turn)
        return Checked(container.media_type, size, tuple(warnings))


def scan(data: bytes | Path, *, field: str = "image", limits: Limits | None = None) -> Container:
    """The structure of a file; nothing is decoded.

    Raises:
        InputError: as ``read``, for what shows without decoding.
    """
    with refusing(data, field):
        return _scan(data, field, limits or Limits())


def _scan(data: bytes | Path, field: str, limits: Limits) -> Container:
    content = _bytes(data, field, limits)
    if content.startswith(structure.PNG_SIGNATURE):
        container = structure.scan_png(content)
    elif content.startswith(jpeg.SIGNATURE):
        container = jpeg.scan(content)
    elif structure.is_webp(content):
        container = structure.scan_webp(content)
    else:
        begins = f"it begins with {content[:8]!r}"
        known = next((name for name, begin in _OTHERS.items() if begin.match(content)), begins)
        raise InputError(field, f"is no PNG, JPEG or WebP ({known})", _REMEDY)
    _check_size(container.size, field, limits)
    return container


def mode(container: Container) -> str:
    """Pillow's mode of a file that ``scan`` took; nothing is decoded. Raises as ``read``."""
    with refusing(b"", "image"):
        return _DECODERS[container.media_type](io.BytesIO(container.data)).mode


def _load(container: Container, *, reduced: bool) -> Image.Image:
    """The pixels; ``reduced``: at an eighth of the size where the format can do that."""
    image = _DECODERS[container.media_type](io.BytesIO(container.data))
    if reduced:
        image.draft(image.mode, (1, 1))
    image.load()
    if container.cut and container.media_type == "image/jpeg":
        jpeg.check_rows(image, container)
    return image


def _bytes(data: bytes | Path, field: str, limits: Limits) -> bytes:
    """The file's bytes; a file's kind and size are looked at before it is read."""
    try:
        if isinstance(data, Path):
            status = data.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe or device may never end
                raise InputError(field, "is no file", "give a PNG, JPEG or WebP file")
            size = status.st_size
        else:
            size = len(data)
        if size > limits.max_bytes:
            raise InputError(
                field,
                f"is {_mib(size)} large, the limit is {_mib(limits.max_bytes)}",
                "make it smaller or save it as JPEG or WebP",
            )
        content = data.read_bytes() if isinstance(data, Path) else data
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise InputError(field, problem, "check the path") from error
    if not content:
        raise InputError(field, "is empty (0 bytes)", "give a PNG, JPEG or WebP file")
    return content


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**19 else f"{size} bytes"


def _check_size(size: tuple[int, int], field: str, limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise InputError(
            field,
            f"is {width} x {height} = {width * height / 1e6:.1f} million pixels, "
            f"the limit is {limits.max_pixels / 1e6:g} million",
            "scale it down" + (f", or set {limits.setting}" if limits.setting else ""),
        )
    if min(size) < limits.min_side:
        raise InputError(
            field,
            f"is {width} x {height} pixels, each side must have {limits.min_side} or more",
            "give a larger picture",
        )


@dataclass(frozen=True)
class Listed:
    """Pictures in the order of their names, and what lay beside them and is left out."""

    pictures: tuple[Path, ...]
    left_out: tuple[Path, ...]


def list_pictures(folder: Path, *, field: str = "image") -> Listed:
    """The PNG, JPEG and WebP files in ``folder``, by their contents or their suffix.

    So a damaged file that is called a picture is listed, for its reader to refuse it by name. Files
    whose names begin with a dot are no one's pictures and are not mentioned; all else that is no
    picture, folders as well, is left out.

    Raises:
        InputError: if it cannot be read or holds no picture; what was left out is named.
    """
    try:
        inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise InputError(field, f"{folder} cannot be read ({error.strerror})") from error
    pictures = tuple(p for p in inside if _is_picture(p))
    left_out = tuple(p for p in inside if p not in set(pictures))
    if not pictures:
        others = f", but {name_some(left_out)}" if left_out else ""
        raise InputError(
            field, f"{folder} holds no picture{others}", "give PNG, JPEG or WebP files"
        )
    return Listed(pictures, left_out)


def name_some(paths: tuple[Path, ...], most: int = 5) -> str:
    """The names of the first few of ``paths``, and how many more there are."""
    names = ", ".join(p.name for p in paths[:most])
    return names + (f" and {len(paths) - most} more" if len(paths) > most else "")


def _is_picture(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
    except OSError:
        return False
    return head.startswith((structure.PNG_SIGNATURE, jpeg.SIGNATURE)) or structure.is_webp(head)
