import io
import os
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

FORMATS = ["PNG", "JPEG", "WEBP"]


def picture(size: tuple[int, int] = (40, 24), seed: int = 0) -> Image.Image:
    """Smooth colours, so that lossy formats keep them closely."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    return Image.fromarray((np.stack([x, y, (x + seed) / 2 % 1], -1) * 255).astype(np.uint8))


def saved(image: Image.Image, name: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=name, **options)
    return stream.getvalue()


def far(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


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


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(name: str) -> None:
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue")]
    data = saved(frames[0], name, save_all=True, append_images=frames[1:], lossless=True)
    assert images.read(data).image.getpixel((8, 8)) == (255, 0, 0)


def test_a_gif_is_not_taken() -> None:
    with pytest.raises(InputError, match=r"photo: is no PNG, JPEG or WebP.*save it again"):
        images.read(saved(picture(), "GIF"), field="photo")


@pytest.mark.parametrize("data", [b"hello, I am a text", b"<svg></svg>", b"\x00" * 64, b"II*\x00"])
def test_other_files_are_not_taken(data: bytes) -> None:
    with pytest.raises(InputError, match="is no PNG, JPEG or WebP"):
        images.read(data)


def test_empty_missing_and_large_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        images.read(b"")
    with pytest.raises(InputError, match=r"cannot be read from .*No such file"):
        images.read(tmp_path / "none.png")
    with pytest.raises(InputError, match="cannot be read"):
        images.read(tmp_path)
    big = tmp_path / "big.png"
    with big.open("wb") as stream:
        stream.truncate(21 * 2**20)
    with pytest.raises(InputError, match=r"21\.0 MiB large, the limit is 20\.0 MiB"):
        images.read(big)
    with pytest.raises(InputError, match="the limit is 100 bytes"):
        images.read(saved(picture()), max_bytes=100)


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
    assert images.read(saved(picture((50, 20))), max_pixels=1000, min_side=20).image.size == (
        50,
        20,
    )
    with pytest.raises(InputError, match="million pixels"):
        images.read(saved(picture((50, 20))), max_pixels=999)
    with pytest.raises(InputError, match="50 x 20 pixels, each side must have 21"):
        images.read(saved(picture((50, 20))), min_side=21)


@pytest.mark.parametrize("name", FORMATS)
def test_one_pixel_is_too_few(name: str) -> None:
    with pytest.raises(InputError, match=r"1 x 1 pixels.*16 or more"):
        images.read(saved(Image.new("RGB", (1, 1)), name))


def test_a_png_that_holds_less_than_it_declares_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be decoded"):
        images.read(png_header(64, 64, b"\0" * 100))


def test_a_text_bomb_in_a_png_is_refused() -> None:
    data = saved(picture())
    bomb = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 2**27))
    with pytest.raises(InputError, match="cannot be decoded"):
        images.read(data[:33] + bomb + data[33:])


@pytest.mark.parametrize("name", FORMATS)
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
    try:
        assert images.read(bytes(whole)).image.mode == "RGB"
    except InputError as error:
        assert error.field == "image"


def _profile(gamma: float) -> bytes:
    """An RGB profile of sRGB's primaries (v2, matrix and one curve) with another gamma."""

    def tag(kind: bytes, body: bytes) -> bytes:
        return (kind + bytes(4) + body).ljust(-(-(8 + len(body)) // 4) * 4, b"\0")

    def xyz(*values: float) -> bytes:
        return tag(b"XYZ ", b"".join(struct.pack(">i", round(v * 65536)) for v in values))

    curve = tag(b"curv", struct.pack(">IH", 1, round(gamma * 256)))
    tags = {
        b"rXYZ": xyz(0.4361, 0.2225, 0.0139), b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141), b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    at = 128 + 4 + 12 * len(tags)
    table, bodies = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", at + len(bodies), len(body))
        bodies += body
    head = struct.pack(
        ">I4sI4s4s4s12x4s", 0, b"test", 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp"
    )
    head = (head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0")
    whole = head + table + bodies
    return struct.pack(">I", len(whole)) + whole[4:]


@pytest.mark.parametrize("name", FORMATS)
def test_colours_are_brought_to_srgb_by_their_profile(name: str) -> None:
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    out = io.BytesIO()
    grey.save(out, name, icc_profile=_profile(1.0))  # linear light
    found = images.read(out.getvalue()).image.getpixel((16, 16))
    assert all(abs(v - 188) <= 3 for v in found)  # what half the light is in sRGB
    out = io.BytesIO()
    grey.save(out, name, icc_profile=b"no profile at all")
    found = images.read(out.getvalue()).image.getpixel((16, 16))
    assert all(abs(v - 128) <= 3 for v in found)


def test_transparent_pictures_with_a_profile_keep_their_alpha() -> None:
    picture = Image.new("RGBA", (32, 32), (128, 128, 128, 0))
    out = io.BytesIO()
    picture.save(out, "PNG", icc_profile=_profile(1.0))
    found = images.read(out.getvalue())
    assert found.alpha and found.image.getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_written_files_can_be_read(suffix: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old")
    images.write(picture().convert(mode), path)
    assert far(images.read(path).image, picture().convert(mode).convert("RGB")) <= 30
    assert os.listdir(tmp_path) == [path.name]
    assert path.stat().st_mode & 0o044 == 0o044 & ~images._umask()


def test_writing_fails_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("out.gif", "out"):
        with pytest.raises(InputError, match="path: ends in"):
            images.write(picture(), tmp_path / name)
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="no space"):
        images.write(picture(), path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["out.png"]


sides = st.integers(16, 5000)


@given(sides, sides, st.sampled_from([1, 8, 16, 64]), st.integers(64 * 64, 1024 * 1024))
def test_fit_keeps_area_aspect_and_multiple(width: int, height: int, m: int, area: int) -> None:
    w, h = images.fit((width, height), m, area)
    assert w % m == 0 == h % m and min(w, h) >= m
    scale = (area / (width * height)) ** 0.5
    ideal = width * scale, height * scale
    if min(ideal) >= m:
        assert abs(w - ideal[0]) <= m / 2 and abs(h - ideal[1]) <= m / 2
    assert w * h <= 2.25 * area  # both sides rounded up from 1.5 multiples at most


def test_fit_by_example() -> None:
    assert images.fit((4000, 3000), 8, 512 * 512) == (592, 440)
    assert images.fit((128, 128), 8, 128 * 128) == (128, 128)
    assert images.fit((100_000, 16), 8, 64 * 64) == (512, 8)
    with pytest.raises(ValueError, match="positive"):
        images.fit((0, 4), 8, 64)
