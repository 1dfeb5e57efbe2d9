"""The codec: exchanges and loads as frames of a header and bulk bytes, and back.

Every length, shape and dtype of a peer is checked before memory is allocated for it. It
knows nothing of streams beyond an iterator of frames.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from psys import initializers
from psys.arrays import DTYPES, Array, Gradient, IndexedSlices, VariableSpec
from psys.errors import ModelError
from psys.ps.messages import ExchangeReply, ExchangeRequest, Grant, Outcome
from psys.ps.shard import LoadedSlice
from psys.rpc.v1 import gradients_pb2, shard_pb2, tensors_pb2

FRAME_BYTES = 1 << 20
ALIGNMENT = 8

_DTYPE_CODES = {
    np.dtype("float32"): tensors_pb2.DATA_TYPE_FLOAT32,
    np.dtype("float64"): tensors_pb2.DATA_TYPE_FLOAT64,
    np.dtype("int32"): tensors_pb2.DATA_TYPE_INT32,
    np.dtype("int64"): tensors_pb2.DATA_TYPE_INT64,
}
_DTYPES = {code: dtype for dtype, code in _DTYPE_CODES.items()}

Named = tuple[str, "tensors_pb2.TensorRole", Array]
"""A tensor about to be sent: its name, its part in the message, its elements."""


class _Frame(Protocol):
    bulk: bytes


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _describe(tensors: Iterable[Named]) -> list[tensors_pb2.Tensor]:
    return [
        tensors_pb2.Tensor(name=name, role=role, dtype=_DTYPE_CODES[array.dtype], shape=array.shape)
        for name, role, array in tensors
    ]


def _bulk(tensors: Sequence[Named]) -> Iterator[bytes]:
    """Yield the tensors' bytes in pieces of at most FRAME_BYTES; at least one piece."""
    buffer = bytearray(sum(_padded(array.nbytes) for _, _, array in tensors))
    offset = 0
    for _, _, array in tensors:
        flat = np.frombuffer(buffer, np.uint8, array.nbytes, offset)
        flat[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        offset += _padded(array.nbytes)
    if len(buffer) <= FRAME_BYTES:
        yield bytes(buffer)
        return
    view = memoryview(buffer)
    for start in range(0, len(buffer), FRAME_BYTES):
        yield bytes(view[start : start + FRAME_BYTES])


def _read_tensors(
    header: Any, first: _Frame, frames: Iterator[Any], limit_bytes: float, peer: str
) -> list[Named]:
    """Collect a message's bulk and return its tensors as views of one buffer."""
    total = 0
    layout = []
    for tensor in header.tensors:
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            raise ModelError(f"{peer} sent {tensor.name!r} with an unknown dtype {tensor.dtype}.")
        size = math.prod(tensor.shape) * dtype.itemsize
        layout.append((tensor, dtype, total, size))
        total += _padded(size)
        if total > limit_bytes:
            raise ModelError(
                f"{peer} announced {total:,} bytes or more; at most {limit_bytes:,.0f} fit here."
            )
    buffer = np.empty(total, np.uint8)
    filled = 0
    frame: Any = first
    while True:
        piece = np.frombuffer(frame.bulk, np.uint8)
        if filled + len(piece) > total:
            raise ModelError(f"{peer} sent more bytes than the {total:,} it announced.")
        buffer[filled : filled + len(piece)] = piece
        filled += len(piece)
        if filled == total:
            break
        frame = next(frames, None)
        if frame is None or frame.HasField("header" if hasattr(frame, "header") else "slice"):
            raise ModelError(f"{peer} sent {filled:,} of the {total:,} bytes it announced.")
    return [
        (
            tensor.name,
            tensor.role,
            buffer[offset : offset + size].view(dtype).reshape(tuple(tensor.shape)),
        )
        for tensor, dtype, offset, size in layout
    ]


# ---------------------------------------------------------------- exchange


def encode_request(request: ExchangeRequest) -> Iterator[gradients_pb2.ExchangeRequest]:
    """Yield the frames of a request."""
    tensors: list[Named] = []
    for name, gradient in (request.push or {}).items():
        if isinstance(gradient, IndexedSlices):
            tensors.append((name, tensors_pb2.TENSOR_ROLE_INDICES, gradient.indices))
            tensors.append((name, tensors_pb2.TENSOR_ROLE_VALUES, gradient.values))
        else:
            tensors.append((name, tensors_pb2.TENSOR_ROLE_GRADIENT, gradient))
    for name, rows in request.pull_rows.items():
        tensors.append((name, tensors_pb2.TENSOR_ROLE_PULL, rows))
    header: gradients_pb2.ExchangeRequestHeader | None = gradients_pb2.ExchangeRequestHeader(
        generation=request.generation,
        task=request.task,
        member=request.member,
        sequence=request.sequence,
        base_version=request.base_version,
        has_push=request.push is not None,
        pull_dense=request.pull_dense,
        wants_grant=request.wants_grant,
        tensors=_describe(tensors),
    )
    for piece in _bulk(tensors):
        yield gradients_pb2.ExchangeRequest(header=header, bulk=piece)
        header = None


def decode_request(
    first: gradients_pb2.ExchangeRequest,
    frames: Iterator[gradients_pb2.ExchangeRequest],
    limit_bytes: float,
) -> ExchangeRequest:
    """Return the request that begins with ``first``.

    Raises:
        ModelError: if it is not well formed, or larger than ``limit_bytes``.
    """
    header = first.header
    peer = header.task or "a client"
    push: dict[str, Gradient] = {}
    pull: dict[str, Array] = {}
    indices: tuple[str, Array] | None = None
    for name, role, array in _read_tensors(header, first, frames, limit_bytes, peer):
        if role == tensors_pb2.TENSOR_ROLE_INDICES:
            indices = (name, _row_numbers(array, name, peer))
        elif role == tensors_pb2.TENSOR_ROLE_VALUES and indices and indices[0] == name:
            push[name] = IndexedSlices(indices[1], array)
        elif role == tensors_pb2.TENSOR_ROLE_GRADIENT:
            push[name] = array
        elif role == tensors_pb2.TENSOR_ROLE_PULL:
            pull[name] = _row_numbers(array, name, peer)
        else:
            raise ModelError(f"{peer} sent {name!r} in a role ({role}) no request has.")
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
    )


def _row_numbers(array: Array, name: str, peer: str) -> Array:
    if array.dtype != np.int64 or array.ndim != 1:
        raise ModelError(
            f"{peer} sent row numbers of {name!r} as {array.dtype} {array.shape}; "
            "expected int64 [n]."
        )
    return array


def encode_reply(reply: ExchangeReply) -> Iterator[gradients_pb2.ExchangeResponse]:
    """Yield the frames of a reply."""
    tensors: list[Named] = [
        *((name, tensors_pb2.TENSOR_ROLE_DENSE, array) for name, array in reply.dense.items()),
        *((name, tensors_pb2.TENSOR_ROLE_ROWS, array) for name, array in reply.rows.items()),
    ]
    header: gradients_pb2.ExchangeResponseHeader | None = gradients_pb2.ExchangeResponseHeader(
        generation=reply.generation,
        sequence=reply.sequence,
        # Zero is UNSPECIFIED on the wire, so every value is one more than in the enum.
        outcome=reply.outcome.value + 1,  # type: ignore[arg-type]
        reason=reply.reason,
        version=reply.version,
        staleness=reply.staleness,
        global_step=reply.global_step,
        grant=reply.grant.value + 1,  # type: ignore[arg-type]
        waiting_for=reply.waiting_for,
        tensors=_describe(tensors),
    )
    for piece in _bulk(tensors):
        yield gradients_pb2.ExchangeResponse(header=header, bulk=piece)
        header = None


def decode_reply(
    first: gradients_pb2.ExchangeResponse,
    frames: Iterator[gradients_pb2.ExchangeResponse],
    limit_bytes: float,
    peer: str,
) -> ExchangeReply:
    """Return the reply that begins with ``first``.

    Raises:
        ModelError: if it is not well formed, or larger than ``limit_bytes``.
    """
    header = first.header
    dense: dict[str, Array] = {}
    rows: dict[str, Array] = {}
    for name, role, array in _read_tensors(header, first, frames, limit_bytes, peer):
        (dense if role == tensors_pb2.TENSOR_ROLE_DENSE else rows)[name] = array
    return ExchangeReply(
        generation=header.generation,
        sequence=header.sequence,
        outcome=Outcome(header.outcome - 1),
        reason=header.reason,
        version=header.version,
        staleness=header.staleness,
        global_step=header.global_step,
        grant=Grant(header.grant - 1),
        waiting_for=header.waiting_for,
        dense=dense,
        rows=rows,
    )


# ---------------------------------------------------------------- loading


def encode_load(
    generation: str, slices: Sequence[LoadedSlice]
) -> Iterator[shard_pb2.LoadSlicesRequest]:
    """Yield the frames that put ``slices`` into a shard."""
    if not slices:
        header = shard_pb2.SliceHeader(generation=generation, slices=0)
        yield shard_pb2.LoadSlicesRequest(slice=header)
    for one in slices:
        tensors: list[Named] = []
        if one.value is not None:
            tensors.append((one.spec.name, tensors_pb2.TENSOR_ROLE_VALUE, one.value))
        for slot, array in one.slots.items():
            tensors.append((slot, tensors_pb2.TENSOR_ROLE_SLOT, array))
        optimizer = one.spec.optimizer
        first: shard_pb2.SliceHeader | None = shard_pb2.SliceHeader(
            generation=generation,
            slices=len(slices),
            variable=one.spec.name,
            shape=one.spec.shape,
            dtype=_DTYPE_CODES[DTYPES[one.spec.dtype]],
            sparse=one.spec.sparse,
            initializer_json=json.dumps(one.spec.initializer.to_config()),
            optimizer_json="" if optimizer is None else json.dumps(dict(optimizer)),
            start=one.start,
            stop=one.stop,
            seed=one.seed,
            tensors=_describe(tensors),
            scalars=dict(one.scalars),
        )
        for piece in _bulk(tensors):
            yield shard_pb2.LoadSlicesRequest(slice=first, bulk=piece)
            first = None


def decode_load(
    frames: Iterator[shard_pb2.LoadSlicesRequest],
) -> tuple[str, list[LoadedSlice]]:
    """Return generation and slices of a load.

    Raises:
        ModelError: if it is not well formed.
    """
    generation, expected = "", 0
    slices: list[LoadedSlice] = []
    for frame in frames:
        header = frame.slice
        if not frame.HasField("slice"):
            raise ModelError("A load sent bytes that belong to no slice.")
        generation, expected = header.generation, header.slices
        if expected:
            slices.append(_decode_slice(header, frame, frames))
    if len(slices) != expected:
        raise ModelError(f"A load sent {len(slices)} of the {expected} slices it announced.")
    return generation, slices


def _decode_slice(
    header: shard_pb2.SliceHeader,
    frame: shard_pb2.LoadSlicesRequest,
    frames: Iterator[shard_pb2.LoadSlicesRequest],
) -> LoadedSlice:
    dtype = _DTYPES.get(header.dtype)
    if dtype is None:
        raise ModelError(f"A load names dtype {header.dtype} for {header.variable!r}.")
    spec = VariableSpec(
        name=header.variable,
        shape=tuple(header.shape),
        dtype=dtype.name,
        initializer=initializers.from_config(_json(header.initializer_json)),
        optimizer=_json(header.optimizer_json) if header.optimizer_json else None,
        sparse=header.sparse,
    )
    rows = header.stop - header.start
    expected_shape = (rows, *spec.row_shape)
    for tensor in header.tensors:
        if tuple(tensor.shape) != expected_shape or tensor.dtype != header.dtype:
            raise ModelError(
                f"A load of {spec.name!r} announces {tuple(tensor.shape)}; "
                f"expected {expected_shape} {spec.dtype}."
            )
    value: Array | None = None
    slots: dict[str, Array] = {}
    for name, role, array in _read_tensors(header, frame, frames, math.inf, "the chief"):
        # A copy of its own: the shard changes these in place for as long as it lives.
        if role == tensors_pb2.TENSOR_ROLE_VALUE:
            value = array.copy()
        else:
            slots[name] = array.copy()
    scalars: Mapping[str, float] = dict(header.scalars)
    return LoadedSlice(spec, header.start, header.stop, header.seed, value, slots, scalars)


def _json(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f"A load carries a configuration that is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise ModelError("A load carries a configuration that is not a JSON object.")
    return config
