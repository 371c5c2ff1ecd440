"""Parameters that several routes take: ids, pages, headers."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Depends, Header, Path, Query

from api.problems import Refused
from customedit.schemas import ids

MOST_WAIT_S: Final = 60

JobId = Annotated[str, Path(pattern=ids.JOB, description="Id of a job.")]
ConceptId = Annotated[str, Path(pattern=ids.CONCEPT, description="Id of a concept.")]
ImageId = Annotated[str, Path(pattern=ids.IMAGE, description="Id of an image.")]
UploadId = Annotated[str, Path(pattern=r"^upl_[0-9a-hjkmnp-tv-z]{26}$", description="Its id.")]

Cursor = Annotated[
    str | None,
    Query(pattern=r"^[A-Za-z0-9_:-]{1,200}$", description="`next_cursor` of the page before."),
]
Limit = Annotated[int, Query(ge=1, le=100, description="Most items of the page.")]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Any word of yours: a request that is sent again with it is not done again.",
    ),
]
_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


def _wait(
    prefer: Annotated[
        str | None,
        Header(
            max_length=1000,
            description=f"`wait=10`: wait so long for the job's end, in seconds, to {MOST_WAIT_S}.",
        ),
    ] = None,
) -> int:
    """Seconds to wait. What is no preference that is known is passed over (RFC 7240)."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), MOST_WAIT_S) if found else 0


Wait = Annotated[int, Depends(_wait)]


def no_such(what: str, id_: str) -> Refused:
    """The problem of an id that the caller has nothing under, whoever else may."""
    return Refused(
        "not-found", f"you have no {what} {id_}", field="id", limit=f"one of your {what}s"
    )
