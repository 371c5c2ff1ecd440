"""Bodies of requests: so many bytes, and not too slowly."""

from __future__ import annotations

import time
from typing import Final

import anyio
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from api.problems import too_large
from customedit.config.settings import Settings

JSON_BYTES: Final = 256 * 2**10
_FORM_BYTES: Final = 64 * 2**10  # boundaries and text fields around a file
_MIN_RATE: Final = 16 * 2**10  # bytes a second that a sender keeps to, beyond the first seconds
_LINGER_S: Final = 5.0
_LINGER_BYTES: Final = 64 * 2**20


def body_limit(settings: Settings, path: str) -> int:
    """How many bytes the body of a request to ``path`` may have."""
    if path == "/v1/images":
        return settings.max_upload_bytes + _FORM_BYTES
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
