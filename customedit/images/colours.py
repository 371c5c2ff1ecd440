"""From what a file holds to what models are trained on: upright RGB of 8 bits in sRGB."""

from __future__ import annotations

import io
import warnings as python_warnings
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageCms

from customedit.images.structure import MAX_PROFILE_BYTES

BROKEN_METADATA: Final = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
)
"""What Pillow raises for metadata that is not what it says: no reason to refuse pixels."""

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES: Final = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}
_BAND_ROWS: Final = 256

# Pillow reads on, and so do we: standard error is no place for what a file's tags lack.
python_warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)


def upright(image: Image.Image, warnings: list[str]) -> Image.Image:
    """``image`` turned as its EXIF orientation says; with a warning as it is if that is broken."""
    method = orientation(image, warnings)
    return image if method is None else image.transpose(method)


def orientation(image: Image.Image, warnings: list[str]) -> Image.Transpose | None:
    """How ``image`` is to be turned; None: not at all, or with a warning if its EXIF is broken."""
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except BROKEN_METADATA:
        warnings.append("has a damaged EXIF block, which is passed over")
        return None


def turned_size(size: tuple[int, int], method: Image.Transpose | None) -> tuple[int, int]:
    """(width, height) of a picture of ``size`` after it is transposed by ``method``."""
    width, height = size
    return (height, width) if method in _SWAPS_SIDES else size


def to_8_bits(image: Image.Image, depth: int) -> Image.Image:
    """L, LA, RGB, RGBA or CMYK of 8 bits a channel: palettes, bits and 16-bit grey resolved.

    A transparent colour that the file names becomes an alpha channel. depth: bits of a sample in
    the file.
    """
    clear = image.info.get("transparency")
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip and not scale
        image = _scaled_grey(image, clear)
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode in ("1", "L", "RGB") and clear is not None:
        image = _keyed(image, clear, depth)
    elif image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    image.info["icc_profile"] = profile
    return image


def _scaled_grey(image: Image.Image, clear: object) -> Image.Image:
    """16-bit grey as L, or as LA if ``clear``, a value of 16 bits, is transparent; by rows."""
    width, height = image.size
    grey = Image.new("L", image.size)
    alpha = Image.new("L", image.size, 255) if isinstance(clear, int) else None
    for top in range(0, height, _BAND_ROWS):
        band = image.crop((0, top, width, min(top + _BAND_ROWS, height)))
        values = np.asarray(band).astype(np.int32).clip(0, 65535)
        grey.paste(Image.fromarray(((values + 128) // 257).astype(np.uint8)), (0, top))
        if alpha is not None:
            alpha.paste(Image.fromarray((values != clear).astype(np.uint8) * 255), (0, top))
    if alpha is not None:
        grey.putalpha(alpha)
    return grey


def _keyed(image: Image.Image, clear: object, depth: int) -> Image.Image:
    """``image`` with an alpha channel that is 0 where it has the colour ``clear``.

    clear: in the file's own ``depth``; Pillow gives samples as 8 bits (of 16 the upper ones).
    """
    if image.mode == "1":
        image, depth = image.convert("L"), 8
    levels = clear if isinstance(clear, tuple) else (clear,)
    if len(levels) != len(image.getbands()) or not all(isinstance(v, int) for v in levels):
        return image
    if depth == 16:
        levels = tuple(v >> 8 for v in levels)
    elif depth < 8:
        levels = tuple(v * 255 // (2**depth - 1) for v in levels)
    alpha = Image.new("L", image.size)
    for top in range(0, image.height, _BAND_ROWS):
        band = np.asarray(image.crop((0, top, image.width, min(top + _BAND_ROWS, image.height))))
        other = band != np.array(levels) if band.ndim == 3 else band[..., None] != levels[0]
        alpha.paste(Image.fromarray(other.any(-1).astype(np.uint8) * 255), (0, top))
    out = image.copy()
    out.putalpha(alpha)
    return out


def in_srgb(image: Image.Image, warnings: list[str]) -> Image.Image:
    """``image`` (L, LA, RGB, RGBA or CMYK) by its ICC profile in sRGB; as it is without one.

    Colours are converted, alpha is kept. Grey with a profile of RGB is taken as equal channels. A
    profile that cannot be read, or is of another kind than the pixels, is passed over with a
    warning, as viewers do.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    try:
        if len(profile) > MAX_PROFILE_BYTES:
            raise ValueError(f"it has {len(profile)} bytes")
        given = ImageCms.getOpenProfile(io.BytesIO(profile))
        mode = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}.get(given.profile.xcolor_space)
        solid = image if alpha is None else image.convert("L" if image.mode == "LA" else "RGB")
        if solid.mode == "L" and mode == "RGB":
            solid = solid.convert("RGB")
        if solid.mode != mode:
            raise ValueError(f"it is for {given.profile.xcolor_space}")
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(solid, given, target, outputMode="RGB")
    except (ImageCms.PyCMSError, *BROKEN_METADATA):
        warnings.append("has a colour profile that does not fit its pixels, which is passed over")
        return image
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def on_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """RGB, transparent parts laid on white, and whether there were any."""
    if not image.has_transparency_data:
        return image.convert("RGB"), False
    image = image.convert("RGBA")
    lowest, _ = image.getchannel("A").getextrema()
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB"), lowest != 255
