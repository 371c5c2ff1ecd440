"""Names of things: a prefix that says the kind, and what nobody can guess.

``job_``, ``bat_`` and ``con_`` ids sort by the time they were made (48 bits of milliseconds, then
80 random bits, as ULID does); images are named by their contents: ``img_`` and the sha256 of the
file; the pictures of an edit by its job and their number: ``out_``, the job's part, ``_0``.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import Final, Literal

from customedit.schemas.patterns import CONCEPT, IMAGE, JOB, OUTPUT, TENANT, UPLOAD

__all__ = [
    "CONCEPT",
    "IMAGE",
    "JOB",
    "TENANT",
    "UPLOAD",
    "Kind",
    "new",
    "of_image",
    "of_output",
    "output_of",
]

Kind = Literal["job", "bat", "con", "key", "whk", "upl"]

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32


def new(kind: Kind) -> str:
    """A fresh id of ``kind``."""
    number = int(time.time() * 1000) << 80 | secrets.randbits(80)
    digits = (_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
    return f"{kind}_{''.join(digits)}"


def of_output(job_id: str, number: int) -> str:
    """The id of picture ``number`` (from 0) of an edit."""
    return f"out_{job_id.removeprefix('job_')}_{number}"


def output_of(picture_id: str) -> tuple[str, int] | None:
    """The job and the number that an output's id names; None for the id of an image."""
    if not re.fullmatch(OUTPUT, picture_id):
        return None
    _, job, number = picture_id.split("_")
    return f"job_{job}", int(number)


def of_image(data: bytes) -> str:
    """The id of an uploaded file: ``img_`` and its sha256 in hex."""
    return f"img_{hashlib.sha256(data).hexdigest()}"
