"""What routes take from a request: the container, the caller's key, ids, pages, headers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from api.container import Container
from api.problems import ProblemError
from customedit.schemas import patterns
from customedit.tenants.access import ApiKey

ADMIN: Final = "admin"
MAX_WAIT_S: Final = 60

_bearer = HTTPBearer(
    scheme_name="bearer", description="`Authorization: Bearer ce_...`", auto_error=False
)
_header = APIKeyHeader(
    name="X-API-Key", scheme_name="header", description="The same key.", auto_error=False
)


def _container(request: Request) -> Container:
    return request.app.state.container


def needs(*scopes: str) -> Any:
    """A dependency that gives the caller's key if it has one of ``scopes``, or ``admin``."""

    def check(
        request: Request,
        _bearer: Annotated[object, Security(_bearer)],  # for the OpenAPI document alone: the
        _header: Annotated[object, Security(_header)],  # middleware has looked at both
    ) -> ApiKey:
        key: ApiKey = request.state.caller
        require_scope(key, *scopes)
        return key

    return Depends(check)


def require_scope(key: ApiKey, *scopes: str) -> None:
    """Refuse what ``key`` has none of the ``scopes`` for.

    Raises:
        ProblemError: forbidden.
    """
    if not {*scopes, ADMIN} & set(key.scopes):
        limit = " or ".join((*scopes, ADMIN) if ADMIN not in scopes else scopes)
        raise ProblemError("forbidden", field="Authorization", limit=f"scope {limit}")


def _wait(
    prefer: Annotated[
        str | None,
        Header(
            max_length=1000,
            description=f"`wait=10`: wait up to 10 s for the job's end; at most {MAX_WAIT_S}.",
        ),
    ] = None,
) -> int:
    """Seconds to wait. Preferences that are not known are passed over (RFC 7240)."""
    preference = _WAIT.search(prefer or "")
    return min(int(preference[1]), MAX_WAIT_S) if preference else 0


_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)

AppContainer = Annotated[Container, Depends(_container)]
Reader = Annotated[ApiKey, needs("read")]
JobId = Annotated[str, Path(pattern=patterns.JOB, description="Id of a job.")]
ConceptId = Annotated[str, Path(pattern=patterns.CONCEPT, description="Id of a concept.")]
ImageId = Annotated[str, Path(pattern=patterns.IMAGE, description="Id of an image.")]
UploadId = Annotated[str, Path(pattern=patterns.UPLOAD, description="Id of an upload.")]
Cursor = Annotated[
    str | None, Query(pattern=patterns.CURSOR, description="`next_cursor` of the page before.")
]
Limit = Annotated[int, Query(ge=1, le=100, description="Most items of the page.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=patterns.IDEMPOTENCY_KEY,
        description="Any word of yours: a request that is sent again with it is not done again.",
    ),
]
LastEventId = Annotated[
    str,
    Header(
        alias="Last-Event-ID",
        pattern=patterns.EVENT,
        description="The id of the last event that was seen: what came after it is sent.",
    ),
]
Wait = Annotated[int, Depends(_wait)]
