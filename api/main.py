"""Serving the app: ``python -m api``, or ``uvicorn --factory api.main:app``."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.protocol import http_protocol
from customedit.config import telemetry
from customedit.config.settings import Settings
from customedit.errors import InputError

_GRACE_S = 20
_log = logging.getLogger(__name__)


def app() -> FastAPI:
    """The app of the environment, with its logs and traces set up."""
    settings = Settings.of_environment()
    telemetry.set_up_logging(settings, "api")
    telemetry.set_up_tracing(settings, "api")
    return create_app(settings)


class Server(uvicorn.Server):
    """A server that ends streams and long waits at once when it has to stop."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop taking connections, finish the requests that are being served."""
        self.stop_streams()
        super().handle_exit(sig, frame)

    def stop_streams(self) -> None:
        """Let streams and waits end."""
        container = getattr(self.config.app.state, "container", None)  # type: ignore[union-attr]
        if container is not None:
            container.stop()


def server(settings: Settings, app: FastAPI) -> Server:
    """A server of ``app``, not started yet."""
    return Server(
        uvicorn.Config(
            app,
            host=settings.api_host,
            port=settings.api_port,
            log_config=None,
            access_log=False,  # the middleware keeps its own, with ids
            server_header=False,
            date_header=True,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies,
            http=http_protocol(settings),
            timeout_graceful_shutdown=_GRACE_S,
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=32 * 2**10,
        )
    )


def main() -> int:
    """Serve until SIGTERM or SIGINT. 2: the settings are not usable, 1: the port is taken."""
    try:
        settings = Settings.of_environment()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    telemetry.set_up_logging(settings, "api")
    telemetry.set_up_tracing(settings, "api")
    serving = server(settings, create_app(settings))
    try:
        listener = serving.config.bind_socket()
    except (OSError, SystemExit):
        return 1
    _announce(listener)
    gc.collect()
    gc.freeze()  # routes and models stay until the end: no collection needs to look at them
    for number in (signal.SIGTERM, signal.SIGINT):  # the server raises them again once it is done
        signal.signal(number, lambda *_: None)
    serving.run(sockets=[listener])
    telemetry.stop_tracing()
    return 0


def _announce(listener: socket.socket) -> None:
    """Say where it listens, which with port 0 nobody knows before."""
    host, port = listener.getsockname()[:2]
    _log.info("listening on http://%s:%d", host, port, extra={"port": port})
