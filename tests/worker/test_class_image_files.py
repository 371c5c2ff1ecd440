"""Class images that a worker keeps: so many bytes, the latest used, and marks of what is there."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from customedit.storage.store import MissingObject
from worker.class_image_files import ClassImageFiles
from worker.customize_job import Keeper


def file(folder: Path, name: str, size: int = 10) -> Path:
    path = folder / name
    path.write_bytes(name.encode()[:1] * size)
    return path


@pytest.fixture
def kept(tmp_path: Path) -> ClassImageFiles:
    return ClassImageFiles(tmp_path / "classes", budget=30)


def there(kept: ClassImageFiles, tmp_path: Path, *names: str) -> list[bool]:
    return [kept.fetch("acme", name, tmp_path / "copy") for name in names]


def test_those_not_used_for_longest_go_first(kept: ClassImageFiles, tmp_path: Path) -> None:
    for name in "abc":
        kept.add("acme", file(tmp_path, name))
        kept.mark(f"mark of {name}", "acme", [name])
    kept.mark("of two", "acme", ["b", "c"])
    assert kept.fetch("acme", "a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"a" * 10
    kept.add("acme", file(tmp_path, "d"))
    assert there(kept, tmp_path, "a", "b", "c", "d") == [True, False, True, True]
    assert kept.marks() == {"mark of a", "mark of c"}
    kept.add("acme", file(tmp_path, "d", 20))  # in place of the former one
    assert there(kept, tmp_path, "a", "c", "d") == [False, True, True]
    held = [p for p in (tmp_path / "classes").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in held) == 30
    kept.add("acme", file(tmp_path, "e", 31))
    assert there(kept, tmp_path, "e", "d") == [False, True]


def test_tenants_have_files_of_their_own(kept: ClassImageFiles, tmp_path: Path) -> None:
    kept.add("acme", file(tmp_path, "a"))
    assert not kept.fetch("other", "a", tmp_path / "copy")
    kept.mark("m", "other", ["a"])
    assert kept.marks() == frozenset()


def test_a_file_that_vanished_is_drawn_anew(kept: ClassImageFiles, tmp_path: Path) -> None:
    kept.add("acme", file(tmp_path, "a"))
    kept.mark("m", "acme", ["a"])
    (tmp_path / "classes" / "acme" / "a").unlink()
    assert there(kept, tmp_path, "a") == [False] and kept.marks() == frozenset()


def test_a_full_disk_keeps_nothing_and_fails_nothing(
    kept: ClassImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> Path:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        kept.add("acme", file(tmp_path, "a"))
    assert there(kept, tmp_path, "a") == [False]
    assert not [p for p in (tmp_path / "classes").rglob("*") if p.is_file()]


def test_a_training_takes_them_and_leaves_its_own(kept: ClassImageFiles, tmp_path: Path) -> None:
    def training(name: str) -> Keeper:
        def missing(key: str, path: Path) -> None:
            raise MissingObject(key)

        attempt: Any = SimpleNamespace(
            tenant="acme", id=name, folder=tmp_path / name, runtime=SimpleNamespace(
                class_images=kept), storage=SimpleNamespace(download=missing),
            with_retries=lambda call: call(), try_put=lambda *_: True,
        )  # fmt: skip
        attempt.folder.mkdir()
        return Keeper(attempt, ["a", "b"], "m")

    first = training("first")
    first.fetch()
    assert not list(first.folder.iterdir())
    for name in "ab":
        file(first.folder, name)
        first.upload()
    assert kept.marks() == {"m"}
    second = training("second")
    second.fetch()
    assert sorted(p.name for p in second.folder.iterdir()) == ["a", "b"]
    (tmp_path / "classes" / "acme" / "a").unlink()
    third = training("third")
    third.fetch()
    assert [p.name for p in third.folder.iterdir()] == ["b"]
