"""The codec: exchanges as frames, and back; where there is a segment, their bulk lies in it.

It knows nothing of streams beyond an iterator of frames; what is checked before memory is
allocated: ``psys.rpc.frames``. Row numbers are copied out of a segment before they are checked;
values are used in place, so the arrays of a request are good until its reply is sent, and no
longer: a shard that keeps a gradient for later copies it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from psys.arrays import Array, Gradient, IndexedSlices
from psys.errors import ModelError
from psys.ps.messages import ExchangeReply, ExchangeRequest, Grant, Outcome
from psys.rpc.frames import (
    Incoming,
    Layout,
    Named,
    bulk_bytes,
    describe,
    lay_out,
    open_message,
    read_bulk,
    skip_tensors,
    write_bulk,
    write_frames,
)
from psys.rpc.half_floats import narrow, widen
from psys.rpc.recycler import Recycler
from psys.rpc.segment import Room, Segment, TrainerSegment
from psys.rpc.v1 import gradients_pb2, tensors_pb2

EXCHANGE = "/psys.rpc.v1.Gradients/Exchange"
"""The call whose frames these are."""

MOST_NAME_CHARACTERS = 64
"""Of a task: a shard remembers every task that pushed."""

MOST_EXAMPLES = 1 << 32
"""In one batch. A shard adds them up."""

# Zero is UNSPECIFIED on the wire, so every value is one more than in the enum.
_OUTCOMES = {one.value + 1: one for one in Outcome}
_GRANTS = {one.value + 1: one for one in Grant}

_E = TypeVar("_E", bound=enum.Enum)

IncomingRequest = Incoming[gradients_pb2.ExchangeRequestHeader]


@dataclass(frozen=True)
class OutgoingRequest:
    """A request that was checked and described, and is not written yet.

    Attributes:
        header: without a word of where its bulk lies.
        tensors: its arrays, in the order of their bytes.
        bulk_bytes: their size.
    """

    header: gradients_pb2.ExchangeRequestHeader
    tensors: Sequence[Named]
    bulk_bytes: int


def describe_request(
    request: ExchangeRequest,
    push_dtype: np.dtype[Any] | None = None,
    recycler: Recycler | None = None,
) -> OutgoingRequest:
    """Check and describe a request, before anything of it is written.

    Args:
        request: the request.
        push_dtype: of the bits that float32 gradients travel as; None for as they are.
        recycler: lends memory for these bits; None for new memory.

    Raises:
        ModelError: if an array has a dtype that does not travel, or a gradient is beyond the
            range of ``push_dtype``.
    """
    tensors: list[Named] = []
    for name, gradient in (request.push or {}).items():
        if isinstance(gradient, IndexedSlices):
            tensors.append((name, tensors_pb2.TENSOR_ROLE_INDICES, gradient.indices))
            tensors.append((name, tensors_pb2.TENSOR_ROLE_VALUES, gradient.values))
        else:
            tensors.append((name, tensors_pb2.TENSOR_ROLE_GRADIENT, gradient))
    if push_dtype is not None:
        tensors = [
            (name, role, narrow(values, push_dtype, name, recycler))
            if values.dtype == np.float32 and name not in request.exact
            else (name, role, values)
            for name, role, values in tensors
        ]
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
        least_version=request.least_version,
        known_version=request.known_version,
        tensors=describe(tensors),
    )
    return OutgoingRequest(header, tensors, bulk_bytes(tensors))


def encode_request(
    request: ExchangeRequest, push_dtype: np.dtype[Any] | None = None
) -> Iterator[bytes]:
    """Return the frames of a request, its bulk in them.

    Raises:
        ModelError: as ``describe_request``.
    """
    outgoing = describe_request(request, push_dtype)
    return write_frames(outgoing.header, outgoing.tensors)


def write_request(
    outgoing: OutgoingRequest, memory: TrainerSegment | None, reply_room: Room | None
) -> Iterator[bytes]:
    """Return the frames of a request.

    Args:
        outgoing: the request.
        memory: takes its bulk, if it fits; None for frames.
        reply_room: where the reply's bulk may lie; None for frames.
    """
    header = outgoing.header
    if reply_room is not None:
        header.reply_region.CopyFrom(reply_room.region(reply_room.size))
    if memory is None or not 0 < outgoing.bulk_bytes <= memory.request.size:
        return write_frames(header, outgoing.tensors)
    write_bulk(outgoing.tensors, memory.request.bytes(outgoing.bulk_bytes))
    header.bulk_region.CopyFrom(memory.request.region(outgoing.bulk_bytes))
    return write_frames(header, ())


def open_request(first: bytes, rest: Iterator[bytes]) -> IncomingRequest:
    """Return the request that begins with the frame ``first``; its bulk is still to be read.

    Raises:
        ModelError: if that is not the first frame of a request, or says what no trainer says.
    """
    incoming = open_message(first, rest, gradients_pb2.ExchangeRequestHeader, "A client")
    header = incoming.header
    if len(header.task) > MOST_NAME_CHARACTERS or header.examples > MOST_EXAMPLES:
        raise ModelError(
            f"A client calls itself {header.task[:MOST_NAME_CHARACTERS]!r} and sent a batch of "
            f"{header.examples:,} examples: a name has at most {MOST_NAME_CHARACTERS} characters, "
            f"a batch {MOST_EXAMPLES:,} examples."
        )
    return incoming


def skip_request(incoming: IncomingRequest) -> None:
    """Let the bulk of a request pass by unread.

    Raises:
        ModelError: if it is not well formed.
    """
    if incoming.header.HasField("bulk_region"):
        return
    skip_tensors(incoming, incoming.header.tensors, incoming.header.task or "A client")


def find_reply_room(incoming: IncomingRequest, segment: Segment | None) -> Room | None:
    """Return where a request wants its reply to lie, None for frames.

    Raises:
        ModelError: if that is no part of ``segment``.
    """
    header = incoming.header
    if not header.HasField("reply_region"):
        return None
    return _room(header.reply_region, segment, header.task or "A client")


def _room(region: tensors_pb2.MemoryRegion, segment: Segment | None, peer: str) -> Room:
    if segment is None:
        raise ModelError(f"{peer} names shared memory on a stream that has none.")
    return segment.room(region, peer)


def lay_out_request(incoming: IncomingRequest, limit_bytes: int) -> Layout:
    """Return where the arrays of a request lie in its bulk, before anything is allocated.

    Raises:
        ModelError: if they are larger than ``limit_bytes``, or not well formed.
    """
    header = incoming.header
    return lay_out(header.tensors, limit_bytes, header.task or "A client")


def decode_request(
    incoming: IncomingRequest,
    layout: Layout,
    segment: Segment | None = None,
    recycler: Recycler | None = None,
) -> ExchangeRequest:
    """Read the bulk of a request; return the request.

    Args:
        incoming: the request.
        layout: of its arrays.
        segment: what its stream shares with the client, None for nothing.
        recycler: lends memory for what comes in frames or is widened; None for new memory.

    Raises:
        ModelError: if it is not well formed.
    """
    header = incoming.header
    peer = header.task or "A client"
    push: dict[str, Gradient] = {}
    pull: dict[str, Array] = {}
    indices: tuple[str, Array] | None = None
    bulk = _bulk(incoming, layout, segment, recycler, peer)
    for name, role, array in layout.arrays(bulk):
        if (indices is None) is (role == tensors_pb2.TENSOR_ROLE_VALUES):
            raise ModelError(f"{peer} sent {name!r}: INDICES and VALUES come in pairs.")
        if name in (pull if role == tensors_pb2.TENSOR_ROLE_PULL else push):
            raise ModelError(f"{peer} sent {name!r} twice in one message.")
        if role == tensors_pb2.TENSOR_ROLE_INDICES:
            indices = (name, _row_numbers(array, name, peer))
        elif role == tensors_pb2.TENSOR_ROLE_VALUES:
            assert indices is not None
            if indices[0] != name:
                raise ModelError(f"{peer} sent INDICES of {indices[0]!r}, VALUES of {name!r}.")
            push[name] = IndexedSlices(indices[1], widen(array, recycler))
            indices = None
        elif role == tensors_pb2.TENSOR_ROLE_GRADIENT:
            push[name] = widen(array, recycler)
        elif role == tensors_pb2.TENSOR_ROLE_PULL:
            pull[name] = _row_numbers(array, name, peer)
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
        least_version=header.least_version,
        known_version=header.known_version if header.HasField("known_version") else None,
    )


def _bulk(
    incoming: IncomingRequest,
    layout: Layout,
    segment: Segment | None,
    recycler: Recycler | None,
    peer: str,
) -> Array:
    """Return a request's bulk: what its frames bring, or the part of the segment it names."""
    if not incoming.header.HasField("bulk_region"):
        bulk = np.empty(layout.size, np.uint8) if recycler is None else recycler.lend(layout.size)
        read_bulk(incoming, bulk, peer)
        return bulk
    room = _room(incoming.header.bulk_region, segment, peer)
    if room.size != layout.size or len(incoming.piece):
        raise ModelError(
            f"{peer} announced {layout.size:,} bytes; it put {room.size:,} into shared memory and "
            f"{len(incoming.piece):,} into a frame."
        )
    return room.bytes(room.size)


def _row_numbers(array: Array, name: str, peer: str) -> Array:
    if array.dtype != np.int64 or array.ndim != 1:
        raise ModelError(
            f"{peer} sent row numbers of {name!r} as {array.dtype} {array.shape}; "
            "expected int64 [n]."
        )
    # Whatever the client does to a segment, what was checked is what is used.
    return array.copy()


def encode_reply(
    reply: ExchangeReply,
    room: Room | None = None,
    offer: gradients_pb2.SharedMemoryOffer | None = None,
) -> Iterator[bytes]:
    """Return the frames of a reply.

    Args:
        reply: the reply.
        room: takes its bulk, if it fits; None for frames.
        offer: how the client gets a segment, in the first reply of a stream.
    """
    tensors: Sequence[Named] = [
        *[(name, tensors_pb2.TENSOR_ROLE_DENSE, array) for name, array in reply.dense.items()],
        *[(name, tensors_pb2.TENSOR_ROLE_ROWS, array) for name, array in reply.rows.items()],
    ]
    header = gradients_pb2.ExchangeResponseHeader(
        generation=reply.generation,
        sequence=reply.sequence,
        # Zero is UNSPECIFIED on the wire; see _OUTCOMES.
        outcome=reply.outcome.value + 1,  # type: ignore[arg-type]
        reason=reply.reason,
        version=reply.version,
        # A base version from the future is the sender's mistake, no reason to break its stream.
        staleness=max(reply.staleness, 0),
        global_step=reply.global_step,
        grant=reply.grant.value + 1,  # type: ignore[arg-type]
        waiting_for=reply.waiting_for,
        tensors=describe(tensors),
        shared_memory=offer,
    )
    size = bulk_bytes(tensors)
    if room is None or not 0 < size <= room.size:
        return write_frames(header, tensors)
    write_bulk(tensors, room.bytes(size))
    header.bulk_region.CopyFrom(room.region(size))
    return write_frames(header, ())


IncomingReply = Incoming[gradients_pb2.ExchangeResponseHeader]


def open_reply(first: bytes, rest: Iterator[bytes], peer: str) -> IncomingReply:
    """Return the reply that begins with the frame ``first``; its bulk is still to be read.

    Raises:
        ModelError: if that is not the first frame of a reply.
    """
    return open_message(first, rest, gradients_pb2.ExchangeResponseHeader, peer)


def decode_reply(
    incoming: IncomingReply,
    limit_bytes: int,
    peer: str,
    memory: TrainerSegment | None = None,
    reply_room: Room | None = None,
) -> ExchangeReply:
    """Read the bulk of a reply; return the reply, its arrays only to be read.

    Args:
        incoming: the reply.
        limit_bytes: refuse more than this before anything is allocated.
        peer: who sent it, for messages.
        memory: the stream's segment, None for none. A reply that lies in it is not copied out:
            its arrays are views, and what they show does not change while they are held.
        reply_room: where in it the reply was asked for.

    Raises:
        ModelError: if it is not well formed, or too large.
    """
    header = incoming.header
    layout = lay_out(header.tensors, limit_bytes, peer)
    if header.HasField("bulk_region"):
        if memory is None or len(incoming.piece):
            raise ModelError(f"{peer} put its reply where it was not asked for.")
        bulk = memory.read_reply(header.bulk_region, reply_room, peer)
        if len(bulk) != layout.size:
            raise ModelError(
                f"{peer} announced {layout.size:,} bytes and put {len(bulk):,} into shared memory."
            )
    else:
        bulk = np.empty(layout.size, np.uint8)
        read_bulk(incoming, bulk, peer)
    bulk.flags.writeable = False
    dense: dict[str, Array] = {}
    rows: dict[str, Array] = {}
    parts = {tensors_pb2.TENSOR_ROLE_DENSE: dense, tensors_pb2.TENSOR_ROLE_ROWS: rows}
    for name, role, array in layout.arrays(bulk):
        if role not in parts:
            raise ModelError(f"{peer} sent {name!r} in a role ({role}) no reply has.")
        part = parts[role]
        if name in part:
            raise ModelError(f"{peer} sent {name!r} twice in one message.")
        part[name] = array
    return ExchangeReply(
        generation=header.generation,
        sequence=header.sequence,
        outcome=_member(_OUTCOMES, "outcome", header.outcome, peer),
        reason=header.reason,
        version=header.version,
        staleness=header.staleness,
        global_step=header.global_step,
        grant=_member(_GRANTS, "grant", header.grant, peer),
        waiting_for=header.waiting_for,
        dense=dense,
        rows=rows,
    )


def _member(kind: Mapping[int, _E], what: str, number: int, peer: str) -> _E:
    if number not in kind:
        raise ModelError(f"{peer} sent an unknown {what} ({number}).")
    return kind[number]
