"""The web page: files of the package ``api.page``, read once, sent with a policy of their own.

They need no key: the page signs in as every other client does, and uses
the REST API alone. They are no part of the API, so OpenAPI does not know them.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
from dataclasses import dataclass
from importlib import resources
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.dependencies import Container, in_thread
from api.problems import ProblemError
from customedit.storage.store import Storage, StorageError

INDEX: Final = "index.html"
_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """A file of the page. etag: quoted, of its contents; packed: compressed by gzip."""

    body: bytes
    packed: bytes
    media_type: str
    etag: str

    @property
    def packed_etag(self) -> str:
        """The etag of what is sent compressed."""
        return f'{self.etag[:-1]}-gzip"'


def files() -> dict[str, File]:
    """All files of the page by name."""
    loaded = {}
    for entry in resources.files("api").joinpath("page").iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in _MEDIA_TYPES:
            body = entry.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            loaded[entry.name] = File(
                body, gzip.compress(body, mtime=0), _MEDIA_TYPES[suffix], etag
            )
    return loaded


def install(app: FastAPI) -> None:
    """Let ``app`` serve the page at ``/``, its other files below ``/page/``."""
    pages = Pages(files())
    app.router.routes += [Route("/", pages), Route("/page/{name}", pages)]


class Pages:
    """ASGI app that sends the page's files; it answers GET and HEAD."""

    def __init__(self, files: dict[str, File]) -> None:
        self.files = files
        self._pictures: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a file, or nothing if the browser has it: ASGI.

        Raises:
            ProblemError: another method, or no such file.
        """
        scope["route"] = self  # its name in the metrics
        if scope["method"] not in ("GET", "HEAD"):
            raise ProblemError("method-not-allowed", headers={"Allow": "GET, HEAD"})
        file = self.files.get(scope["path_params"].get("name", INDEX))
        if file is None:
            raise ProblemError("not-found", "the page has no such file", field="name")
        asked = Headers(scope=scope)
        packed = accepts_gzip(asked.get("accept-encoding", ""))
        headers = {
            "ETag": file.packed_etag if packed else file.etag,
            "Vary": "Accept-Encoding",
            "Cache-Control": "no-cache",  # stored, but validated each time
            "Content-Security-Policy": policy(await self._picture_origin(scope)),
        }
        if matches(asked.get("if-none-match", ""), headers["ETag"]):
            await Response(status_code=304, headers=headers)(scope, receive, send)
            return
        if packed:
            headers["Content-Encoding"] = "gzip"
        body = file.packed if packed else file.body
        await Response(body, 200, headers, file.media_type)(scope, receive, send)

    @property
    def path(self) -> str:
        """The route's name in the metrics."""
        return "/page"

    async def _picture_origin(self, scope: Scope) -> str:
        """Where pictures come from; found once, since signing may have to fetch credentials."""
        if self._pictures is None:
            container: Container = scope["app"].state.container
            try:
                self._pictures = await in_thread(picture_origin, container.storage)
            except StorageError as error:
                _log.error("the page cannot show pictures yet: %s", error)
                return ""
        return self._pictures


def picture_origin(storage: Storage) -> str:
    """The origin of presigned addresses: with Amazon's S3 it holds the bucket's name.

    Raises:
        StorageError: there are no credentials to sign with.
    """
    parts = urlsplit(storage.presign_get("origin"))
    return f"{parts.scheme}://{parts.netloc}"


def policy(pictures: str) -> str:
    """The page's Content-Security-Policy; ``pictures``: the origin that pictures come from."""
    images = f"'self' blob: data: {pictures}".strip()
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src {images}; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the caller takes gzip; ``gzip;q=0`` refuses it."""
    for part in accept_encoding.lower().split(","):
        name, _, quality = part.replace(" ", "").partition(";q=")
        if name == "gzip":
            return not quality or quality.strip("0.") != ""
    return False


def matches(if_none_match: str, etag: str) -> bool:
    """Whether ``If-None-Match`` names ``etag``; weak ones count, as RFC 9110 has it for GET."""
    names = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return etag in names or "*" in names
