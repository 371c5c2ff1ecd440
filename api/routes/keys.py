"""API keys of a tenant: whoever has one of the scope ``admin`` lists, makes and revokes them."""

from __future__ import annotations

import logging
import time
from typing import Annotated

from fastapi import APIRouter

from api.dependencies import AppContainer, KeyId, needs
from api.openapi import example_bodies, refusals
from api.problems import ProblemError, input_problem, not_found
from api.serializers import at, when
from customedit.errors import InputError
from customedit.schemas import answers as d
from customedit.schemas.keys import KeyRequest
from customedit.tenants.access import MAX_KEYS, ApiKey

router = APIRouter(tags=["account"])
Admin = Annotated[ApiKey, needs("admin")]
EXAMPLES = example_bodies({"reads": {"name": "dashboard", "scopes": ["read"], "days": 90}})
_log = logging.getLogger(__name__)


def _document(key: ApiKey, caller: ApiKey) -> d.ApiKey:
    return d.ApiKey(
        id=key.id,
        prefix=key.prefix,
        name=key.name,
        scopes=list(key.scopes),
        state=key.state(time.time()),
        created_at=at(key.created_at),
        expires_at=when(key.expires_at),
        revoked_at=when(key.revoked_at),
        last_used_at=when(key.last_used_at),
        made_by=key.made_by,
        current=key.id == caller.id,
    )


@router.get(
    "/v1/keys",
    operation_id="listKeys",
    summary="List API keys",
    response_model=d.Page[d.ApiKey],
    responses=refusals(),
)
def list_keys(container: AppContainer, caller: Admin) -> d.Page[d.ApiKey]:
    """All of your tenant's keys, newest first, and the last 100 that have ended; no secrets."""
    keys = reversed(container.keys.list(caller.tenant))
    return d.Page(items=[_document(key, caller) for key in keys])


@router.post(
    "/v1/keys",
    operation_id="makeKey",
    summary="Make an API key",
    response_model=d.NewApiKey,
    status_code=201,
    responses=refusals(
        "malformed", "request-timeout", "too-large", "unsupported-media-type", "validation",
        "too-many-keys", "too-many-new-keys",
    ),
    openapi_extra=EXAMPLES,
)  # fmt: skip
def make_key(request: KeyRequest, container: AppContainer, caller: Admin) -> d.NewApiKey:
    """The key is shown in this answer alone. It does not outlive the key that makes it."""
    keys, now = container.keys, time.time()
    if sum(key.valid(now) for key in keys.list(caller.tenant)) >= MAX_KEYS:
        raise ProblemError("too-many-keys", limit=f"{MAX_KEYS} valid keys")
    allowed = container.limits.take_key(caller.tenant)
    if not allowed.ok:
        raise ProblemError(
            "too-many-new-keys",
            limit=f"{allowed.limit} new keys a minute",
            headers={"Retry-After": str(max(1, round(allowed.retry_s)))},
        )
    try:
        key, text = keys.create(
            caller.tenant,
            name=request.name,
            scopes=request.scopes,
            days=request.days,
            maker=caller,
        )
    except InputError as error:
        raise input_problem(error) from None
    _log.info(
        "API key %s was made with %s: %s, %s",
        key.id,
        caller.id,
        " ".join(key.scopes),
        "does not expire" if key.expires_at is None else f"until {at(key.expires_at):%F %H:%M}",
    )
    keys.forget_ended(caller.tenant)
    return d.NewApiKey(**_document(key, caller).model_dump(), key=text)


@router.post(
    "/v1/keys/{id}/revoke",
    operation_id="revokeKey",
    summary="Revoke an API key",
    response_model=d.ApiKey,
    responses=refusals("not-found", "validation", "own-key"),
)
def revoke_key(id: KeyId, container: AppContainer, caller: Admin) -> d.ApiKey:
    """It is refused from the next request on, and for good. Again, this changes nothing."""
    if id == caller.id:
        raise ProblemError(
            "own-key",
            f"{id} is the key of this request: make a new one with it, and revoke it with that",
            field="id",
            limit="another key than your own",
        )
    key = container.keys.get(id)
    if key is None or key.tenant != caller.tenant:
        raise not_found("key", id)
    revoked = container.keys.revoke(id) or key
    if key.revoked_at is None:
        _log.info("API key %s was revoked with %s", id, caller.id)
    return _document(revoked, caller)
