"""Who may come in, how often and with how much: asked before a byte of the body is read.

FastAPI reads bodies before it asks its dependencies; this stands in front of it, so that nobody
without a key can make the service take 20 MB.
"""

from __future__ import annotations

import re
from typing import Final

import anyio
from redis.exceptions import RedisError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.container import Services
from api.problems import Refused, answer, too_large
from customedit.config import telemetry
from customedit.config.settings import Settings
from customedit.tenants.api_keys import ApiKey
from customedit.tenants.rate_limits import Allowed

BEHIND: Final = "/v1/"
JSON_BYTES: Final = 256 * 2**10
_FORM_BYTES: Final = 64 * 2**10  # boundaries and text fields around a file
_LINGER_S: Final = 5.0
_LINGER_BYTES: Final = 64 * 2**20
_BEARER: Final = re.compile(r"(?i:bearer) +([\x21-\x7e]{1,200})")


class Gate:
    """ASGI middleware for all below ``/v1/``: size, key and rate."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it: ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        services: Services = scope["app"].state.services
        headers = Headers(scope=scope)
        body = _Counted(receive, body_limit(services.settings, scope["path"]), headers)
        allowed: Allowed | None = None
        try:
            if scope["path"].startswith(BEHIND):
                allowed = await self._admit(services, scope, headers)
            body.check_declared()
        except Refused as refused:
            await _refuse(refused, scope, body, _with_rate(send, allowed))
            return
        scope["state"]["body_limit"] = body.limit
        caller = scope["state"].get("caller")
        with telemetry.bind(tenant=caller.tenant if caller else None):
            await self.app(scope, body, _with_rate(send, allowed))

    async def _admit(self, services: Services, scope: Scope, headers: Headers) -> Allowed:
        presented = _presented(headers)
        try:
            key, allowed = await anyio.to_thread.run_sync(_ask, services, presented)
        except RedisError as error:
            raise Refused("unavailable", "keys cannot be checked now") from error
        if key is None or allowed is None:
            raise Refused("unauthenticated", field="Authorization", limit="a valid API key")
        scope["state"] |= {"caller": key, "allowed": allowed}
        if not allowed.ok:
            raise Refused(
                "rate-limited",
                limit=f"{allowed.limit} requests a minute",
                headers={"Retry-After": str(max(1, round(allowed.retry_s))), **rate(allowed)},
            )
        return allowed


def _ask(services: Services, presented: str) -> tuple[ApiKey | None, Allowed | None]:
    key = services.keys.verify(presented)
    return key, services.limits.take(key.tenant) if key else None


def _presented(headers: Headers) -> str:
    """The key of the request.

    Raises:
        Refused: there is none, or two that differ.
    """
    bearer = _BEARER.fullmatch(headers.get("authorization", ""))
    found = {k for k in (bearer and bearer[1], headers.get("x-api-key")) if k}
    if len(found) != 1:
        raise Refused("unauthenticated", field="Authorization", limit="exactly one API key")
    return found.pop()


def body_limit(settings: Settings, path: str) -> int:
    """How many bytes the body of a request to ``path`` may have."""
    if path == "/v1/images":
        return settings.max_upload_bytes + _FORM_BYTES
    if path == "/v1/concepts/import":
        return settings.max_import_bytes + _FORM_BYTES
    return JSON_BYTES


class _Counted:
    """``receive`` that stops at ``limit`` bytes."""

    def __init__(self, receive: Receive, limit: int, headers: Headers) -> None:
        self.receive, self.limit, self.seen, self.ended = receive, limit, 0, False
        self.declared = headers.get("content-length", "0")

    def check_declared(self) -> None:
        """Refuse a body whose declared length is over the limit."""
        if not self.declared.isdigit() or int(self.declared) > self.limit:
            raise too_large(self.limit)

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request":
            self.seen += len(message.get("body", b""))
            self.ended = not message.get("more_body", False)
            if self.seen > self.limit:  # FastAPI lets this class pass, and no other
                raise HTTPException(413)
        return message

    async def drain(self) -> None:
        """Read on for a little: a connection closed on unread bytes loses the answer as well."""
        left = _LINGER_BYTES
        with anyio.move_on_after(_LINGER_S):
            while left > 0 and not self.ended:
                message = await self.receive()
                left -= len(message.get("body", b""))
                self.ended = message["type"] != "http.request" or not message.get("more_body")


async def _refuse(refused: Refused, scope: Scope, body: _Counted, send: Send) -> None:
    """Answer, then let the caller finish sending for a while, so that it reads the answer."""
    response = answer(refused, scope["path"], scope["state"]["request_id"])
    response.headers["Connection"] = "close"

    async def first(message: Message) -> None:
        if message["type"] == "http.response.body":
            await send({**message, "more_body": True})
            await body.drain()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await send(message)

    await response(scope, body.receive, first)


def rate(allowed: Allowed) -> dict[str, str]:
    """What is left of the rate, as draft-ietf-httpapi-ratelimit-headers has it."""
    return {
        "RateLimit-Policy": f'"tenant";q={allowed.limit};w=60',
        "RateLimit": f'"tenant";r={allowed.remaining};t={max(0, round(allowed.reset_s))}',
    }


def _with_rate(send: Send, allowed: Allowed | None) -> Send:
    if allowed is None:
        return send

    async def passed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in rate(allowed).items():
                headers.setdefault(name, value)
        await send(message)

    return passed
