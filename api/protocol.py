"""HTTP/1.1 connections: how many, of one address and in all, and how slow a client may be.

uvicorn waits for a request's head for as long as it takes, which a client that sends a byte a
minute can use to hold every connection there is.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.problem_types import TYPES
from api.quotas import ConnectionShares
from customedit.config.settings import Settings

_BUSY: Final = TYPES["unavailable"]


def http_protocol(settings: Settings) -> type[H11Protocol]:
    """Uvicorn's protocol with the limits of ``settings``."""

    class LimitedProtocol(_LimitedProtocol):
        max_connections = settings.api_connections
        shares = ConnectionShares(settings.api_connections_per_address, settings.trusted_proxies)
        head_seconds = settings.head_timeout_seconds
        write_seconds = settings.body_timeout_seconds

    return LimitedProtocol


class _LimitedProtocol(H11Protocol):
    """Ends connections over the limit, heads that come too slowly, and clients that do not read."""

    max_connections: int
    shares: ConnectionShares
    _counted: str | None = None
    head_seconds: float
    write_seconds: float
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        connection: Any = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            # asyncio sets it for sockets of its own alone. Without it the second part of each
            # answer waits for the client's delayed acknowledgement, 40 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        if len(self.connections) > self.max_connections:
            self._refuse("too many connections are open")
        elif not self.shares.take(address):
            self._refuse("too many connections of your address are open")
        else:
            self._counted = address
            self._expect_head()

    def _refuse(self, reason: str) -> None:
        self.transport.write(_busy(reason))
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:  # a part of a head
            self._expect_head()
        else:
            self._head_timer = _cancelled(self._head_timer)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is not h11.IDLE:  # the next request was in the buffer, whole
            self._head_timer = _cancelled(self._head_timer)
        elif self.conn.trailing_data[0]:  # a part of it
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer = _cancelled(self._head_timer)
        self._write_timer = _cancelled(self._write_timer)
        if self._counted is not None:
            self.shares.release(self._counted)
            self._counted = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._write_timer = _cancelled(self._write_timer)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also if its client does not read the last answer."""
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.abort)


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """No timer, after ``timer`` was cancelled."""
    if timer is not None:
        timer.cancel()
    return None


def _busy(reason: str) -> bytes:
    problem = {"type": _BUSY.uri, "title": _BUSY.title, "status": 503}
    body = json.dumps(problem | {"detail": reason}).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
        f"Retry-After: 5\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
