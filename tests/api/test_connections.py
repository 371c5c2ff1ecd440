"""Slow clients, wrong keys and connections without end, over real sockets."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from api.problems import ProblemError
from api.quotas import ConnectionShares, FailedKeys
from customedit.config.settings import Settings

from .. import web
from .conftest import Running, png, wait_for

Start = Callable[..., Running]
HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@contextmanager
def connected(api: Running) -> Iterator[socket.socket]:
    url = httpx.URL(api.url)
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    data = b""
    with_reset = False
    while not with_reset:
        try:
            some = connection.recv(65536)
        except ConnectionResetError:
            with_reset = True
        else:
            if not some:
                break
            data += some
    return data


def one_answer(connection: socket.socket) -> bytes:
    """A whole answer of ``/healthz``: its head and its body may come apart."""
    data = b""
    while not data.endswith(b"}"):
        some = connection.recv(65536)
        assert some, data
        data += some
    return data


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", HEAD + b"GET /he"])
def test_a_head_that_does_not_come_is_not_waited_for(
    start: Start, settings: Settings, sent: bytes
) -> None:
    api = start(settings, head_timeout_seconds=0.3)
    with connected(api) as connection:
        connection.sendall(sent)
        told = rest(connection)
    assert told.count(b"HTTP/1.1 200") == sent.count(HEAD)
    assert web.get(f"{api.url}/healthz").status_code == 200


def test_a_head_byte_by_byte_has_the_same_deadline(start: Start, settings: Settings) -> None:
    api = start(settings, head_timeout_seconds=0.5)
    with connected(api) as connection, pytest.raises((ConnectionError, TimeoutError)):
        for byte in HEAD * 100:  # for 20 seconds and more, if nobody minds
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
            connection.setblocking(False)
            try:
                if connection.recv(1) == b"":
                    raise ConnectionResetError
            except BlockingIOError:
                connection.settimeout(20)


def test_a_connection_that_is_used_outlives_the_deadline_of_heads(
    start: Start, settings: Settings
) -> None:
    api = start(settings, head_timeout_seconds=0.2)
    with web.Client(base_url=api.url) as client:
        for _ in range(3):
            assert client.get("/healthz").status_code == 200
            time.sleep(0.3)
        assert len(api.server.server_state.connections) == 1


@pytest.mark.parametrize("path", ["/v1/edits", "/v1/images", "/v1/concepts/import"])
def test_a_body_that_does_not_come_is_not_waited_for(
    start: Start, settings: Settings, path: str
) -> None:
    api = start(settings, body_timeout_seconds=0.3)
    kind = "application/json" if path == "/v1/edits" else "multipart/form-data; boundary=b"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key()}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: 1000\r\n\r\n--b\r\n"
    )
    with connected(api) as connection:
        connection.sendall(head.encode())
        told = rest(connection)
    first, _, body = told.partition(b"\r\n\r\n")
    assert b" 408 " in first.splitlines()[0] and b"connection: close" in first.lower()
    assert json.loads(body)["type"] == "/problems/request-timeout"


def test_bodies_that_come_steadily_may_take_longer(start: Start, settings: Settings) -> None:
    api = start(settings, body_timeout_seconds=0.5)
    picture = png(size=(64, 64)) + bytes(40_000)  # what stands behind a PNG's end is not read

    form = httpx.Request("POST", api.url, files={"file": ("a.png", picture, "image/png")})
    body, media_type = form.read(), form.headers["Content-Type"]

    def slowly() -> Iterator[bytes]:
        for k in range(0, len(body), 4096):
            time.sleep(0.1)
            yield body[k : k + 4096]

    headers = {"Content-Type": media_type}
    answer = api.client().post("/v1/images", content=slowly(), headers=headers)
    assert answer.status_code == 201, answer.text


def test_connections_over_the_limit_are_refused(start: Start, settings: Settings) -> None:
    api = start(settings, api_connections=3)
    wait_for(lambda: not api.server.server_state.connections)  # that of the start's own look
    with connected(api) as first, connected(api), connected(api):
        first.sendall(HEAD)
        assert b" 200 " in one_answer(first)
        with connected(api) as more:
            told = rest(more)
        assert told.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 5" in told
        assert json.loads(told.partition(b"\r\n\r\n")[2])["type"] == "/problems/unavailable"
        first.sendall(HEAD)
        assert b" 200 " in one_answer(first)
    wait_for(lambda: not api.server.server_state.connections)
    assert web.get(f"{api.url}/healthz").status_code == 200


def test_one_address_has_a_share_of_the_connections(start: Start, settings: Settings) -> None:
    api = start(settings, api_connections=5, api_connections_per_address=2)
    port = httpx.URL(api.url).port or 0
    wait_for(lambda: not api.server.server_state.connections)
    with connected(api) as first, connected(api):
        first.sendall(HEAD)
        assert b" 200 " in one_answer(first)
        with connected(api) as more:
            told = rest(more)
        assert told.startswith(b"HTTP/1.1 503 ") and b"of your address" in told
        other = ("127.0.0.2", 0)  # beside it another address is served
        with socket.create_connection(("127.0.0.1", port), 20, source_address=other) as neighbour:
            neighbour.sendall(HEAD)
            assert b" 200 " in one_answer(neighbour)
    wait_for(lambda: not api.server.server_state.connections)
    with connected(api) as first, connected(api) as second:  # what was closed counts no more
        for connection in (first, second):
            connection.sendall(HEAD)
            assert b" 200 " in one_answer(connection)


def test_a_trusted_proxy_has_no_share(start: Start, settings: Settings) -> None:
    api = start(
        settings, api_connections=4, api_connections_per_address=1, trusted_proxies="127.0.0.0/8"
    )
    wait_for(lambda: not api.server.server_state.connections)
    with connected(api) as first, connected(api) as second:
        for connection in (first, second):
            connection.sendall(HEAD)
            assert b" 200 " in one_answer(connection)


def test_shares_of_ipv6_are_by_network() -> None:
    shares = ConnectionShares(1, "10.0.0.0/8,2001:db8:ffff::/48")
    assert shares.take("2001:db8::1") and not shares.take("2001:db8::2")
    assert shares.take("2001:db8:0:1::1")
    for free in ("10.1.2.3", "10.1.2.3", "2001:db8:ffff::1", "2001:db8:ffff::1", "", ""):
        assert shares.take(free)
        shares.release(free)
    assert shares.take("::ffff:192.0.2.1") and not shares.take("192.0.2.1")
    shares.release("192.0.2.1")
    assert shares.take("192.0.2.1")


def test_a_client_that_reads_no_answer_is_let_go(start: Start, settings: Settings) -> None:
    api = start(settings, body_timeout_seconds=0.3)
    with connected(api) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(200):  # more than all buffers between hold
            try:
                deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
            except OSError:
                break
        wait_for(lambda: not api.server.server_state.connections)


def test_answers_are_sent_without_delay(api: Running) -> None:
    with connected(api) as connection:
        connection.sendall(HEAD)
        assert b" 200 " in connection.recv(65536)
        (protocol,) = api.server.server_state.connections
        inner = protocol.transport.get_extra_info("socket")
        assert inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_wrong_keys_from_one_address_are_limited(
    start: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = start(settings, failed_keys_per_minute=3)
    right = api.client("anna")
    assert right.get("/v1/limits").status_code == 200
    wrong = {"Authorization": f"Bearer {api.key('bert')[:-1]}x"}
    statuses = [web.get(f"{api.url}/v1/limits", headers=wrong).status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    asked: list[str] = []
    monkeypatch.setattr(api.container.keys, "verify", asked.append)
    answer = web.get(f"{api.url}/v1/limits", headers=wrong)
    assert answer.json()["type"] == "/problems/too-many-failed-keys" and not asked
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    monkeypatch.undo()
    # Behind a proxy others share the address: keys that were right before still are.
    assert right.get("/v1/limits").status_code == 200
    assert web.get(f"{api.url}/healthz").status_code == 200


def test_the_limit_is_by_network_and_by_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("api.quotas.time.monotonic", lambda: now[0])
    keys = FailedKeys(2)
    for address in ("2001:db8::1", "2001:db8::2"):
        keys.check(address, "k")
        keys.failed(address)
    for address in ("2001:db8::3", "2001:db8::1"):
        with pytest.raises(ProblemError):
            keys.check(address, "k")
    for address in ("2001:db8:0:1::1", "::ffff:192.0.2.1", "192.0.2.1", ""):
        keys.check(address, "k")
    for address in ("::ffff:192.0.2.1", "192.0.2.1"):
        keys.failed(address)
    with pytest.raises(ProblemError):
        keys.check("192.0.2.1", "k")
    now[0] = 61.0
    keys.check("192.0.2.1", "k")


def test_proxies_that_are_trusted_name_the_client(start: Start, settings: Settings) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    for proxies, last in (("", 429), ("127.0.0.1", 401)):
        api = start(settings, failed_keys_per_minute=1, trusted_proxies=proxies)
        for address, status in (("192.0.2.1", 401), ("192.0.2.2", last)):
            headers = wrong | {"X-Forwarded-For": address}
            answer = web.get(f"{api.url}/v1/limits", headers=headers)
            assert answer.status_code == status
