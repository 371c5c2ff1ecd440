"""Where results are written: checked before any work, and nothing overwritten unless asked to."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from customedit.errors import InputError

ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace results that exist at the output path.")
]

_REPLACE = "name another, or replace it with --force"


def check_file(out: Path, force: bool, *, field: str = "out", suffixes: Sequence[str] = ()) -> None:
    """Check that a result can be written to the file ``out``.

    force: whether a file that exists may be replaced; suffixes: the allowed ones, in lower case,
    all if empty.

    Raises:
        InputError: for a folder that does not exist or is read-only, a suffix that is not allowed,
            a path that is a folder, and a file that exists unless ``force``.
    """
    if not out.parent.is_dir():
        problem = "is not a folder" if out.parent.exists() else "does not exist"
        raise InputError(field, f"{out.parent} {problem}", "create it, or correct the path")
    if out.is_dir():
        raise InputError(field, f"{out} is a folder", "name a file in it")
    if suffixes and out.suffix.lower() not in suffixes:
        raise InputError(field, f"{out.name} has an unknown suffix", f"use {', '.join(suffixes)}")
    _check_writable(out.parent, field)
    if out.exists() and not force:
        raise InputError(field, f"{out} exists", _REPLACE)


def check_folder(
    out: Path, force: bool, *, field: str = "out", ours: str = "", resumable: bool = False
) -> None:
    """Check that results can be written into the folder ``out``, which need not exist.

    ours: a regular expression of the names that a former run of the command left there; resumable:
    whether a run goes on in a folder that has only those.

    Raises:
        InputError: for a path that is or leads through a file, a folder that is read-only, and
            one that holds something, unless ``force`` or resumable.
    """
    if not out.is_dir():
        nearest = next(p for p in (out, *out.absolute().parents) if p.exists() or p.is_symlink())
        if not nearest.is_dir():
            raise InputError(field, f"{nearest} is not a folder", "name a folder")
        _check_writable(nearest, field)
        return
    _check_writable(out, field)
    names = sorted(path.name for path in out.iterdir())
    others = [name for name in names if not re.fullmatch(ours, name)]
    if force or not names or (resumable and not others):
        return
    if others:
        problem = f"{out} holds other files, such as {others[0]}"
        raise InputError(field, problem, "name another folder, or write into it with --force")
    raise InputError(field, f"{out} holds the results of a former run", _REPLACE)


def remove_former(out: Path, ours: str) -> None:
    """Remove the files in the folder ``out`` whose names match ``ours``; others stay."""
    for path in out.iterdir():
        if re.fullmatch(ours, path.name) and path.is_file():
            path.unlink()


def _check_writable(folder: Path, field: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(field, f"{folder} is read-only for you", "name another folder")
