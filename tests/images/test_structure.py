"""Files that are cut, damaged beside their pixels, or built to cost a decoder its time."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customedit import images
from customedit.errors import InputError
from customedit.images import jpeg

from .conftest import (
    FORMATS,
    far,
    jpeg_segment,
    noise,
    picture,
    png_chunk,
    saved,
    scans_of,
    with_chunk,
    with_segment,
)

BROKEN_EXIF = b"MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03"
EXIFS = [
    BROKEN_EXIF,
    b"",
    b"junk that is no TIFF",
    b"MM\0*\xff\xff\xff\xff",
    b"II*\0\x08\0\0\0\xff\xff",
]


def accepted(data: bytes) -> bool:
    """Whether a file is read, by both ways of looking at it."""
    verdicts = []
    for examine in (images.read, lambda content: images.check(images.scan(content))):
        try:
            examine(data)
            verdicts.append(True)
        except InputError:
            verdicts.append(False)
    assert verdicts[0] == verdicts[1]
    return verdicts[0]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # pytest sets its own filters
@pytest.mark.parametrize("broken", EXIFS)
def test_broken_exif_is_no_reason_to_refuse_pixels(broken: bytes) -> None:
    for data in (
        with_chunk(saved(picture()), png_chunk(b"eXIf", broken)),
        with_chunk(saved(picture()), png_chunk(b"eXIf", b"Exif\0\0" + broken)),
    ):
        assert images.read(data).image.tobytes() == picture().tobytes()
    plain = saved(picture(), "JPEG")
    exif = jpeg_segment(0xE1, b"Exif\0\0" + broken)
    assert far(images.read(with_segment(plain, exif)).image, images.read(plain).image) == 0
    webp = saved(picture(), "WEBP", lossless=True, exif=broken or b"\0")
    assert images.read(webp).image.tobytes() == picture().tobytes()


def test_broken_exif_is_told() -> None:
    data = with_chunk(saved(picture()), png_chunk(b"eXIf", EXIFS[2]))
    assert images.read(data).warnings == ("has a damaged EXIF block, which is passed over",)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"tEXt", b"k\0v", checksum=1),
        png_chunk(b"eXIf", b"MM\0*", checksum=1),
        png_chunk(b"tRNS", b"\0\1\0\1\0\1", checksum=1),
        png_chunk(b"iCCP", b"p\0\0" + zlib.compress(b"x" * 500)[:-9]),
        png_chunk(b"iCCP", b"p\0\0" + zlib.compress(b"\0" * 2**23)),
        png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 2**27)),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\0" * 2**25)),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"\0" * 2**25)),
        png_chunk(b"pHYs", b"\0"),
        png_chunk(b"gAMA", b""),
        png_chunk(b"abCd", b"what is this"),
    ],
)
def test_damaged_and_huge_extras_of_a_png_are_passed_over(chunk: bytes) -> None:
    data = with_chunk(saved(picture()), chunk)
    assert images.read(data).image.tobytes() == picture().tobytes()


def test_orientation_in_a_text_chunk_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = exif.tobytes()
    text = f"\nexif\n{len(body):8}\n{body.hex()}\n".encode()
    for chunk in (
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
        png_chunk(b"tEXt", b"Raw profile type exif\0" + text),
    ):
        assert images.read(with_chunk(saved(picture()), chunk)).image.size == (24, 40)


@pytest.mark.parametrize(
    "segment",
    [
        jpeg_segment(0xE0, b"JFIF\0\1"),
        jpeg_segment(0xE2, b"MPF\0junk"),
        jpeg_segment(0xE2, b"ICC_PROFILE\0"),
        jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff"),
        jpeg_segment(0xEE, b"Adobe"),
        jpeg_segment(0xFE, b"x" * 60_000),
    ],
)
def test_damaged_extras_of_a_jpeg_are_passed_over(segment: bytes) -> None:
    plain = saved(picture(), "JPEG")
    assert far(images.read(with_segment(plain, segment)).image, images.read(plain).image) == 0


@pytest.mark.parametrize("name", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_file_that_lacks_only_its_end_mark_is_read_whole(name: str, mode: str) -> None:
    whole = saved(noise((70, 53)).convert(mode), name)
    lacking = whole[: -12 if name == "PNG" else -2]
    found = images.read(lacking)
    assert found.warnings == ("ends without its end mark",)
    assert found.image.tobytes() == images.read(whole).image.tobytes()
    assert images.check(images.scan(lacking)).warnings == found.warnings
    assert images.read(whole).warnings == ()


@pytest.mark.parametrize(
    ("mode", "subsampling"), [("L", 0), *((m, s) for m in ("RGB", "CMYK") for s in range(3))]
)
@pytest.mark.parametrize("height", [400, 300, 100, 48])
def test_a_cut_jpeg_is_read_while_few_rows_are_missing(
    height: int, mode: str, subsampling: int
) -> None:
    options = {} if mode == "L" else {"subsampling": subsampling}
    whole = saved(
        noise((64, height)).convert(mode), "JPEG", quality=30, restart_marker_rows=1, **options
    )
    unit = images.scan(whole).unit[1]
    assert unit == (16 if subsampling == 2 else 8)
    start = scans_of(whole)[0]
    ends = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", whole) if m.start() > start]
    rows = -(-height // unit)
    assert len(ends) == rows - 1
    allowed = min(2, height // (8 * unit))
    for missing in range(1, rows):
        cut = whole[: ends[rows - missing - 1]]
        assert accepted(cut) == (missing <= allowed), (missing, allowed)
        if missing <= allowed:
            kept = (rows - missing - 1) * unit  # the last row before the cut mixes with the next
            box = (0, 0, 64, kept)
            assert far(images.read(cut).image.crop(box), images.read(whole).image.crop(box)) == 0


def test_a_cut_progressive_jpeg_is_read_if_only_last_bits_are_missing() -> None:
    whole = saved(picture((96, 80)), "JPEG", progressive=True, quality=90)
    *scans, _ = scans_of(whole)
    assert len(scans) == 10  # libjpeg's script for colours
    verdicts = [accepted(whole[:at]) for at in scans[1:]]
    # Luma to its last bit but one comes with the sixth scan, before the three last bits.
    assert verdicts == [False] * 5 + [True] * 4
    found = images.read(whole[: scans[-1] + 40])
    assert found.warnings and far(found.image, images.read(whole).image) <= 30


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_both_ways_agree_on_files_that_are_cut(name: str, data: st.DataObject) -> None:
    whole = saved(picture((48, 64)), name)
    kept = data.draw(st.integers(1, len(whole)))
    accepted(whole[:kept])


def bomb(scans: int, size: tuple[int, int] = (16, 16)) -> bytes:
    """A progressive JPEG of ``size`` whose last scan comes again and again."""
    whole = saved(picture((16, 16)), "JPEG", progressive=True)
    *starts, end = scans_of(whole)
    frame = whole.index(b"\xff\xc2")
    sized = whole[: frame + 5] + struct.pack(">HH", *size[::-1]) + whole[frame + 9 :]
    return sized[:end] + sized[starts[-1] : end] * (scans - len(starts)) + b"\xff\xd9"


def test_scans_are_counted_before_anything_is_decoded() -> None:
    assert accepted(bomb(jpeg.MAX_SCANS))
    for scans in (jpeg.MAX_SCANS + 1, 20_000):
        with pytest.raises(InputError, match="photo: has more than 100 scans, the limit"):
            images.scan(bomb(scans), field="photo")


def test_many_scans_of_a_large_picture_are_refused() -> None:
    assert images.scan(bomb(10, (6000, 6000))).size == (6000, 6000)
    assert images.scan(bomb(16, (6000, 6000))).size == (6000, 6000)
    with pytest.raises(InputError, match="17 scans or more of 6000 x 6000 pixels, the lim"):
        images.scan(bomb(17, (6000, 6000)))


def test_floods_of_parts_are_refused() -> None:
    plain = saved(picture(), "JPEG")
    with pytest.raises(InputError, match="more than 2000 segments"):
        images.read(with_segment(plain, jpeg_segment(0xFE, b"") * 100_000))
    with pytest.raises(InputError, match="more than 100000 chunks"):
        images.read(with_chunk(saved(picture()), png_chunk(b"abCd", b"") * 100_001))
    assert not accepted(plain[:2] + b"\xff" * 4_000_000)
    assert not accepted(plain[:2] + b"\xff\0" * 2_000_000)


def test_jpegs_that_no_browser_reads_are_refused() -> None:
    plain = saved(picture(), "JPEG")
    at = plain.index(b"\xff\xc0")
    for kind in (0xC3, 0xC9, 0xCA):
        with pytest.raises(InputError, match="coded as no browser reads it"):
            images.read(plain[: at + 1] + bytes([kind]) + plain[at + 2 :])
    with pytest.raises(InputError, match="12 bits a sample"):
        images.read(plain[: at + 4] + b"\x0c" + plain[at + 5 :])


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_an_animation_is_told(name: str) -> None:
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue", "green")]
    data = saved(frames[0], name, save_all=True, append_images=frames[1:], lossless=True)
    found = images.read(data)
    assert found.image.getpixel((8, 8)) == (255, 0, 0)
    assert found.warnings == ("is an animation, of which only the first picture is taken",)


def test_of_a_phones_pair_of_pictures_the_first_is_taken() -> None:
    stream = io.BytesIO()
    first, depth = picture((64, 48)), Image.new("RGB", (64, 48), "red")
    first.save(stream, "MPO", save_all=True, append_images=[depth], quality=95)
    found = images.read(stream.getvalue())
    assert far(found.image, first) <= 30 and not found.warnings


def test_errors_and_limits_of_a_file_name_it(tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"references: \S+holiday.jpg is no PNG, JPEG or WebP"):
        images.read(path, field="references")
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"references: \S+holiday.jpg is empty"):
        images.read(path, field="references")
    path.write_bytes(saved(picture((40, 30))))
    limits = images.Limits(max_pixels=1000, setting="CUSTOMEDIT_MAX_PIXELS")
    with pytest.raises(InputError, match=r"holiday.jpg is 40 x 30 .*or set CUSTOMEDIT_MAX_PIXELS"):
        images.read(path, limits=limits)


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(InputError, match="is no file"):
            images.read(path)
