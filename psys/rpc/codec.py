"""The codec: exchanges as frames, and back.

It knows nothing of streams beyond an iterator of frames; what is checked before memory is
allocated: ``psys.rpc.frames``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from psys.arrays import Array, Gradient, IndexedSlices
from psys.errors import ModelError
from psys.ps.messages import ExchangeReply, ExchangeRequest, Grant, Outcome
from psys.rpc.frames import (
    Incoming,
    Named,
    describe,
    open_message,
    read_tensors,
    skip_tensors,
    write_frames,
)
from psys.rpc.v1 import gradients_pb2, tensors_pb2

EXCHANGE = "/psys.rpc.v1.Gradients/Exchange"
"""The call whose frames these are."""

_E = TypeVar("_E", bound=enum.Enum)

IncomingRequest = Incoming[gradients_pb2.ExchangeRequestHeader]


def encode_request(request: ExchangeRequest) -> Iterator[bytes]:
    """Return the frames of a request.

    Raises:
        ModelError: if an array has a dtype that does not travel.
    """
    tensors: list[Named] = []
    for name, gradient in (request.push or {}).items():
        if isinstance(gradient, IndexedSlices):
            tensors.append((name, tensors_pb2.TENSOR_ROLE_INDICES, gradient.indices))
            tensors.append((name, tensors_pb2.TENSOR_ROLE_VALUES, gradient.values))
        else:
            tensors.append((name, tensors_pb2.TENSOR_ROLE_GRADIENT, gradient))
    for name, rows in request.pull_rows.items():
        tensors.append((name, tensors_pb2.TENSOR_ROLE_PULL, rows))
    header = gradients_pb2.ExchangeRequestHeader(
        generation=request.generation,
        task=request.task,
        member=request.member,
        sequence=request.sequence,
        base_version=request.base_version,
        has_push=request.push is not None,
        pull_dense=request.pull_dense,
        wants_grant=request.wants_grant,
        global_step=request.global_step,
        input_batches=request.input_batches,
        examples=request.examples,
        tensors=describe(tensors),
    )
    return write_frames(header, tensors)


def open_request(first: bytes, rest: Iterator[bytes]) -> IncomingRequest:
    """Return the request that begins with the frame ``first``; its bulk is still to be read.

    Raises:
        ModelError: if that is not the first frame of a request.
    """
    return open_message(first, rest, gradients_pb2.ExchangeRequestHeader, "A client")


def skip_request(incoming: IncomingRequest) -> None:
    """Let the bulk of a request pass by unread.

    Raises:
        ModelError: if it is not well formed.
    """
    skip_tensors(incoming, incoming.header.tensors, incoming.header.task or "A client")


def decode_request(incoming: IncomingRequest, limit_bytes: int) -> ExchangeRequest:
    """Read the bulk of a request; return the request.

    Raises:
        ModelError: if it is not well formed, or larger than ``limit_bytes``.
    """
    header = incoming.header
    peer = header.task or "A client"
    push: dict[str, Gradient] = {}
    pull: dict[str, Array] = {}
    indices: tuple[str, Array] | None = None
    for name, role, array in read_tensors(incoming, header.tensors, limit_bytes, peer):
        if (indices is None) is (role == tensors_pb2.TENSOR_ROLE_VALUES):
            raise ModelError(f"{peer} sent {name!r}: INDICES and VALUES come in pairs.")
        if role == tensors_pb2.TENSOR_ROLE_INDICES:
            indices = (name, _row_numbers(array, name, peer))
        elif role == tensors_pb2.TENSOR_ROLE_VALUES:
            assert indices is not None
            if indices[0] != name:
                raise ModelError(f"{peer} sent INDICES of {indices[0]!r}, VALUES of {name!r}.")
            _put(push, name, IndexedSlices(indices[1], array), peer)
            indices = None
        elif role == tensors_pb2.TENSOR_ROLE_GRADIENT:
            _put(push, name, array, peer)
        elif role == tensors_pb2.TENSOR_ROLE_PULL:
            _put(pull, name, _row_numbers(array, name, peer), peer)
        else:
            raise ModelError(f"{peer} sent {name!r} in a role ({role}) no request has.")
    if indices is not None:
        raise ModelError(f"{peer} sent {indices[0]!r}: INDICES and VALUES come in pairs.")
    if push and not header.has_push:
        raise ModelError(f"{peer} sent gradients without has_push.")
    return ExchangeRequest(
        generation=header.generation,
        task=header.task,
        member=header.member,
        sequence=header.sequence,
        base_version=header.base_version,
        push=push if header.has_push else None,
        pull_dense=header.pull_dense,
        pull_rows=pull,
        wants_grant=header.wants_grant,
        global_step=header.global_step,
        input_batches=header.input_batches,
        examples=header.examples,
    )


def _row_numbers(array: Array, name: str, peer: str) -> Array:
    if array.dtype != np.int64 or array.ndim != 1:
        raise ModelError(
            f"{peer} sent row numbers of {name!r} as {array.dtype} {array.shape}; "
            "expected int64 [n]."
        )
    return array


_V = TypeVar("_V")


def _put(into: dict[str, _V], name: str, value: _V, peer: str) -> None:
    if name in into:
        raise ModelError(f"{peer} sent {name!r} twice in one message.")
    into[name] = value


def encode_reply(reply: ExchangeReply) -> Iterator[bytes]:
    """Return the frames of a reply."""
    tensors: Sequence[Named] = [
        *((name, tensors_pb2.TENSOR_ROLE_DENSE, array) for name, array in reply.dense.items()),
        *((name, tensors_pb2.TENSOR_ROLE_ROWS, array) for name, array in reply.rows.items()),
    ]
    header = gradients_pb2.ExchangeResponseHeader(
        generation=reply.generation,
        sequence=reply.sequence,
        # Zero is UNSPECIFIED on the wire, so every value is one more than in the enum.
        outcome=reply.outcome.value + 1,  # type: ignore[arg-type]
        reason=reply.reason,
        version=reply.version,
        # A base version from the future is the sender's mistake, no reason to break its stream.
        staleness=max(reply.staleness, 0),
        global_step=reply.global_step,
        grant=reply.grant.value + 1,  # type: ignore[arg-type]
        waiting_for=reply.waiting_for,
        tensors=describe(tensors),
    )
    return write_frames(header, tensors)


def decode_reply(first: bytes, rest: Iterator[bytes], limit_bytes: int, peer: str) -> ExchangeReply:
    """Return the reply that begins with the frame ``first``.

    Raises:
        ModelError: if it is not well formed, or larger than ``limit_bytes``.
    """
    incoming = open_message(first, rest, gradients_pb2.ExchangeResponseHeader, peer)
    header = incoming.header
    dense: dict[str, Array] = {}
    rows: dict[str, Array] = {}
    parts = {tensors_pb2.TENSOR_ROLE_DENSE: dense, tensors_pb2.TENSOR_ROLE_ROWS: rows}
    for name, role, array in read_tensors(incoming, header.tensors, limit_bytes, peer):
        if role not in parts:
            raise ModelError(f"{peer} sent {name!r} in a role ({role}) no reply has.")
        _put(parts[role], name, array, peer)
    return ExchangeReply(
        generation=header.generation,
        sequence=header.sequence,
        outcome=_member(Outcome, header.outcome, peer),
        reason=header.reason,
        version=header.version,
        staleness=header.staleness,
        global_step=header.global_step,
        grant=_member(Grant, header.grant, peer),
        waiting_for=header.waiting_for,
        dense=dense,
        rows=rows,
    )


def _member(kind: type[_E], number: int, peer: str) -> _E:
    try:
        return kind(number - 1)
    except ValueError:
        raise ModelError(f"{peer} sent an unknown {kind.__name__.lower()} ({number}).") from None
