"""What every request passes first and every answer last: ids, headers, the log, the figures.

Plain ASGI, so that streams pass through untouched. Whatever the rooms behind let fall is caught
here: logged with its trace, told to the caller as a problem without one.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Refused, answer
from customedit.config import telemetry

_log = logging.getLogger("api.access")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Figures:
    """The API's metrics, in a registry of their own so that several apps can live in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "customedit_http_requests",
            "Requests by route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "customedit_http_seconds",
            "Time to the end of the answer, in seconds; event streams are left out.",
            ["method", "route"],
            registry=self.registry,
        )
        self.open = Gauge(
            "customedit_http_open", "Requests that are being served.", registry=self.registry
        )
        self.notifications_failed = Counter(
            "customedit_notifications_failed",
            "Notifications of workers that could not be sent; they look by themselves.",
            registry=self.registry,
        )


class Edge:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self.app, self.figures = app, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request: ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = _request_id(Headers(scope=scope).get("x-request-id"))
        passed = _Passed(send, state["request_id"])
        began = time.perf_counter()
        self.figures.open.inc()
        try:
            await self._serve(scope, receive, passed)
        finally:
            self.figures.open.dec()
            self._note(scope, passed, time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, passed: _Passed) -> None:
        try:
            with (
                telemetry.bind(request_id=scope["state"]["request_id"]),
                telemetry.span(f"{scope['method']} {_kind(scope['path'])}", _parent(scope)),
            ):
                await self.app(scope, receive, passed)
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"], extra=_facts(scope))
            if passed.ended:
                return
            if passed.status is not None:  # the answer has begun: cut it off, so that it shows
                raise
            problem = answer(Refused("internal"), scope["path"], scope["state"]["request_id"])
            await problem(scope, receive, passed)

    def _note(self, scope: Scope, passed: _Passed, seconds: float) -> None:
        route = _route(scope)
        status = passed.status or 499
        self.figures.requests.labels(scope["method"], route, str(status)).inc()
        if not passed.stream:
            self.figures.seconds.labels(scope["method"], route).observe(seconds)
        quiet = not scope["path"].startswith("/v1/") and status < 400
        _log.log(
            logging.DEBUG if quiet else logging.INFO,
            "%s %s %d",
            scope["method"],
            scope["path"],
            status,
            extra={**_facts(scope), "status": status, "route": route, "ms": round(seconds * 1e3)},
        )


class _Passed:
    """``send`` that adds headers and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.send, self.request_id = send, request_id
        self.status: int | None = None
        self.stream = self.ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if "access-control-allow-origin" in headers:  # a page elsewhere is to have it
                headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            headers["X-Request-Id"] = self.request_id
            self.stream = headers.get("content-type", "").startswith("text/event-stream")
        await self.send(message)
        self.ended |= message["type"] == "http.response.body" and not message.get("more_body")


def _request_id(given: str | None) -> str:
    """The caller's id if it is a plain word, or a fresh one: it ends up in logs."""
    return given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _facts(scope: Scope) -> dict[str, Any]:
    state = scope["state"]
    caller = state.get("caller")
    facts = {"request_id": state["request_id"]}
    if caller is not None:
        facts |= {"tenant": caller.tenant, "api_key": caller.id}
    return facts


def _kind(path: str) -> str:
    """The first parts of a path: ``/v1/jobs``; ids would make each span's name another."""
    return "/".join(path.split("/")[:3])[:100]


def _parent(scope: Scope) -> str | None:
    """The caller's trace, if it sent one that is well formed."""
    given = Headers(scope=scope).get("traceparent", "")
    return given if _TRACEPARENT.fullmatch(given) else None


def _route(scope: Scope) -> str:
    """The route's pattern, so that ids do not make a figure each; unknown paths are one."""
    return getattr(scope.get("route"), "path", None) or "unknown"
