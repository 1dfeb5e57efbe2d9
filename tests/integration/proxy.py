"""A TCP proxy that can be cut and restored, for tests of broken connections."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Passes bytes between whoever connects to ``address`` and a server, unless it is cut."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and every new one at once."""
        with self._lock:
            self._cut = True
            for one in self._open:
                _shut(one)

    def restore(self) -> None:
        with self._lock:
            self._cut = False

    def close(self) -> None:
        self.cut()
        _shut(self._listener)
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                server = None if self._cut else _connect(self._target)
                if server is None:
                    client.close()
                    continue
                # Kept to the end: a number closed too early could be another socket's.
                self._open += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=_pass, args=ends, daemon=True).start()


def _connect(target: tuple[str, int]) -> socket.socket | None:
    try:
        return socket.create_connection(target)
    except OSError:
        return None


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _shut(sink)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is shut already
        one.shutdown(socket.SHUT_RDWR)
