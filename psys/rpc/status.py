"""Errors over gRPC, both directions, in one table.

What became of a push is a field of its reply and never here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from psys.errors import (
    CheckpointCorrupt,
    CheckpointNotFound,
    ClusterError,
    ConfigError,
    Fenced,
    GenerationChanged,
    ModelError,
    NotInitialized,
    PsysError,
    ShardTimeout,
    ShardUnavailable,
)

TABLE: tuple[tuple[type[PsysError], grpc.StatusCode], ...] = (
    (ModelError, grpc.StatusCode.INVALID_ARGUMENT),
    (ConfigError, grpc.StatusCode.FAILED_PRECONDITION),
    (NotInitialized, grpc.StatusCode.OUT_OF_RANGE),
    (GenerationChanged, grpc.StatusCode.ABORTED),
    (Fenced, grpc.StatusCode.ALREADY_EXISTS),
    (ShardTimeout, grpc.StatusCode.DEADLINE_EXCEEDED),
    (ShardUnavailable, grpc.StatusCode.UNAVAILABLE),
    (CheckpointNotFound, grpc.StatusCode.NOT_FOUND),
    (CheckpointCorrupt, grpc.StatusCode.DATA_LOSS),
)

# What gRPC itself says of a broken or refused connection, or a server at its limits.
_RETRYABLE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
_BROKEN_STREAM = ("Stream removed", "RST_STREAM")
"""Details that mean a broken connection, whatever code gRPC gives them."""

DETAILS_CHARS = 2000
"""Details travel in a header of 8 KiB at most."""


@contextmanager
def errors_to_status(context: grpc.ServicerContext) -> Iterator[None]:
    """End the call with the status that stands for a PsysError raised inside."""
    try:
        yield
    except PsysError as error:
        details = str(error).encode("utf-8", "replace").decode()[:DETAILS_CHARS]
        for kind, code in TABLE:
            if isinstance(error, kind):
                context.abort(code, details)
        context.abort(grpc.StatusCode.INTERNAL, details)


def error_of(failure: grpc.RpcError, peer: str) -> PsysError:
    """Return the PsysError a failed call stands for.

    Args:
        failure: what the call raised; it has a code and details.
        peer: whom was called, for the message.
    """
    code, details = failure.code(), failure.details() or ""
    if code in _RETRYABLE or any(sign in details for sign in _BROKEN_STREAM):
        return ShardUnavailable(f"{peer} cannot be reached: {details or code.name}.")
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return ConfigError(f"{peer} refuses this task: {details}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ConfigError(
            f"{peer} does not answer this call ({details}). Give every task the same TF_CONFIG "
            "cluster, its ps in the same order, and see that nothing else listens there."
        )
    for kind, known in TABLE:
        if code is known:
            return kind(f"{peer}: {details}")
    return ClusterError(f"{peer} answered {code.name}: {details}")
