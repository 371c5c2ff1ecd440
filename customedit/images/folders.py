"""Pictures in folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from customedit.errors import InputError
from customedit.images import jpeg, structure

_SUFFIXES: Final = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Listed:
    """Pictures in the order of their names, and what lay beside them and is left out."""

    pictures: tuple[Path, ...]
    left_out: tuple[Path, ...]


def list_pictures(folder: Path, *, field: str = "image") -> Listed:
    """The PNG, JPEG and WebP files in ``folder``, by their contents or their suffix.

    So a damaged file that is called a picture is listed, for its reader to refuse it by name. Files
    whose names begin with a dot are no one's pictures and are not mentioned; all else that is no
    picture, folders as well, is left out.

    Raises:
        InputError: if it cannot be read or holds no picture; what was left out is named.
    """
    try:
        inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise InputError(field, f"{folder} cannot be read ({error.strerror})") from error
    pictures = tuple(p for p in inside if _is_picture(p))
    left_out = tuple(p for p in inside if p not in set(pictures))
    if not pictures:
        others = f", but {name_some(left_out)}" if left_out else ""
        raise InputError(
            field, f"{folder} holds no picture{others}", "give PNG, JPEG or WebP files"
        )
    return Listed(pictures, left_out)


def name_some(paths: tuple[Path, ...], most: int = 5) -> str:
    """The names of the first few of ``paths``, and how many more there are."""
    names = ", ".join(p.name for p in paths[:most])
    return names + (f" and {len(paths) - most} more" if len(paths) > most else "")


def _is_picture(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
    except OSError:
        return False
    return head.startswith((structure.PNG_SIGNATURE, jpeg.SIGNATURE)) or structure.is_webp(head)
