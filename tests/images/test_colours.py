"""Every mode of a file comes to the same colours: sRGB of 8 bits, by its profile."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from customedit import images

from .conftest import FORMATS, noise, png, png_chunk, profile, saved

LINEAR, GREY_LINEAR = profile(1.0), profile(1.0, grey=True)
HALF_THE_LIGHT = 188  # what level 128 of linear light is in sRGB


def middle(data: bytes) -> tuple[int, ...]:
    found = images.read(data)
    assert not found.warnings
    level = found.image.getpixel((16, 16))
    assert isinstance(level, tuple)
    return level


@pytest.mark.parametrize("name", FORMATS)
def test_colours_are_brought_to_srgb_by_their_profile(name: str) -> None:
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    found = middle(saved(grey, name, icc_profile=LINEAR))
    assert all(abs(v - HALF_THE_LIGHT) <= 3 for v in found)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("broken", [b"no profile at all", LINEAR[:100], GREY_LINEAR])
def test_a_profile_that_does_not_fit_is_passed_over(name: str, broken: bytes) -> None:
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    found = images.read(saved(grey, name, icc_profile=broken))
    level = found.image.getpixel((16, 16))
    assert isinstance(level, tuple) and all(abs(v - 128) <= 3 for v in level)
    assert any("colour profile" in warning for warning in found.warnings)


def test_a_palette_is_converted_like_rgb() -> None:
    colours = noise((16, 1)).convert("RGB")
    palette = Image.new("P", (32, 32))
    palette.putpalette(np.asarray(colours).ravel().tolist())
    palette.putdata([k % 16 for k in range(32 * 32)])
    by_palette = images.read(saved(palette, icc_profile=LINEAR)).image
    by_colour = images.read(saved(palette.convert("RGB"), icc_profile=LINEAR)).image
    assert by_palette.tobytes() == by_colour.tobytes()
    assert by_palette.tobytes() != palette.convert("RGB").tobytes()


def grey(mode: str) -> bytes:
    if mode == "I;16":
        image = Image.fromarray(np.full((32, 32), 128 * 257, np.uint16))
    else:
        image = Image.new("L", (32, 32), 128)
    if mode == "LA":
        image.putalpha(255)
    return saved(image, icc_profile=GREY_LINEAR)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_greys_are_converted_by_a_profile_of_grey(mode: str) -> None:
    assert all(abs(v - HALF_THE_LIGHT) <= 1 for v in middle(grey(mode)))


@pytest.mark.parametrize("name", ["PNG", "JPEG"])
def test_grey_with_a_profile_of_colours_is_taken_as_equal_channels(name: str) -> None:
    found = middle(saved(Image.new("L", (32, 32), 128), name, icc_profile=LINEAR))
    assert all(abs(v - HALF_THE_LIGHT) <= 1 for v in found)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pictures_with_a_profile_keep_their_alpha(mode: str) -> None:
    image = Image.new(mode, (32, 32), (128, 0) if mode == "LA" else (128, 128, 128, 0))
    image.paste(Image.new(mode, (32, 16), (128, 255) if mode == "LA" else (128, 128, 128, 255)))
    given = GREY_LINEAR if mode == "LA" else LINEAR
    found = images.read(saved(image, icc_profile=given))
    assert found.alpha and found.image.getpixel((5, 25)) == (255, 255, 255)
    top = found.image.getpixel((5, 5))
    assert isinstance(top, tuple) and all(abs(v - HALF_THE_LIGHT) <= 1 for v in top)


def test_a_transparent_colour_and_a_profile_go_together() -> None:
    image = Image.new("RGB", (32, 32), (128, 128, 128))
    image.paste((9, 8, 7), (0, 0, 32, 16))
    found = images.read(saved(image, icc_profile=LINEAR, transparency=(9, 8, 7)))
    assert found.alpha and found.image.getpixel((5, 5)) == (255, 255, 255)
    below = found.image.getpixel((5, 25))
    assert isinstance(below, tuple) and all(abs(v - HALF_THE_LIGHT) <= 1 for v in below)


def test_a_transparent_colour_of_16_bits_is_found() -> None:
    row = struct.pack(">B48H", 0, *([65535, 32896, 257] * 8 + [0, 257, 514] * 8))
    clear = png_chunk(b"tRNS", struct.pack(">HHH", 65535, 32896, 257))
    found = images.read(png((16, 16), row * 16, depth=16, extra=clear))
    assert found.alpha
    assert found.image.getpixel((3, 3)) == (255, 255, 255)
    assert found.image.getpixel((12, 3)) == (0, 1, 2)


@pytest.mark.parametrize(
    ("depth", "row"), [(2, b"\0\x55\x55\xff\xff"), (4, b"\0" + b"\x11" * 4 + b"\xff" * 4)]
)
def test_a_transparent_grey_of_few_bits_is_found(depth: int, row: bytes) -> None:
    clear = png_chunk(b"tRNS", struct.pack(">H", 1))  # in the file's own depth
    data = png((16, 16), row * 16, depth=depth, kind=0, extra=clear)
    found = images.read(data)
    assert found.alpha
    assert found.image.getpixel((3, 3)) == (255, 255, 255)
    plain = images.read(png((16, 16), row * 16, depth=depth, kind=0)).image
    assert plain.getpixel((3, 3)) == (255 // (2**depth - 1),) * 3


def test_a_transparent_black_of_1_bit_is_found() -> None:
    image = Image.new("1", (16, 16), 1)
    image.paste(0, (0, 0, 8, 16))
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=0)
    found = images.read(stream.getvalue())
    assert found.alpha and found.image.getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_16_bits_of_all_kinds_give_the_8_bit_picture(mode: str) -> None:
    channels = {"RGB": 3, "RGBA": 4, "LA": 2}[mode]
    kind = {"RGB": 2, "RGBA": 6, "LA": 4}[mode]
    levels = np.random.default_rng(0).integers(0, 256, (20, 17, channels), dtype=np.uint8)
    deep = (levels.astype(">u2") * 257).reshape(20, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    found = images.read(png((17, 20), rows, depth=16, kind=kind)).image
    assert found.tobytes() == images.read(saved(Image.fromarray(levels, mode))).image.tobytes()


def test_metadata_is_applied_and_not_passed_on() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "where I live"
    options: dict[str, Any] = {"exif": exif, "icc_profile": LINEAR}
    found = images.read(saved(Image.new("RGB", (40, 24), (128, 128, 128)), **options)).image
    assert found.size == (24, 40) and not found.info and not found.getexif()
