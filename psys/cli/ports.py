"""Free ports for a local cluster: chosen once, and kept from everyone else while the cluster runs.

A reservation is a socket that is bound and never listens. Linux lets a server with SO_REUSEADDR
(gRPC sets it) bind and listen on the same port beside it, while every other process is refused
or, when it asks for "any port", given another: so nothing can take a role's port between the
choice and the role's start, nor while a role is being restarted. A process that insists on
exactly that port with SO_REUSEADDR can still win it; the role then fails with one line.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from types import TracebackType

LOOPBACK = "127.0.0.1"


class PortReservation:
    """Distinct free ports of this machine, held until closed."""

    def __init__(self, count: int) -> None:
        """Reserve ``count`` ports.

        Raises:
            OSError: the machine has no more free ports.
        """
        with ExitStack() as stack:
            sockets = [stack.enter_context(_bound_socket()) for _ in range(count)]
            self.ports: tuple[int, ...] = tuple(held.getsockname()[1] for held in sockets)
            self._sockets = stack.pop_all()

    def close(self) -> None:
        """Let the ports go."""
        self._sockets.close()

    def __enter__(self) -> PortReservation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _bound_socket() -> socket.socket:
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((LOOPBACK, 0))
    except OSError:
        held.close()
        raise
    return held
