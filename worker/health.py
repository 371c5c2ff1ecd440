"""A worker's port: is it alive, is it ready, what does it count."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

_TEXT: Final = "text/plain; charset=utf-8"


class Health:
    """Serves ``/healthz``, ``/readyz`` and ``/metrics`` from the moment it is made.

    port: 0 takes any that is free; ``port`` tells which. alive: False answers ``/healthz`` with
    503, for whoever restarts workers. ready: set it to True when jobs can be taken. trouble: why no
    jobs can be taken for now, such as a full disk; empty if they can.
    """

    def __init__(self, host: str, port: int) -> None:
        self.alive: Callable[[], bool] = lambda: True
        self.trouble: Callable[[], str] = lambda: ""
        self.ready = False
        self.registry: CollectorRegistry | None = None
        self._server = ThreadingHTTPServer((host, port), _handler(self))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health", daemon=True
        )
        self._thread.start()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, media type and body for a GET of ``path``."""
        if path == "/healthz":
            return _said(self.alive(), "alive", "the engine stands still")
        if path == "/readyz":
            trouble = self.trouble()
            good = self.ready and self.alive() and not trouble
            return _said(good, "ready", f"not ready {trouble}".rstrip())
        if path == "/metrics" and self.registry is not None:
            return 200, CONTENT_TYPE_LATEST, generate_latest(self.registry)
        return 404, _TEXT, b"not found\n"

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()


def _said(good: bool, yes: str, no: str) -> tuple[int, str, bytes]:
    return (200, _TEXT, f"{yes}\n".encode()) if good else (503, _TEXT, f"{no}\n".encode())


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, media_type, body = health.answer(self.path.split("?")[0])
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Probes come every few seconds: not worth a line each."""

    return Handler
