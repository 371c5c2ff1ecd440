"""Pictures and masks on the command line: limits of one's own, and what is told of them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customedit import images
from customedit.cli import console
from customedit.cli.customize import listed
from customedit.errors import InputError


def phone_picture(size: tuple[int, int]) -> bytes:
    """A PNG of 1 bit, whose file is small."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    row = bytes(1 + -(-size[0] // 8))
    body = zlib.compress(row * size[1], 1)
    head = struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_pictures_of_phones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "phone.png"
    path.write_bytes(phone_picture((8064, 6048)))
    assert images.scan(path, limits=console.picture_limits()).size == (8064, 6048)
    with pytest.raises(InputError, match=r"48\.8 million pixels, the limit is 40 million"):
        images.scan(path)  # a service's limit


def test_the_limit_is_a_setting_that_the_error_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "phone.png"
    path.write_bytes(phone_picture((80, 60)))
    monkeypatch.setenv("CUSTOMEDIT_MAX_PIXELS", "4799")
    with pytest.raises(InputError, match=r"phone.png is 80 x 60 .* or set CUSTOMEDIT_MAX_PIXELS"):
        console.read_image(path, "picture")
    monkeypatch.setenv("CUSTOMEDIT_MAX_PIXELS", "4800")
    assert console.read_image(path, "picture").size == (80, 60)


@pytest.mark.parametrize("value", ["many", "-3", "0", "1e9", "99999999999", "٣"])
def test_a_limit_that_is_no_number_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMEDIT_MAX_PIXELS", value)
    with pytest.raises(InputError, match="CUSTOMEDIT_MAX_PIXELS: is"):
        console.picture_limits()


def test_what_is_passed_over_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "[cut].jpg"  # brackets are no markup
    Image.new("RGB", (64, 48), "red").save(path)
    path.write_bytes(path.read_bytes()[:-2])
    console.read_image(path, "picture")
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith("warning:") and "[cut].jpg ends without its end mark" in told


def test_files_left_out_of_a_folder_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "b.heic").write_bytes(b"x")
    (tmp_path / ".hidden").write_bytes(b"x")
    assert listed([tmp_path]) == [tmp_path / "a.png"]
    told = " ".join(capsys.readouterr().err.split())
    assert told.endswith("not PNG, JPEG or WebP and are left out: b.heic")
    (tmp_path / "b.heic").unlink()
    listed([tmp_path])
    assert capsys.readouterr().err == ""


def test_an_error_in_a_folder_names_the_file(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"references: \S+b.png is empty"):
        for path in listed([tmp_path]):
            console.read_image(path, "references")


def test_a_mask_is_read_for_its_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mask.png"
    labels = Image.new("L", (60, 40))
    labels.paste(1, (0, 0, 30, 40))
    labels.save(path)
    mask = console.read_mask(path, (120, 80))
    assert mask.shape == (80, 120) and float(mask[:, :50].min()) == 1
    assert np.isclose(float(mask.mean()), 0.5, atol=0.01)
    assert "holds labels 0 and 1" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(InputError, match=r"mask: \S+mask.png is 60 x 40 pixels, an aspect of 1.5"):
        console.read_mask(path, (80, 80))
