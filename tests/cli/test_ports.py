from __future__ import annotations

import socket
from concurrent import futures

import grpc
import pytest

from psys.cli.ports import LOOPBACK, PortReservation


def test_ports_are_distinct_also_between_reservations() -> None:
    with PortReservation(20) as first, PortReservation(20) as second:
        assert len({*first.ports, *second.ports}) == 40


def test_a_grpc_server_can_serve_on_a_port_that_is_still_reserved() -> None:
    with PortReservation(1) as reservation:
        server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        port = reservation.ports[0]
        assert server.add_insecure_port(f"{LOOPBACK}:{port}") == port
        server.start()
        try:
            with grpc.insecure_channel(f"{LOOPBACK}:{port}") as channel:
                grpc.channel_ready_future(channel).result(timeout=10)
        finally:
            server.stop(None).wait()


def test_nobody_else_gets_a_reserved_port_by_asking_plainly_for_it() -> None:
    with (
        PortReservation(1) as reservation,
        socket.socket() as other,
        pytest.raises(OSError, match="in use"),
    ):
        other.bind((LOOPBACK, reservation.ports[0]))
    with socket.socket() as other:
        other.bind((LOOPBACK, reservation.ports[0]))
