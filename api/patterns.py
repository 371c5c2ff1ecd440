"""What the contract's patterns ask for, in words: people are told these, machines the patterns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from customedit.schemas import ids

SAID: Final[Mapping[str, str]] = {
    ids.IMAGE: "the id of an image: img_ and 64 hex digits",
    ids.CONCEPT: "the id of a concept: con_ and 26 letters and digits",
    ids.JOB: "the id of a job: job_ and 26 letters and digits",
    r"^upl_[0-9a-hjkmnp-tv-z]{26}$": "the id of an upload: upl_ and 26 letters and digits",
    r"^[A-Za-z0-9_:-]{1,200}$": "the next_cursor of the page before",
    r"^[\x21-\x7e]{1,255}$": "1 to 255 visible ASCII characters",
    r"^[0-9]{1,18}(-[0-9]{1,18})?$": "the id of an event, such as 1700000000000-0",
    r"^[^\W_][\w' -]*$": "words of letters, digits, spaces, ', - and _, a letter or digit first",
    r"^<[a-z0-9][a-z0-9_-]{0,62}>$": "a token such as <look>: small letters, digits, - and _ in <>",
}
"""Pattern to what fits it: "is not ..." makes the problem, and it is the limit that is told."""
