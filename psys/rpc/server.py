"""The gRPC server of a process that holds a shard: its address, its threads, its services."""

from __future__ import annotations

import errno
import hmac
import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from psys import environment
from psys.checkpoint.storage import Storage
from psys.errors import ConfigError
from psys.host import NodeHost
from psys.rpc.channel import LARGE_FRAMES, MESSAGE_LIMIT_BYTES, TOKEN_KEY
from psys.rpc.freed_memory import keep_freed_memory
from psys.rpc.handover import Handover
from psys.rpc.in_flight import IN_FLIGHT_LIMIT_BYTES, InFlight
from psys.rpc.servicers import CheckpointsServicer, ClusterServicer, add_shard_services
from psys.rpc.v1 import checkpoints_pb2_grpc, cluster_pb2_grpc

logger = logging.getLogger("psys")

OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    LARGE_FRAMES,
    # Otherwise two ps on one port both start and share the calls between them.
    ("grpc.so_reuseport", 0),
    # Clients ping every 10 s (rpc/channel.py); a stricter minimum here would cut them off.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Otherwise each stream takes in megabytes ahead of being read: the opposite of pushing back.
    ("grpc.http2.bdp_probe", 0),
)
STREAMS_PER_TASK = 4
RESERVE = 16
"""Threads beyond the listed tasks: watchers, status, health, a twin that waits."""


# Any, because grpc comes with or without types.
_Interceptor: Any = grpc.ServerInterceptor


class _TokenInterceptor(_Interceptor):  # type: ignore[misc]
    """Refuses every call but health that does not carry the job's token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def intercept_service(
        self, continuation: Callable[[Any], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        """Let a call through, or answer PERMISSION_DENIED."""
        given = dict(details.invocation_metadata or ()).get(TOKEN_KEY)
        handler = continuation(details)
        if details.method.startswith("/grpc.health.v1.Health/"):
            return handler
        if isinstance(given, str) and hmac.compare_digest(given.encode(), self._token):
            return handler

        def deny(_request: Any, context: grpc.ServicerContext) -> Any:
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                "the job's token (PSYS_JOB_TOKEN) is missing or wrong.",
            )

        if handler is None:
            return None
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(deny)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(deny)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(deny)
        return grpc.unary_unary_rpc_method_handler(deny)


class Server:
    """Serves one host's shard, and its lead if it has one, on one address."""

    def __init__(
        self,
        host: NodeHost,
        storage: Storage,
        address: str,
        tasks: int,
        token: str | None,
        in_flight_limit_bytes: int = IN_FLIGHT_LIMIT_BYTES,
    ) -> None:
        """Bind and start.

        Args:
            host: what is served.
            storage: where this process's shard files are.
            address: ``host:port`` from TF_CONFIG, the only one listened on.
            tasks: how many tasks are listed, for the size of the thread pool: a call that
                waits must never hold a thread another needs.
            token: the job's token, where there is one.
            in_flight_limit_bytes: of requests taken in at once.

        Raises:
            ConfigError: if the address cannot be bound.
        """
        _check_free(address)
        keep_freed_memory()
        threads = STREAMS_PER_TASK * tasks + RESERVE
        self._server = grpc.server(
            ThreadPoolExecutor(threads, "psys-rpc"),
            options=OPTIONS,
            interceptors=[] if token is None else [_TokenInterceptor(token)],
            # One more than there are threads would wait unseen; so it is refused, and tries again.
            maximum_concurrent_rpcs=threads,
        )
        self._handover = Handover(environment.shared_memory_place())
        add_shard_services(host, self._server, self._handover, InFlight(in_flight_limit_bytes))
        checkpoints_pb2_grpc.add_CheckpointsServicer_to_server(
            CheckpointsServicer(host, storage), self._server
        )
        if host.has_lead:
            cluster_pb2_grpc.add_ClusterServicer_to_server(ClusterServicer(host), self._server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(f"Cannot listen on {address} (TF_CONFIG): {error}.") from error
        self._server.start()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        if token is None and not _is_loopback(address):
            logger.warning(
                "%s accepts anyone who can reach it: no job token is set (PSYS_JOB_TOKEN).",
                address,
            )

    def stop(self, grace_secs: float = 0.5) -> None:
        """Stop serving; calls under way have ``grace_secs`` to end."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_secs).wait()
        self._handover.close()


def _check_free(address: str) -> None:
    """Try to bind an address, to say what is wrong in one line: gRPC would add its own.

    Raises:
        ConfigError: if it cannot be bound, or is in use in one of its forms (IPv4, IPv6).
    """
    host, _, port = address.rpartition(":")
    failures: list[OSError] = []
    try:
        forms = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        failures, forms = [error], []
    for family, kind, protocol, _, where in forms:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                # Two may bind a port that only one can listen on.
                probe.listen()
        except OSError as error:
            failures.append(error)
    in_use = [error for error in failures if error.errno == errno.EADDRINUSE]
    if not in_use and len(failures) < max(len(forms), 1):
        return
    failure = (in_use or failures)[0]
    advice = (
        "Stop what uses it, or give this task another port."
        if in_use
        else "Is it this machine's name or address, and a port it may use?"
    )
    reason = (failure.strerror or str(failure)).rstrip(".")
    raise ConfigError(f"Cannot listen on {address} (TF_CONFIG): {reason}. {advice}") from failure


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")
