"""What the key that the gate let in may do."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from api.container import Services
from api.problems import Refused
from customedit.tenants.api_keys import ApiKey

_bearer = HTTPBearer(
    scheme_name="bearer", description="`Authorization: Bearer ce_...`", auto_error=False
)
_header = APIKeyHeader(
    name="X-API-Key", scheme_name="header", description="The same key.", auto_error=False
)
ADMIN: Final = "admin"


def needs(*scopes: str) -> Any:
    """A dependency that gives the caller's key if it has one of ``scopes``, or ``admin``."""

    def check(
        request: Request,
        _bearer: Annotated[object, Security(_bearer)],  # only told of in the OpenAPI document:
        _header: Annotated[object, Security(_header)],  # the gate has looked at both
    ) -> ApiKey:
        key: ApiKey = request.state.caller
        require(key, *scopes)
        return key

    return Depends(check)


def require(key: ApiKey, *scopes: str) -> None:
    """Refuse what ``key`` has none of the ``scopes`` for.

    Raises:
        Refused: forbidden.
    """
    if not {*scopes, ADMIN} & set(key.scopes):
        limit = " or ".join((*scopes, ADMIN) if ADMIN not in scopes else scopes)
        raise Refused("forbidden", field="Authorization", limit=f"scope {limit}")


def _services(request: Request) -> Services:
    return request.app.state.services


Here = Annotated[Services, Depends(_services)]
Reader = Annotated[ApiKey, needs("read")]
