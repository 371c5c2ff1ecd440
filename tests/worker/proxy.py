"""A TCP proxy that can be told to fail: connections are cut and new ones refused."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Forwards a port of its own to ``target`` (host, port) on the same machine."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target, self._open = target, True
        self._pairs: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def fail(self) -> None:
        """Cut every connection and refuse new ones, until ``restore``."""
        with self._lock:
            self._open = False
            pairs, self._pairs = self._pairs, set()
        for one in pairs:
            self._shut(one)
        self.cut += len(pairs) // 2

    def restore(self) -> None:
        """Work again."""
        with self._lock:
            self._open = True

    def close(self) -> None:
        """End it."""
        self.fail()
        self._listener.close()

    @staticmethod
    def _shut(one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            with self._lock:
                let = self._open
                if let:
                    self._pairs |= {client, server}
            if not let:
                self._shut(client)
                self._shut(server)
                continue
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=[a, b], daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        with self._lock:
            self._pairs -= {source, sink}
        self._shut(source)
        self._shut(sink)
