"""The standard gRPC health service, asked."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from psys.rpc.channel import open_channel

CHECK_LIMIT_SECS = 3.0


def check(address: str) -> bool:
    """Return whether the server at ``address`` says it is serving."""
    channel = open_channel(address)
    try:
        response = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=CHECK_LIMIT_SECS
        )
    except grpc.RpcError:
        return False
    finally:
        channel.close()
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)
