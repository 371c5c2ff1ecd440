"""Kept HTTP connections to one address, for requests that are sent often.

The standard library's client, since that of botocore takes about three times the processor time of
a small request.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import ssl
from collections import deque
from collections.abc import Mapping
from urllib.parse import urlsplit

from botocore.httpsession import create_urllib3_context, get_cert_path


class Connections:
    """Connections to ``address``; safe to use from many threads, each of which takes its own.

    address: scheme, host and port; connect_s, read_s: seconds to wait for a connection and for each
    part of an answer; most: how many are kept while nobody uses them. TLS is verified as boto3 does
    it: by ``AWS_CA_BUNDLE``, ``REQUESTS_CA_BUNDLE``, or the authorities that it brings along.
    """

    def __init__(self, address: str, *, connect_s: float, read_s: float, most: int) -> None:
        parts = urlsplit(address)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._connect_s, self._read_s, self._most = connect_s, read_s, most
        self._idle: deque[http.client.HTTPConnection] = deque()

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer, whose body is dropped. The request must bear being repeated.

        A kept connection may have been closed by the other side, which shows when it is used: then
        the request is sent once more on a new one.

        Raises:
            OSError, http.client.HTTPException: no answer came, or none that can be read.
        """
        kept = self._kept()
        if kept is not None:
            with contextlib.suppress(ConnectionError, http.client.BadStatusLine, ssl.SSLEOFError):
                return self._send(kept, method, path, headers, body)
        return self._send(self._connected(), method, path, headers, body)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> int:
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
        except BaseException:
            connection.close()
            raise
        trusted = answer.status < 300 and not answer.will_close
        if trusted and len(self._idle) < self._most:
            self._idle.append(connection)
        else:
            connection.close()
        return answer.status

    def _kept(self) -> http.client.HTTPConnection | None:
        try:
            return self._idle.pop()  # the one that was used last
        except IndexError:
            return None

    def _connected(self) -> http.client.HTTPConnection:
        if self._secure:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._connect_s, context=self._context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._connect_s)
        connection.connect()
        connection.sock.settimeout(self._read_s)
        return connection

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        given = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
        context = create_urllib3_context()
        context.check_hostname = True
        context.load_verify_locations(get_cert_path(given or True))
        return context
