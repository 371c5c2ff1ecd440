"""Every pattern of the REST API once: machines get the pattern, people get it in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from customedit.prompt_syntax import CONCEPT as _TOKEN

_ID: Final = "[0-9a-hjkmnp-tv-z]{26}"

JOB: Final = f"^job_{_ID}$"
CONCEPT: Final = f"^con_{_ID}$"
BATCH: Final = f"^bat_{_ID}$"
UPLOAD: Final = f"^upl_{_ID}$"
KEY: Final = f"^key_{_ID}$"
IMAGE: Final = r"^img_[0-9a-f]{64}$"
OUTPUT: Final = f"^out_{_ID}_[0-9]{{1,2}}$"
PICTURE: Final = f"^(img_[0-9a-f]{{64}}|out_{_ID}_[0-9]{{1,2}})$"
"""An image that was uploaded, or an output of an edit."""

TENANT: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"
TOKEN_IN_TEXT: Final = _TOKEN
"""The tokens inside a prompt."""

TOKEN: Final = f"^{_TOKEN.pattern}$"
"""A concept's token, such as ``<plaid>``."""

PHRASE: Final = r"^[^\W_][\w' -]*$"
"""A noun or an attribute: words without punctuation."""

PRESET: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
CURSOR: Final = r"^[A-Za-z0-9_:-]{1,200}$"
EVENT: Final = r"^[0-9]{1,18}(-[0-9]{1,18})?$"
IDEMPOTENCY_KEY: Final = r"^[\x21-\x7e]{1,255}$"
PIXELS: Final = r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"

IN_WORDS: Final[Mapping[str, str]] = {
    IMAGE: "the id of an image: img_ and 64 hex digits",
    PICTURE: "the id of an image (img_ and 64 hex digits) or of an edit's output (out_...)",
    CONCEPT: "the id of a concept: con_ and 26 letters and digits",
    JOB: "the id of a job: job_ and 26 letters and digits",
    BATCH: "the id of a batch: bat_ and 26 letters and digits",
    UPLOAD: "the id of an upload: upl_ and 26 letters and digits",
    KEY: "the id of an API key: key_ and 26 letters and digits",
    PRESET: "a name of letters, digits, ., _ and -, up to 64, a letter or digit first",
    CURSOR: "the next_cursor of the page before",
    IDEMPOTENCY_KEY: "1 to 255 visible ASCII characters",
    PIXELS: "auto, or a width and a height such as 1024x1024",
    EVENT: "the id of an event, such as 1700000000000-0",
    PHRASE: "words of letters, digits, spaces, ', - and _, a letter or digit first",
    TOKEN: "a token such as <look>: small letters, digits, - and _ in <>",
}
"""What a text that matches the pattern is: "is not ..." tells the problem."""
