"""Masks: where an edit may reach, read from a picture by one rule for all who take one.

White is inside, black and transparent are outside, greys are in between. What could mean two things
is refused with the values that were found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customedit.errors import InputError
from customedit.images import colours
from customedit.images.reading import Stored, mode, read_stored, refusing
from customedit.images.structure import Container, Limits

Values = NDArray[np.float32]
Marks = Literal["white", "transparent"]
"""What in a mask says that the edit may reach there."""

Levels = NDArray[np.uint8 | np.uint16]

MIN_SHARE: Final = 1 / 4096
"""Of a picture's area that a mask must cover: one cell of a latent of 64 x 64."""
ASPECT_TOLERANCE: Final = 0.01
"""Of the ratio of the sides; a pixel of either size is allowed in any case."""

_REMEDY: Final = "paint white where the edit may reach and black elsewhere"
_NOISE: Final = 8 / 255  # of lossy files around black and white
_TINT: Final = 24  # levels between channels that still are grey
_TINTED_SHARE: Final = 1e-3
_MOST_LABELS: Final = 32
_BAND_ROWS: Final = 256
_GREY_BYTES: Final = 12  # a pixel: levels, values, and what is made on the way
_COLOUR_BYTES: Final = 24  # the same, with colours and alpha


@dataclass(frozen=True)
class Mask:
    """A mask that was read.

    values: [height, width] float32 in [0, 1], 1 where the edit may reach; warnings: sentences
    without their subject, as "holds labels 0 and 1, ...".
    """

    values: Values
    warnings: tuple[str, ...] = ()


def read_mask(
    data: bytes | Path,
    size: tuple[int, int] | None = None,
    *,
    field: str = "mask",
    limits: Limits | None = None,
    min_share: float = MIN_SHARE,
    marks: Marks = "white",
) -> Mask:
    """Read a mask picture (PNG, JPEG or WebP) for a picture of ``size``.

    Transparent pixels are outside. Grey levels are taken as they are, 16 bits as well; of JPEG and
    WebP those within 8 of black and white are taken as these. Labels of 0 and 1, and one colour on
    transparent or black, are read as outside and inside, with a warning.

    data: the file or where it lies; size: (width, height) of the upright picture, to which the mask
    is resized with antialiasing; None keeps its own. min_share: as for ``fit_mask``. marks:
    "transparent" reads the alpha channel alone: where it is 0 the edit may reach, as masks of
    OpenAI's images API have it.

    Raises:
        InputError: for a file that cannot be read, values that could mean more than one thing
            (several labels or colours, black on transparent), no alpha channel where it is to be
            read, and as ``fit_mask``.
    """
    stored = read_stored(data, field=field, limits=limits)
    warnings = list(stored.warnings)
    with refusing(data, field):
        if marks == "transparent":
            values = _of_alpha(stored, field)
        else:
            values = _interpret(stored, field, warnings)
        if stored.media_type != "image/png":
            values[values <= _NOISE] = 0
            values[values >= 1 - _NOISE] = 1
        height, width = values.shape
        fitted = fit_mask(values, size or (width, height), field=field, min_share=min_share)
        return Mask(fitted, tuple(warnings))


def picture_values(image: Image.Image, field: str = "mask") -> Values:
    """A mask that is a picture in memory, [height, width] in [0, 1], by ``read_mask``'s rule.

    Mode F holds the numbers themselves.

    Raises:
        InputError: for numbers outside [0, 1], and values that could mean more than one thing.
    """
    if image.mode == "F":
        values = np.asarray(image, np.float32)
        _check_range(values, field)
        return values
    depth = 16 if image.mode.startswith("I") else 8
    return _interpret(Stored(image, "image/png", depth, image.size), field, [])


def memory(container: Container) -> int:
    """Bytes that ``read_mask`` takes for a file that ``scan`` took, about."""
    width, height = container.size
    grey = mode(container) in ("1", "L", "I", "I;16", "I;16B")
    pixels = width * height * (_GREY_BYTES if grey else _COLOUR_BYTES)
    return container.memory + len(container.data) + pixels


def fit_mask(
    values: Values, size: tuple[int, int], *, field: str = "mask", min_share: float = MIN_SHARE
) -> Values:
    """A mask [h, w] in [0, 1] for a picture of ``size`` (width, height): [height, width] float32.

    Resized bilinearly, with antialiasing where it is reduced. min_share: of the picture's area that
    it must cover at least.

    Raises:
        InputError: unless it has two axes and lies in [0, 1]; for a mask that is nowhere above a
            half or nowhere below, covers less than ``min_share``, or whose aspect differs by more
            than 1 % and more than a pixel of either from the picture's.
    """
    if values.ndim != 2 or not values.size:
        raise InputError(field, f"has shape {values.shape}", "give height x width numbers")
    lowest, highest = _check_range(values, field)
    if highest < 0.5:
        problem = "is black everywhere" if not highest else f"is nowhere above {highest:.2f} of 1"
        raise InputError(field, f"{problem}, so nothing would be edited", _REMEDY)
    if lowest >= 0.5:
        raise InputError(
            field, "covers the whole picture", "paint black where the source is to stay, or omit it"
        )
    height, width = values.shape
    check_aspect((width, height), size, field)
    covered = float(values.mean(dtype=np.float64))
    if covered < min_share:
        raise InputError(
            field,
            f"covers {covered * width * height:.0f} of {width * height} pixels, the least is "
            f"{min_share * width * height:.0f} (1/{1 / min_share:.0f} of the picture)",
            "paint a larger part",
        )
    values = values.astype(np.float32, copy=False)
    if (width, height) == size:
        return values
    resized = Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32).clip(0, 1)


def _check_range(values: Values, field: str) -> tuple[float, float]:
    """The least and the greatest of a mask's numbers. Raises InputError outside [0, 1]."""
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= 0 and highest <= 1):  # not a number either
        raise InputError(field, f"spans {lowest:g} to {highest:g}", "scale it to 0 to 1")
    return lowest, highest


def check_aspect(mask: tuple[int, int], picture: tuple[int, int], field: str = "mask") -> None:
    """Check that a mask of these sides, (width, height), fits a picture of those.

    Raises:
        InputError: the aspects differ by more than 1 %, and by more than a pixel of either size.
    """
    if same_aspect(mask, picture):
        return
    (w, h), (width, height) = mask, picture
    turned = " (is it turned?)" if (w > h) != (width > height) else ""
    raise InputError(
        field,
        f"is {w} x {h} pixels, an aspect of {w / h:.3f}, the picture {width} x {height}, "
        f"{width / height:.3f}{turned}",
        "give a mask of the picture's aspect; 1 % off is allowed",
    )


def same_aspect(mask: tuple[int, int], picture: tuple[int, int]) -> bool:
    """Whether (width, height) of both differ by scale alone, but for 1 % or a pixel of either."""
    (w, h), (width, height) = mask, picture
    rounded = min(  # pixels by which a side is off what the other size would give
        abs(w - h * width / height),
        abs(h - w * height / width),
        abs(width - height * w / h),
        abs(height - width * h / w),
    )
    return abs(w * height / (h * width) - 1) <= ASPECT_TOLERANCE or rounded <= 1


def _interpret(stored: Stored, field: str, warnings: list[str]) -> Values:
    """[height, width] in [0, 1] of what a file holds."""
    if stored.image.mode.startswith("I"):  # 16 bits of grey: labels are told by all of them
        levels = np.asarray(stored.image).clip(0, 65535).astype(np.uint16)
        clear = stored.image.info.get("transparency")
        alpha = (levels != clear).astype(np.float32) if isinstance(clear, int) else None
        return _of_grey(levels, alpha, 65535, 1, field, warnings)
    image = colours.to_8_bits(stored.image, stored.depth)
    if image.mode == "CMYK":
        image = image.convert("RGB")
    alpha = None
    if image.mode in ("LA", "RGBA"):
        alpha = np.asarray(image.getchannel("A"), np.float32) / np.float32(255)
        image = image.convert("L" if image.mode == "LA" else "RGB")
        if alpha.min() == 1:
            alpha = None
    if image.mode == "RGB":
        colour = _one_colour(image, alpha, field)
        if colour is not None:
            warnings.append(f"holds the one colour {colour}, which is read as inside")
            inside = (np.asarray(image).max(-1) > 0).astype(np.float32)
            return inside if alpha is None else inside * alpha
        image = image.convert("L")
    unit = 255 // (2 ** min(stored.depth, 8) - 1) if stored.image.mode == "L" else 1
    return _of_grey(np.asarray(image), alpha, 255, unit, field, warnings)


def _of_alpha(stored: Stored, field: str) -> Values:
    """1 where a picture is transparent, [height, width]."""
    image = stored.image
    if "A" not in image.getbands() and "transparency" not in image.info:
        raise InputError(
            field, "has no transparency", "make transparent what the edit may change, in a PNG"
        )
    alpha = np.asarray(image.convert("RGBA").getchannel("A"), np.float32) / np.float32(255)
    return 1 - alpha


def _of_grey(
    levels: Levels, alpha: Values | None, full: int, unit: int, field: str, warnings: list[str]
) -> Values:
    """Grey levels from 0 to ``full`` as values; labels are recognised.

    unit: the level of label 1; alpha: [height, width] in [0, 1], None for opaque.
    """
    visible = levels if alpha is None else levels * (alpha > 0)
    present = _distinct(visible, full)
    if alpha is not None:
        shown = _distinct(levels[None, alpha > 0], full)
        if shown == [0]:
            raise InputError(field, "is black on transparent, which may mean either side", _REMEDY)
        if len(shown) == 1:  # one brush on a transparent layer: alpha says all
            if shown[0] != full:
                warnings.append(f"holds the one level {shown[0]}, which is read as inside")
            return alpha
    between = [level for level in present if level not in (0, full)]
    if present in ([0, unit], [0, 255]) and present[-1] != full:
        warnings.append(f"holds labels 0 and {present[-1]}, which are read as outside and inside")
        values = (levels == present[-1]).astype(np.float32)
    elif between and (
        max(present) * 2 < full
        or (len(between) <= _MOST_LABELS and max(between) <= unit * _MOST_LABELS)
    ):
        shown_levels = ", ".join(map(str, present[:6])) + (", ..." if len(present) > 6 else "")
        raise InputError(
            field,
            f"spans {present[0]} to {present[-1]} of {full} (levels {shown_levels}), which may be "
            "several labels",
            _REMEDY,
        )
    else:
        values = levels.astype(np.float32)
        values /= np.float32(full)
    return values if alpha is None else values * alpha


def _distinct(levels: Levels, full: int) -> list[int]:
    """The levels that occur, in order."""
    counts = np.zeros(full + 1, np.int64)
    for top in range(0, len(levels), _BAND_ROWS):
        counts += np.bincount(levels[top : top + _BAND_ROWS].ravel(), minlength=full + 1)
    return [int(level) for level in np.flatnonzero(counts)]


def _one_colour(
    image: Image.Image, alpha: Values | None, field: str
) -> tuple[int, int, int] | None:
    """The one colour, other than grey, that a mask is painted in; None for a mask of greys.

    Raises:
        InputError: for more colours.
    """
    tints, colours_shown = 0, set[tuple[int, int, int]]()
    for top in range(0, image.height, _BAND_ROWS):
        band = slice(top, min(top + _BAND_ROWS, image.height))
        pixels = np.asarray(image.crop((0, band.start, image.width, band.stop)))
        tinted = pixels.max(-1).astype(np.int16) - pixels.min(-1) > _TINT
        shown = pixels.any(-1)
        if alpha is not None:
            tinted &= alpha[band] > 0
            shown &= alpha[band] > 0
        tints += int(tinted.sum())
        if len(colours_shown) < 2:
            first = pixels[shown][:1]
            others = pixels[shown & (pixels != first).any(-1)][:1] if len(first) else first
            colours_shown |= {(int(r), int(g), int(b)) for r, g, b in (*first, *others)}
    if tints <= _TINTED_SHARE * image.width * image.height:
        return None
    if len(colours_shown) == 1:
        return colours_shown.pop()
    raise InputError(field, "holds colours, which may be several labels", _REMEDY)
