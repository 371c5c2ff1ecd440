"""Which files of a folder are pictures, and which are left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from customedit.errors import InputError
from customedit.images.reading import list_pictures, name_some

from .conftest import picture, saved


def test_pictures_are_known_by_contents_or_suffix(tmp_path: Path) -> None:
    for name, kind in [("b.png", "PNG"), ("a.JPG", "JPEG"), ("c.jfif", "JPEG"), ("d", "WEBP")]:
        (tmp_path / name).write_bytes(saved(picture(), kind))
    (tmp_path / "e.png").write_bytes(b"")  # for its reader to refuse by name
    for name in ("f.heic", "g.gif", "notes.txt", ".DS_Store", "._a.jpg"):
        (tmp_path / name).write_bytes(b"not a picture that is read")
    (tmp_path / "more").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = list_pictures(tmp_path)
    assert [p.name for p in found.pictures] == ["a.JPG", "b.png", "c.jfif", "d", "e.png"]
    assert [p.name for p in found.left_out] == ["f.heic", "g.gif", "gone.png", "more", "notes.txt"]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"references: \S+ holds no picture; give PNG, JPEG"):
        list_pictures(tmp_path, field="references")
    for n in range(7):
        (tmp_path / f"{n}.heic").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no picture, but 0.heic, .*4.heic and 2 more; give"):
        list_pictures(tmp_path, field="references")
    with pytest.raises(InputError, match="cannot be read"):
        list_pictures(tmp_path / "nowhere")


def test_few_names_are_all_named() -> None:
    assert name_some((Path("x/a"), Path("x/b"))) == "a, b"
