"""Names of uploaded files, as they are kept and shown."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_FILE_NAME: Final = 200
"""Characters of a name that are kept."""


def file_name(given: str | None) -> str:
    """The name that a file was sent with, for people to find it again; it is never a path.

    Folders before it and control characters go (category C of Unicode: also those that turn the
    direction of writing), white space becomes single blanks, and at most ``MAX_FILE_NAME``
    characters stay. Empty: the file has no name.
    """
    last = re.split(r"[/\\]", given or "")[-1]
    shown = "".join(c for c in last if c.isspace() or not unicodedata.category(c).startswith("C"))
    return " ".join(shown.split())[:MAX_FILE_NAME].strip()
