"""Files to pictures: what is read, with which values, and what is refused."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customedit import images
from customedit.errors import InputError

from .conftest import FORMATS, far, picture, png_chunk, saved


def png_header(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG that declares a size and holds ``body``."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(body))


@pytest.mark.parametrize("name", FORMATS)
def test_reads_each_format_from_bytes_and_files(name: str, tmp_path: Path) -> None:
    data = saved(picture(), name)
    path = tmp_path / "picture.dat"  # told by its contents, not by its name
    path.write_bytes(data)
    for given_ in (data, path):
        found = images.read(given_)
        assert found.image.mode == "RGB" and found.image.size == found.original_size == (40, 24)
        assert not found.alpha
        assert far(found.image, picture()) <= (0 if name == "PNG" else 30)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "YCbCr", "RGBA"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = picture().convert(mode)
    options: dict[str, Any] = {"name": "JPEG", "quality": 100} if mode in ("CMYK", "YCbCr") else {}
    found = images.read(saved(image, **options))
    assert found.image.mode == "RGB" and not found.alpha
    assert far(found.image, image.convert("RGB")) <= (6 if options else 0)


def test_16_bit_grey_is_scaled() -> None:
    values = np.linspace(0, 65535, 32 * 16).astype(np.uint16).reshape(16, 32)
    found = images.read(saved(Image.fromarray(values))).image
    assert np.abs(np.asarray(found)[..., 0] - values / 257).max() <= 0.5
    clear = images.read(saved(Image.fromarray(values), transparency=65535))
    assert clear.alpha and clear.image.getpixel((31, 15)) == (255, 255, 255)
    assert clear.image.getpixel((0, 0)) == (0, 0, 0)


def test_16_bit_colour_is_scaled() -> None:
    row = struct.pack(">B48H", 0, *([65535, 32896, 257] * 16))
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(row * 16))
    assert images.read(data + png_chunk(b"IEND", b"")).image.getpixel((3, 3)) == (255, 128, 1)


def test_transparency_is_laid_on_white_and_noted() -> None:
    half = Image.new("RGBA", (16, 16), (200, 0, 0, 128))
    found = images.read(saved(half))
    assert found.alpha and found.image.getpixel((0, 0)) == (227, 127, 127)
    assert images.read(saved(half, "WEBP", lossless=True)).alpha
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([9, 9, 9, 90, 90, 90])
    palette.putpixel((5, 5), 1)
    found = images.read(saved(palette, transparency=0))
    assert found.alpha
    assert found.image.getpixel((0, 0)) == (255, 255, 255)
    assert found.image.getpixel((5, 5)) == (90, 90, 90)
    colour = Image.new("RGB", (16, 16), (1, 2, 3))
    assert images.read(saved(colour, transparency=(1, 2, 3))).alpha


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {
        1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4,
    }[orientation]  # fmt: skip
    upright = picture()
    stored = upright if back is None else upright.transpose(Image.Transpose(back))
    found = images.read(saved(stored, name, exif=exif))
    assert found.image.size == (40, 24) and found.original_size == stored.size
    assert far(found.image, upright) <= (0 if name == "PNG" else 30)
    assert found.image.getexif().get(0x0112, 1) == 1
    checked = images.check(images.scan(saved(stored, name, exif=exif)))
    assert checked.size == found.image.size


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(name: str) -> None:
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue")]
    data = saved(frames[0], name, save_all=True, append_images=frames[1:], lossless=True)
    assert images.read(data).image.getpixel((8, 8)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"hello, I am a text", "it begins with b'hello, I'"),
        (b"\x00" * 64, "it begins with"),
        (b"\n<svg></svg>", "an SVG or a web page"),
        (b"II*\x00" + bytes(9), "a TIFF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF"),
        (saved(picture(), "GIF"), "a GIF"),
        (saved(picture(), "BMP"), "a BMP"),
        (saved(picture(), "JPEG2000"), "a JPEG 2000"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL"),
    ],
)
def test_other_files_are_not_taken(data: bytes, named: str) -> None:
    with pytest.raises(
        InputError, match=r"image: is no PNG, JPEG or WebP \(.*; save it again"
    ) as e:
        images.read(data)
    assert named in str(e.value)


def test_empty_missing_and_large_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        images.read(b"")
    with pytest.raises(InputError, match=r"none.png cannot be read \(No such file"):
        images.read(tmp_path / "none.png")
    with pytest.raises(InputError, match="is no file"):
        images.read(tmp_path)
    big = tmp_path / "big.png"
    with big.open("wb") as stream:
        stream.truncate(21 * 2**20)
    with pytest.raises(InputError, match=r"21\.0 MiB large, the limit is 20\.0 MiB"):
        images.read(big)
    with pytest.raises(InputError, match="the limit is 100 bytes"):
        images.read(saved(picture()), limits=images.Limits(max_bytes=100))


@pytest.mark.parametrize("size", [(12_000, 9_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_declared_size_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"million pixels, the limit is 40 million; scale"):
            images.read(png_header(*size))


@pytest.mark.parametrize(
    ("kind", "opacity", "lossless", "at"),
    [(b"VP8 ", 255, False, 26), (b"VP8L", 255, True, 21), (b"VP8X", 99, False, 24)],
)
def test_a_webp_of_any_kind_is_refused_by_what_it_declares(
    kind: bytes, opacity: int, lossless: bool, at: int
) -> None:
    image = picture()
    image.putalpha(opacity)
    data = bytearray(saved(image, "WEBP", lossless=lossless))
    assert data[12:16] == kind
    for k in range(at, at + 4):
        data[k] |= 0xEF
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="million pixels"):
            images.read(bytes(data))


def test_the_limits_are_inclusive() -> None:
    limits = images.Limits(max_pixels=1000, min_side=20)
    assert images.read(saved(picture((50, 20))), limits=limits).image.size == (50, 20)
    with pytest.raises(InputError, match="million pixels"):
        images.read(saved(picture((50, 20))), limits=images.Limits(max_pixels=999))
    with pytest.raises(InputError, match="50 x 20 pixels, each side must have 21"):
        images.read(saved(picture((50, 20))), limits=images.Limits(min_side=21))


@pytest.mark.parametrize("name", FORMATS)
def test_one_pixel_is_too_few(name: str) -> None:
    with pytest.raises(InputError, match=r"1 x 1 pixels.*16 or more"):
        images.read(saved(Image.new("RGB", (1, 1)), name))


def test_a_png_that_holds_less_than_it_declares_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be decoded"):
        images.read(png_header(64, 64, b"\0" * 100))


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
@given(data=st.data())
def test_truncated_files_are_refused(name: str, data: st.DataObject) -> None:
    whole = saved(picture(), name)
    # The last bytes may be only the end's own mark, which decoders do without.
    kept = data.draw(st.integers(1, len(whole) - 40))
    with pytest.raises(InputError):
        images.read(whole[:kept])


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_corrupt_files_are_read_or_refused(name: str, data: st.DataObject) -> None:
    whole = bytearray(saved(picture().convert("P") if name == "PNG" else picture(), name))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    verdicts: list[InputError | None] = []
    for examine in (images.read, lambda content: images.check(images.scan(content))):
        try:
            examine(bytes(whole))
            verdicts.append(None)
        except InputError as error:
            assert error.field == "image"
            verdicts.append(error)
    assert (verdicts[0] is None) == (verdicts[1] is None), "an upload that no job could read"
