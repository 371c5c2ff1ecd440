"""Pictures to files, whole or not at all, and what a format keeps."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customedit import images
from customedit.errors import InputError
from customedit.images import writing

from .conftest import far, noise, picture


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_written_files_can_be_read(suffix: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old")
    images.write(picture().convert(mode), path)
    assert far(images.read(path).image, picture().convert(mode).convert("RGB")) <= 30
    assert os.listdir(tmp_path) == [path.name]
    assert path.stat().st_mode & 0o044 == 0o044 & ~writing._umask()


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


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_lossless_formats_keep_every_level(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    assert not images.is_lossy(path)
    source = noise((61, 47))
    images.write(source, path)
    assert images.read(path).image.tobytes() == source.tobytes()
    clear = noise((61, 47), 1)
    clear.putalpha(Image.fromarray(np.tile(np.arange(61, dtype=np.uint8) * 4, (47, 1))))
    images.write(clear, path)
    assert Image.open(path).convert("RGBA").tobytes() == clear.tobytes()


def test_a_lossy_format_says_so(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG"):
        assert images.is_lossy(tmp_path / name)
    images.write(noise((32, 32)), tmp_path / "a.jpg")
    assert far(images.read(tmp_path / "a.jpg").image, noise((32, 32))) > 0
    with pytest.raises(InputError, match="path: ends in"):
        images.is_lossy(tmp_path / "a.tif")
