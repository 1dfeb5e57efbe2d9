"""Channels: how a client reaches a ps, with the options that make failure quick and visible."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

TOKEN_KEY = "psys-job-token"

MESSAGE_LIMIT_BYTES = 32 << 20
"""Frames are of 1 MiB; the headers and manifests of models with very many variables are larger."""

LARGE_FRAMES = ("grpc.http2.max_frame_size", 1 << 20)
"""A message that comes in fewer pieces is put together with fewer copies: 8.5 instead of 9.4 ms of
CPU, both ends, for 6 MiB each way."""

OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    LARGE_FRAMES,
    # Peers of a cluster are never behind the user's web proxy.
    ("grpc.enable_http_proxy", 0),
    # The defaults back off to minutes; a restarted ps must be found again at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Not a back-off, whatever its name: how long one attempt to connect may take, at least.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # A host that vanished without closing its connections is noticed by these.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A process that hangs, whose host still acknowledges what it is sent: otherwise a minute.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Channels of one process must not share a broken connection's back-off.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(address: str) -> grpc.Channel:
    """Return a channel to ``host:port``; it connects when first used."""
    return grpc.insecure_channel(address, options=list(OPTIONS))


def metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Return what every call carries: the job's token, where there is one."""
    return () if token is None else ((TOKEN_KEY, token),)
