"""Names of things: a prefix that says the kind, and what nobody can guess.

``job_`` and ``con_`` ids sort by the time they were made (48 bits of milliseconds, then 80 random
bits, as ULID does); images are named by their contents: ``img_`` and the sha256 of the file.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Final, Literal

from customedit.schemas.patterns import CONCEPT, IMAGE, JOB, TENANT, UPLOAD

__all__ = ["CONCEPT", "IMAGE", "JOB", "TENANT", "UPLOAD", "Kind", "new", "of_image"]

Kind = Literal["job", "con", "key", "whk", "upl"]

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32


def new(kind: Kind) -> str:
    """A fresh id of ``kind``."""
    number = int(time.time() * 1000) << 80 | secrets.randbits(80)
    digits = (_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
    return f"{kind}_{''.join(digits)}"


def of_image(data: bytes) -> str:
    """The id of an uploaded file: ``img_`` and its sha256 in hex."""
    return f"img_{hashlib.sha256(data).hexdigest()}"
