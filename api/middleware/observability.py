"""What every request passes first and every answer last: ids, headers, the log, the metrics.

Plain ASGI, so that streams pass through untouched. An exception that nothing else caught is caught
here: logged with its trace, answered with a problem without one. A label of a metric has few
values: none that a caller can invent.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import ProblemError, problem_response
from customedit.config import telemetry
from customedit.storage.metrics import StoreMetrics

_log = logging.getLogger("api.access")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_REACH: Final = b"cross-origin-resource-policy"
_HEADERS: Final = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    _REACH: b"same-origin",
    b"cache-control": b"no-store",
}
"""Of each answer that does not set them itself; as ASGI has them, names in small letters."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def method_label(method: str) -> str:
    """The method, or ``other`` for what is not one of HTTP's usual ones."""
    return method if method in METHODS else "other"


class Metrics(StoreMetrics):
    """The API's metrics, in a registry of their own so that several apps can live in a process."""

    def __init__(self) -> None:
        super().__init__()
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
            "Submissions of which no worker was notified; the reconciler does it.",
            registry=self.registry,
        )


class ObservabilityMiddleware:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request: ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = _request_id(Headers(scope=scope).get("x-request-id"))
        answer = _ObservedSend(send, state["request_id"])
        began = time.perf_counter()
        self.metrics.open.inc()
        try:
            await self._serve(scope, receive, answer)
        finally:
            self.metrics.open.dec()
            self._record(scope, answer, time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, answer: _ObservedSend) -> None:
        name = f"{method_label(scope['method'])} {_area(scope['path'])}"
        try:
            with (
                telemetry.bind(request_id=scope["state"]["request_id"]),
                telemetry.span(name, _parent(scope)),
            ):
                await self.app(scope, receive, answer)
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"], extra=_facts(scope))
            if answer.ended:
                return
            if answer.status is not None:  # the answer has begun: cut it off, so that it shows
                raise
            problem = ProblemError("internal")
            response = problem_response(problem, scope["path"], scope["state"]["request_id"])
            await response(scope, receive, answer)

    def _record(self, scope: Scope, answer: _ObservedSend, seconds: float) -> None:
        method, route, status = method_label(scope["method"]), _route(scope), answer.status or 499
        self.metrics.requests.labels(method, route, str(status)).inc()
        if not answer.stream:
            self.metrics.seconds.labels(method, route).observe(seconds)
        quiet = not scope["path"].startswith("/v1/") and status < 400
        _log.log(
            logging.DEBUG if quiet else logging.INFO,
            "%s %s %d",
            scope["method"],
            scope["path"],
            status,
            extra={**_facts(scope), "status": status, "route": route, "ms": round(seconds * 1e3)},
        )


class _ObservedSend:
    """``send`` that adds headers and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.send, self.request_id = send, request_id
        self.status: int | None = None
        self.stream = self.ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
            there = dict(given)
            fixed = {name: value for name, value in _HEADERS.items() if name not in there}
            if b"access-control-allow-origin" in there:  # a page elsewhere is to have it
                fixed[_REACH] = b"cross-origin"
                given = [pair for pair in given if pair[0] != _REACH]
            fixed[b"x-request-id"] = self.request_id.encode()
            message = {**message, "headers": [*given, *fixed.items()]}
            self.stream = there.get(b"content-type", b"").startswith(b"text/event-stream")
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


_RESOURCES: Final = (
    *("images", "uploads", "concepts", "edits", "batches", "jobs", "presets", "limits"),
    "webhooks",
)
_AREAS: Final = frozenset(f"/v1/{name}" for name in _RESOURCES)


def _area(path: str) -> str:
    """``/v1/jobs`` of all paths below it: what a caller invents is no name of a span."""
    area = "/".join(path.split("/")[:3])
    return area if area in _AREAS else "other"


def _parent(scope: Scope) -> str | None:
    """The caller's trace, if it sent one that is well formed."""
    given = Headers(scope=scope).get("traceparent", "")
    return given if _TRACEPARENT.fullmatch(given) else None


def _route(scope: Scope) -> str:
    """The route's pattern, so that ids do not make a metric each; unknown paths are one."""
    return getattr(scope.get("route"), "path", None) or "unknown"
