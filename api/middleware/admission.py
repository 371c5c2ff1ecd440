"""Who may come in, how often and with how much: decided before a byte of the body is read.

FastAPI reads bodies before it asks its dependencies; this stands in front of it, so that nobody
without a key can make the service take 20 MB. A body may have so many bytes, and not come too
slowly.
"""

from __future__ import annotations

import re
import time
from typing import Final

import anyio
from redis.exceptions import RedisError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import openai
from api.dependencies import Container
from api.problems import ProblemError, problem_response, too_large
from customedit.config import telemetry
from customedit.config.settings import Settings
from customedit.tenants.access import Allowed

PROTECTED: Final = "/v1/"
_BEARER: Final = re.compile(r"(?i:bearer) +([\x21-\x7e]{1,200})")

JSON_BYTES: Final = 256 * 2**10
_FORM_BYTES: Final = 64 * 2**10  # boundaries and text fields around a file
_MIN_RATE: Final = 16 * 2**10  # bytes a second that a sender keeps to, beyond the first seconds
_LINGER_S: Final = 5.0
_LINGER_BYTES: Final = 64 * 2**20


def body_limit(settings: Settings, path: str) -> int:
    """How many bytes the body of a request to ``path`` may have."""
    if path == "/v1/images":
        return settings.max_upload_bytes + _FORM_BYTES
    if path == openai.PATH:  # the picture and its mask
        return 2 * settings.max_upload_bytes + _FORM_BYTES
    if path == "/v1/concepts/import":
        return settings.max_import_bytes + _FORM_BYTES
    return JSON_BYTES


class LimitedBody:
    """``receive`` that ends a body over ``limit`` bytes, and one that comes too slowly.

    seconds: how long a body may take beyond a second for each 16 KiB. Time in which the service
    does not read, such as while an import waits for its turn, is not counted.
    """

    def __init__(self, receive: Receive, limit: int, seconds: float, headers: Headers) -> None:
        self.receive, self.limit = receive, limit
        self._seconds, self._waited, self._bytes, self._ended = seconds, 0.0, 0, False
        self._declared = headers.get("content-length", "0")

    def check_declared(self) -> None:
        """Refuse a body whose declared length is over the limit.

        Raises:
            ProblemError: too-large.
        """
        if not self._declared.isdigit() or int(self._declared) > self.limit:
            raise too_large(self.limit)

    async def __call__(self) -> Message:
        """The next message: ASGI.

        Raises:
            HTTPException: 408, 413. FastAPI lets this class pass, and no other.
        """
        if self._ended:  # what comes now is the end of the connection, whenever that is
            return await self.receive()
        began = time.monotonic()
        left = self._seconds + self._bytes / _MIN_RATE - self._waited
        with anyio.move_on_after(max(0.0, left)) as waiting:
            message = await self.receive()
        if waiting.cancelled_caught:
            raise HTTPException(408, headers={"Connection": "close"})
        self._waited += time.monotonic() - began
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._ended = not message.get("more_body", False)
            if self._bytes > self.limit:
                raise HTTPException(413, headers={"Connection": "close"})
        return message

    async def drain(self) -> None:
        """Read on for a little: a connection closed on unread bytes loses the answer as well."""
        left = _LINGER_BYTES
        with anyio.move_on_after(_LINGER_S):
            while left > 0 and not self._ended:
                message = await self.receive()
                left -= len(message.get("body", b""))
                self._ended = message["type"] != "http.request" or not message.get("more_body")


class AuthenticationMiddleware:
    """ASGI middleware for all below ``/v1/``: size, key and rate."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it: ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        container: Container = scope["app"].state.container
        settings, headers = container.settings, Headers(scope=scope)
        limit = body_limit(settings, scope["path"])
        body = LimitedBody(receive, limit, settings.body_timeout_seconds, headers)
        allowed: Allowed | None = None
        try:
            if scope["path"].startswith(PROTECTED):
                allowed = await _admit(container, scope, headers)
            body.check_declared()
        except ProblemError as problem:
            await _refuse(problem, scope, body, _with_rate(send, allowed))
            return
        scope["state"]["body_limit"] = limit
        caller = scope["state"].get("caller")
        with telemetry.bind(tenant=caller.tenant if caller else None):
            await self.app(scope, body, _with_rate(send, allowed))


async def _admit(container: Container, scope: Scope, headers: Headers) -> Allowed:
    """What is left of the rate of the request's key, which is put into the scope.

    Raises:
        ProblemError: there is no valid key, or its tenant has used up its rate.
    """
    text = _key_text(headers)
    address = (scope.get("client") or ("",))[0]
    container.failed_keys.check(address, text)
    try:
        admitted = await anyio.to_thread.run_sync(container.limits.admit, text)
    except RedisError as error:
        container.metrics.store_errors.labels("redis").inc()
        raise ProblemError("unavailable", "keys cannot be checked now") from error
    if admitted is None:
        container.failed_keys.failed(address)
        raise ProblemError("unauthenticated", field="Authorization", limit="a valid API key")
    key, allowed = admitted
    container.failed_keys.succeeded(text)
    scope["state"] |= {"caller": key, "allowed": allowed}
    if not allowed.ok:
        raise ProblemError(
            "rate-limited",
            limit=f"{allowed.limit} requests a minute",
            headers={"Retry-After": str(max(1, round(allowed.retry_s))), **rate_headers(allowed)},
        )
    return allowed


def _key_text(headers: Headers) -> str:
    """The key of the request.

    Raises:
        ProblemError: there is none, or two that differ.
    """
    bearer = _BEARER.fullmatch(headers.get("authorization", ""))
    texts = {text for text in (bearer and bearer[1], headers.get("x-api-key")) if text}
    if len(texts) != 1:
        raise ProblemError("unauthenticated", field="Authorization", limit="exactly one API key")
    return texts.pop()


async def _refuse(problem: ProblemError, scope: Scope, body: LimitedBody, send: Send) -> None:
    """Answer, then let the caller finish sending for a while, so that it reads the answer."""
    response = problem_response(problem, scope["path"], scope["state"]["request_id"])
    response.headers["Connection"] = "close"

    async def send_then_drain(message: Message) -> None:
        if message["type"] == "http.response.body":
            await send({**message, "more_body": True})
            await body.drain()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await send(message)

    await response(scope, body.receive, send_then_drain)


def rate_headers(allowed: Allowed) -> dict[str, str]:
    """What is left of the rate, as draft-ietf-httpapi-ratelimit-headers has it."""
    return {
        "RateLimit-Policy": f'"tenant";q={allowed.limit};w=60',
        "RateLimit": f'"tenant";r={allowed.remaining};t={max(0, round(allowed.reset_s))}',
    }


def _with_rate(send: Send, allowed: Allowed | None) -> Send:
    if allowed is None:
        return send

    async def send_with_rate(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in rate_headers(allowed).items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_rate
