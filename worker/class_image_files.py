"""Files of class images that a worker keeps for the next trainings of the same tenants."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from customedit.files import disk_full

BUDGET: Final = 2**30
"""Most bytes of class images that a worker keeps, of all tenants together."""

_log = logging.getLogger(__name__)


class ClassImageFiles:
    """The files below ``folder``, a folder for each tenant; safe from any thread.

    Those that were not used for longest go first. budget: bytes that all may have together; a
    larger file is not kept at all.
    """

    def __init__(self, folder: Path, budget: int = BUDGET) -> None:
        self._folder, self._budget = folder, budget
        self._held: OrderedDict[Path, int] = OrderedDict()  # with their bytes
        self._marks: dict[str, frozenset[Path]] = {}
        self._lock = threading.Lock()

    def fetch(self, tenant: str, name: str, to: Path) -> bool:
        """Copy a file to ``to``; False: it is not held, and is to be drawn anew."""
        path = self._folder / tenant / name
        with self._lock:
            if path not in self._held:
                return False
            self._held.move_to_end(path)
        try:
            shutil.copyfile(path, to)
        except FileNotFoundError:  # it had to go meanwhile
            with self._lock:
                self._drop(path)
            return False
        return True

    def add(self, tenant: str, file: Path) -> None:
        """Keep a copy of ``file`` under its name; what it pushes out is removed.

        On a disk that is full nothing is kept.
        """
        path = self._folder / tenant / file.name
        part = path.with_name(f"{file.name}.{threading.get_ident()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            size = shutil.copyfile(file, part).stat().st_size
        except OSError as error:
            part.unlink(missing_ok=True)
            if not disk_full(error):
                raise
            _log.warning("class images are not kept: the scratch disk is full")
            return
        with self._lock:
            if size > self._budget:
                part.unlink()
                return
            part.replace(path)
            self._held[path] = size
            self._held.move_to_end(path)
            while sum(self._held.values()) > self._budget:
                self._drop(next(iter(self._held)))

    def mark(self, mark: str, tenant: str, names: Sequence[str]) -> None:
        """Say that the files ``names`` are those of ``mark``, if all of them are held."""
        paths = frozenset(self._folder / tenant / name for name in names)
        with self._lock:
            if paths <= self._held.keys():
                self._marks[mark] = paths

    def marks(self) -> frozenset[str]:
        """The marks all of whose files are held."""
        with self._lock:
            return frozenset(self._marks)

    def _drop(self, path: Path) -> None:
        self._held.pop(path, None)
        self._marks = {mark: paths for mark, paths in self._marks.items() if path not in paths}
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
