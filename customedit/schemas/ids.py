"""Names of things: a prefix that says the kind, and what nobody can guess.

``job_`` and ``con_`` ids sort by the time they were made (48 bits of milliseconds, then 80 random
bits, as ULID does); images are named by their contents: ``img_`` and the sha256 of the file.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Final, Literal

Kind = Literal["job", "con", "key", "whk", "upl"]

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32

JOB: Final = r"^job_[0-9a-hjkmnp-tv-z]{26}$"
CONCEPT: Final = r"^con_[0-9a-hjkmnp-tv-z]{26}$"
IMAGE: Final = r"^img_[0-9a-f]{64}$"
TENANT: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"


def new(kind: Kind) -> str:
    """A fresh id of ``kind``."""
    number = int(time.time() * 1000) << 80 | secrets.randbits(80)
    digits = (_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
    return f"{kind}_{''.join(digits)}"


def of_image(data: bytes) -> str:
    """The id of an uploaded file: ``img_`` and its sha256 in hex."""
    return f"img_{hashlib.sha256(data).hexdigest()}"
