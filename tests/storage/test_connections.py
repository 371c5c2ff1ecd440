"""Kept connections to a server that closes them, refuses, or is another than it should be."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from customedit.storage.connections import Connections


class Server(ThreadingHTTPServer):
    """Answers PUT with ``status``. bodies: those that came; ports: of the clients, one a request.

    silent: it closes connections after an answer without saying so.
    """

    daemon_threads = True
    status, silent = 200, False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []
        self.ports: list[int] = []
        self.closed = threading.Event()

    def connections(
        self, host: str = "127.0.0.1", scheme: str = "http", most: int = 4
    ) -> Connections:
        address = f"{scheme}://{host}:{self.server_port}"
        return Connections(address, connect_s=5, read_s=5, most=most)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_PUT(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.server.ports.append(self.client_address[1])
        self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
        self.close_connection = self.server.silent

    def finish(self) -> None:
        super().finish()
        self.request.close()
        self.server.closed.set()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def put(connections: Connections, body: bytes) -> int:
    return connections.send("PUT", "/a", {"content-length": str(len(body))}, body)


def test_a_connection_is_used_again(server: Server) -> None:
    connections = server.connections()
    assert [put(connections, b"%d" % n) for n in range(3)] == [200] * 3
    assert server.bodies == [b"0", b"1", b"2"] and len(set(server.ports)) == 1


def test_a_connection_that_was_closed_meanwhile_is_replaced(server: Server) -> None:
    connections, server.silent = server.connections(), True
    for n in range(3):
        server.closed.clear()
        assert put(connections, b"%d" % n) == 200
        assert server.closed.wait(10)
    assert server.bodies == [b"0", b"1", b"2"] and len(set(server.ports)) == 3


def test_the_connection_of_an_error_is_not_kept(server: Server) -> None:
    connections, server.status = server.connections(), 503
    assert [put(connections, b"x") for _ in range(2)] == [503, 503]
    assert len(set(server.ports)) == 2


def test_many_threads_have_connections_of_their_own_and_few_are_kept(server: Server) -> None:
    connections = server.connections(most=2)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: put(connections, b"%d" % n), range(40)))
    assert found == [200] * 40 and len(connections._idle) <= 2
    assert sorted(server.bodies) == sorted(b"%d" % n for n in range(40))


def test_where_nobody_listens_it_says_so(server: Server) -> None:
    connections = Connections("http://127.0.0.1:9", connect_s=1, read_s=1, most=1)
    with pytest.raises(OSError, match="refused"):
        put(connections, b"x")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_the_certificate_is_checked_as_boto3_does(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, key = tmp_path / "made.pem", tmp_path / "key.pem"
    asked = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -batch"
    name = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    command = f"openssl {asked} {name} -keyout {key} -out {made}"
    subprocess.run(command.split(), check=True, capture_output=True)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(made, key)
    server.socket = served.wrap_socket(server.socket, server_side=True)

    with pytest.raises(ssl.SSLCertVerificationError):  # made by nobody that is known
        put(server.connections("localhost", "https"), b"x")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(made))
    assert put(server.connections("localhost", "https"), b"x") == 200
    with pytest.raises(ssl.SSLCertVerificationError):  # of another name
        put(server.connections("127.0.0.1", "https"), b"x")
    assert server.bodies == [b"x"]
