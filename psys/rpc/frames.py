"""Frames: arrays on a stream, as a header that describes them and a run of their bytes.

A frame is an ordinary protobuf message (header = 1, bulk = 15), so any gRPC client can take
part; but the bulk is written and read beside the protobuf runtime, which would copy it twice
each way. Every length, shape and dtype of a peer is checked before memory is allocated for
it. Nothing here knows what a message means.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from psys.arrays import DTYPES, Array
from psys.errors import ModelError
from psys.rpc.half_floats import BFLOAT16, FLOAT16
from psys.rpc.v1 import tensors_pb2

FRAME_BYTES = 1 << 20
ALIGNMENT = 8
MAX_AXES = 32
"""numpy's own limit before 2.0."""
ABSURD_BYTES = 1 << 62
"""No array of numpy's is larger, not even one with an axis of size zero."""

HEADER_LIMIT_BYTES = 8 << 20
"""Of one message. MOST_FIELDS arrays with names of a hundred characters fit."""
MOST_FIELDS = 1 << 16
"""Of one header, its tensors among them: each takes memory, even one that is empty."""

# Protobuf's encoding: https://protobuf.dev/programming-guides/encoding
_VARINT, _LENGTH = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}
_MOST_VARINT_BYTES = 10
_HEADER_TAG = 1 << 3 | _LENGTH
_BULK_TAG = 15 << 3 | _LENGTH

_DTYPE_CODES: dict[Any, Any] = {
    np.dtype("float32"): tensors_pb2.DATA_TYPE_FLOAT32,
    np.dtype("float64"): tensors_pb2.DATA_TYPE_FLOAT64,
    np.dtype("int32"): tensors_pb2.DATA_TYPE_INT32,
    np.dtype("int64"): tensors_pb2.DATA_TYPE_INT64,
    FLOAT16: tensors_pb2.DATA_TYPE_FLOAT16,
    BFLOAT16: tensors_pb2.DATA_TYPE_BFLOAT16,
}
_DTYPES: dict[int, np.dtype[Any]] = {code: dtype for dtype, code in _DTYPE_CODES.items()}

Named = tuple[str, Any, Array]
"""A tensor: its name, its part in the message (a TensorRole), its elements."""

H = TypeVar("H", bound=Message)


def memory_bytes() -> int:
    """Return how much memory this machine has: what no message can exceed."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def dtype_code(dtype: np.dtype[Any], name: str) -> Any:
    """Return a dtype's number on the wire.

    Raises:
        ModelError: if no variable has that dtype; the message names ``name``.
    """
    code = _DTYPE_CODES.get(dtype)
    if code is None:
        raise ModelError(f"{name!r}: expected a dtype of {sorted(DTYPES)}, got {dtype}.")
    return code


def dtype_of(code: int, name: str, peer: str) -> np.dtype[Any]:
    """Return the dtype of a number on the wire.

    Raises:
        ModelError: if there is none; the message names ``peer`` and ``name``.
    """
    dtype = _DTYPES.get(code)
    if dtype is None:
        raise ModelError(f"{peer} sent {name!r} with an unknown dtype ({code}).")
    return dtype


# ---------------------------------------------------------------- writing


def describe(tensors: Iterable[Named]) -> list[tensors_pb2.Tensor]:
    """Return what a header says of its tensors, only to be read: a header copies it.

    Raises:
        ModelError: if one has a dtype that does not travel.
    """
    return [_described(name, role, array.dtype, array.shape) for name, role, array in tensors]


@functools.lru_cache(1024)
def _described(
    name: str, role: Any, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> tensors_pb2.Tensor:
    # Kept, because most of a message's tensors are those of the one before.
    return tensors_pb2.Tensor(name=name, role=role, dtype=dtype_code(dtype, name), shape=shape)


def write_frames(header: Message, tensors: Sequence[Named]) -> Iterator[bytes]:
    """Yield a message's frames: the header with the first piece, then the other pieces.

    The header of a message of several pieces goes ahead: its receiver may let the rest wait.
    """
    encoded = header.SerializeToString()
    prefix = bytes([_HEADER_TAG]) + _varint(len(encoded)) + encoded
    if bulk_bytes(tensors) > FRAME_BYTES:
        yield prefix
        prefix = b""
    for size, parts in _pieces(tensors):
        yield b"".join((prefix, bytes([_BULK_TAG]), _varint(size), *parts))
        prefix = b""


def _pieces(tensors: Sequence[Named]) -> Iterator[tuple[int, list[Any]]]:
    """Yield size and parts of each piece: FRAME_BYTES, but for the last; at least one piece."""
    parts: list[Any] = []
    size = 0
    full = False
    for _, _, array in tensors:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        padding = -len(flat) % ALIGNMENT
        while size + len(flat) >= FRAME_BYTES:
            room = FRAME_BYTES - size
            yield FRAME_BYTES, [*parts, flat[:room]]
            parts, size, flat, full = [], 0, flat[room:], True
        if len(flat):
            parts += (flat, bytes(padding))
            size += len(flat) + padding
    if parts or not full:
        yield size, parts


@functools.lru_cache(1024)
def _varint(number: int) -> bytes:
    # Kept, because headers have few lengths.
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Incoming(Generic[H]):
    """A message whose first frame is here.

    Attributes:
        header: of the message.
        piece: the first of its bulk.
        rest: the stream's later frames; reading the message takes those that are its own.
    """

    header: H
    piece: memoryview
    rest: Iterator[bytes]


def open_message(first: bytes, rest: Iterator[bytes], kind: type[H], peer: str) -> Incoming[H]:
    """Return the message that begins with the frame ``first``.

    Raises:
        ModelError: if that is not the first frame of a message, or its header is too large.
    """
    header, piece = _split(first, peer)
    if header is None:
        raise ModelError(f"{peer} sent bytes that belong to no message: a header comes first.")
    if len(header) > HEADER_LIMIT_BYTES:
        raise ModelError(
            f"{peer} sent a header of {len(header):,} bytes; at most {HEADER_LIMIT_BYTES:,} are "
            "taken."
        )
    # No field has fewer than two bytes, so that most headers need not be looked through.
    if len(header) > 2 * MOST_FIELDS:
        for number, _ in enumerate(_fields(header, peer)):
            if number == MOST_FIELDS:
                raise ModelError(
                    f"{peer} sent a header of more than {MOST_FIELDS:,} arrays and other fields."
                )
    try:
        return Incoming(kind.FromString(bytes(header)), piece, rest)
    except DecodeError as error:
        raise ModelError(f"{peer} sent a header that is not a {kind.__name__}.") from error


@dataclass(frozen=True)
class Layout:
    """Where each tensor of a message lies in its bulk; checked, nothing allocated yet.

    Attributes:
        size: of the bulk, in bytes.
        places: name, role, dtype, shape, and the bytes ``[start, stop)`` of each tensor.
    """

    size: int
    places: Sequence[tuple[str, Any, np.dtype[Any], tuple[int, ...], int, int]]

    def arrays(self, bulk: Array) -> list[Named]:
        """Return the tensors as views of a bulk, which has ``[size]`` bytes."""
        return [
            (name, role, np.ndarray(shape, dtype, bulk, start))
            for name, role, dtype, shape, start, _ in self.places
        ]


def lay_out(tensors: Sequence[Any], limit_bytes: int, peer: str) -> Layout:
    """Return where tensors lie that a peer described in a header.

    Raises:
        ModelError: if they are too large together, or one has an unknown dtype or an absurd shape.
    """
    places = []
    total = 0
    for tensor in tensors:
        name, code, shape = tensor.name, tensor.dtype, tuple(tensor.shape)
        try:
            known = _dtype_and_size(code, shape)
        except ModelError:
            known = None
        if known is None:  # asked once more, to say of what and of whom
            known = (dtype := dtype_of(code, name, peer)), check_shape(shape, dtype, name, peer)
        dtype, size = known
        places.append((name, tensor.role, dtype, shape, total, total + size))
        total += size + -size % ALIGNMENT
        if total > limit_bytes:
            raise ModelError(
                f"{peer} announced {total:,} bytes or more; at most {limit_bytes:,} fit here."
            )
    return Layout(total, places)


@functools.lru_cache(1024)
def _dtype_and_size(code: int, shape: tuple[int, ...]) -> tuple[np.dtype[Any], int]:
    # Kept, because most of a message's arrays are like those of the one before. What is refused is
    # not, so that no peer makes this keep more than MAX_AXES numbers for each.
    dtype = dtype_of(code, "an array", "A peer")
    return dtype, check_shape(shape, dtype, "an array", "A peer")


def bulk_bytes(tensors: Iterable[Named]) -> int:
    """Return the size of the bulk of a message with these tensors."""
    total = 0
    for _, _, array in tensors:
        size = array.nbytes
        total += size + -size % ALIGNMENT
    return total


def write_bulk(tensors: Iterable[Named], bulk: Array) -> None:
    """Copy tensors into a bulk of ``bulk_bytes``."""
    at = 0
    for _, _, array in tensors:
        size = array.nbytes
        np.ndarray(array.shape, array.dtype, bulk, at)[...] = array
        at += size + -size % ALIGNMENT


def read_bulk(incoming: Incoming[Any], bulk: Array, peer: str) -> None:
    """Collect a message's pieces into ``bulk``, which has as many bytes as were announced.

    Raises:
        ModelError: if it has more or fewer bytes.
    """
    filled = 0
    for piece in _own_pieces(incoming, len(bulk), peer):
        bulk[filled : filled + len(piece)] = piece
        filled += len(piece)


def read_tensors(
    incoming: Incoming[Any], tensors: Sequence[Any], limit_bytes: int, peer: str
) -> list[Named]:
    """Collect a message's bulk; return its tensors, as writable views of one new buffer.

    Args:
        incoming: the message.
        tensors: what its header says of them.
        limit_bytes: refuse more than this before anything is allocated.
        peer: who sent it, for messages.

    Raises:
        ModelError: if it is too large, of an unknown dtype, or has more or fewer bytes than
            announced.
    """
    layout = lay_out(tensors, limit_bytes, peer)
    bulk = np.empty(layout.size, np.uint8)
    read_bulk(incoming, bulk, peer)
    return layout.arrays(bulk)


def skip_tensors(incoming: Incoming[Any], tensors: Sequence[Any], peer: str) -> None:
    """Let a message's bulk pass by unread.

    Raises:
        ModelError: as ``read_tensors``, but for the limit.
    """
    layout = lay_out(tensors, sys.maxsize, peer)
    for _ in _own_pieces(incoming, layout.size, peer):
        pass


def check_shape(shape: tuple[int, ...], dtype: np.dtype[Any], name: str, peer: str) -> int:
    """Return the size in bytes of an array a peer announced.

    Raises:
        ModelError: if numpy could not have such an array, even an empty one.
    """
    # First the number of axes: the product of a hundred thousand of them takes a minute.
    if len(shape) <= MAX_AXES:
        size = math.prod(shape) * dtype.itemsize
        if 0 < size <= ABSURD_BYTES:
            return size
        if size == 0 and math.prod(n or 1 for n in shape) * dtype.itemsize <= ABSURD_BYTES:
            return 0
    raise ModelError(f"{peer} announced {name!r} with the absurd shape {list(shape)[:8]}.")


def _own_pieces(incoming: Incoming[Any], total: int, peer: str) -> Iterator[memoryview]:
    """Yield the pieces of a bulk of ``total`` bytes, exactly."""
    piece = incoming.piece
    filled = 0
    while True:
        filled += len(piece)
        if filled > total:
            raise ModelError(f"{peer} sent more bytes than the {total:,} it announced.")
        yield piece
        if filled == total:
            return
        following = next(incoming.rest, None)
        header, piece = (None, memoryview(b"")) if following is None else _split(following, peer)
        # Without the check for progress, empty frames would hold this thread for ever.
        if header is not None or not len(piece):
            raise ModelError(f"{peer} sent {filled:,} of the {total:,} bytes it announced.")


def _split(frame: bytes, peer: str) -> tuple[memoryview | None, memoryview]:
    """Return header (None if there is none) and bulk of a frame, without copying either."""
    view = memoryview(frame)
    found: dict[int, memoryview] = {}
    for tag, start, stop in _fields(view, peer):
        if tag in found:
            raise ModelError(f"{peer} sent a frame that is not one of this protocol.")
        # Other fields are a later version's, to be passed over.
        if tag in (_HEADER_TAG, _BULK_TAG):
            found[tag] = view[start:stop]
    return found.get(_HEADER_TAG), found.get(_BULK_TAG, view[:0])


def _fields(view: memoryview, peer: str) -> Iterator[tuple[int, int, int]]:
    """Yield tag, start and stop of each field of an encoded message."""
    at, end = 0, len(view)
    size: int | None
    while at < end:
        tag, at = _read_varint(view, at, peer)
        if tag & 7 == _LENGTH:
            size, at = _read_varint(view, at, peer)
        elif tag & 7 == _VARINT:
            size, (_, at) = 0, _read_varint(view, at, peer)
        else:
            size = _FIXED_BYTES.get(tag & 7)
        if size is None or size > end - at:
            raise ModelError(f"{peer} sent a frame that is not one of this protocol.")
        yield tag, at, at + size
        at += size


def _read_varint(view: memoryview, at: int, peer: str) -> tuple[int, int]:
    """Return the number at ``at``, and where it ends."""
    number = 0
    for place, byte in enumerate(view[at : at + _MOST_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise ModelError(f"{peer} sent a frame that is not one of this protocol.")
