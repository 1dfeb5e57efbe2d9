"""Frames: any arrays survive; nothing a peer announces is believed before it is checked."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from psys.errors import ModelError
from psys.rpc.frames import (
    FRAME_BYTES,
    HEADER_LIMIT_BYTES,
    MOST_FIELDS,
    Incoming,
    Named,
    _dtype_and_size,
    describe,
    memory_bytes,
    open_message,
    read_tensors,
    skip_tensors,
    write_frames,
)
from psys.rpc.v1 import gradients_pb2, tensors_pb2

Header = gradients_pb2.ExchangeRequestHeader
GRADIENT = tensors_pb2.TENSOR_ROLE_GRADIENT
FLOAT32 = tensors_pb2.DATA_TYPE_FLOAT32
LIMIT = 1 << 30


def write(*arrays: Any) -> list[bytes]:
    tensors: list[Named] = [(f"v{i}", GRADIENT, array) for i, array in enumerate(arrays)]
    return list(write_frames(Header(task="chief", tensors=describe(tensors)), tensors))


def opened(frames: list[bytes]) -> Incoming[Header]:
    rest = iter(frames)
    return open_message(next(rest), rest, Header, "chief")


def read(frames: list[bytes], limit_bytes: int = LIMIT) -> list[Any]:
    incoming = opened(frames)
    tensors = read_tensors(incoming, incoming.header.tensors, limit_bytes, "chief")
    assert list(incoming.rest) == []
    return [array for _, _, array in tensors]


def take(incoming: Incoming[Header]) -> list[Named]:
    return read_tensors(incoming, incoming.header.tensors, memory_bytes(), "chief")


def skip(incoming: Incoming[Header]) -> None:
    skip_tensors(incoming, incoming.header.tensors, "chief")


def announce(*shapes: tuple[int, ...], dtype: Any = FLOAT32) -> Header:
    return Header(tensors=[tensors_pb2.Tensor(name="v", dtype=dtype, shape=one) for one in shapes])


def stock(header: Header | None, bulk: bytes) -> bytes:
    """Return a frame as any protobuf runtime writes it."""
    return gradients_pb2.ExchangeRequest(header=header, bulk=bulk).SerializeToString()


ARRAYS = st.one_of(
    *(
        hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
        for dtype in ("float32", "float64", "int32", "int64")
    )
)


@given(st.lists(ARRAYS, max_size=6))
def test_any_arrays_survive(arrays: list[Any]) -> None:
    found = read(write(*arrays))
    assert len(found) == len(arrays)
    for before, after in zip(arrays, found, strict=True):
        assert before.tobytes() == after.tobytes()
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
        assert after.flags.writeable
        assert after.flags.aligned


@given(st.lists(st.integers(0, 3 * FRAME_BYTES // 4 + 5), max_size=5), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_frames_are_full_but_the_last_and_none_is_empty(sizes: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    arrays = [generator.integers(0, 100, size, np.int32) for size in sizes]
    frames = write(*arrays)
    bulks = [len(gradients_pb2.ExchangeRequest.FromString(frame).bulk) for frame in frames]
    if len(bulks) > 1:
        assert bulks.pop(0) == 0  # the header alone: its receiver may let the rest wait
        assert bulks[-1]
    assert all(size == FRAME_BYTES for size in bulks[:-1])
    for before, after in zip(arrays, read(frames), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("size", [FRAME_BYTES - 8, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1])
def test_the_edge_of_a_frame(size: int) -> None:
    array = np.arange(size // 4, dtype=np.int32)
    frames = write(array, array[:1])
    assert [len(one) <= FRAME_BYTES + 200 for one in frames] == [True] * len(frames)
    np.testing.assert_array_equal(read(frames)[0], array)


def test_a_frame_is_an_ordinary_protobuf_message() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    (frame,) = write(array)
    message = gradients_pb2.ExchangeRequest.FromString(frame)
    assert message.header.task == "chief"
    assert message.header.tensors[0].shape == [2, 3]
    assert message.bulk == array.tobytes()
    np.testing.assert_array_equal(read([message.SerializeToString()])[0], array)


def test_a_stock_client_may_send_the_header_alone_and_pieces_of_any_size() -> None:
    array = np.arange(10, dtype=np.float32)
    header, data = announce((10,)), array.tobytes()
    frames = [stock(header, b""), stock(None, data[:3]), stock(None, data[3:])]
    np.testing.assert_array_equal(read(frames)[0], array)


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = bytes([20 << 3 & 0x7F | 0x80, 20 >> 4, 5])  # field 20, a number
    fixed = bytes([3 << 3 | 5]) + bytes(4) + bytes([4 << 3 | 1]) + bytes(8)
    text = bytes([5 << 3 | 2, 2]) + b"hi"
    array = np.arange(4, dtype=np.int64)
    (frame,) = write(array)
    np.testing.assert_array_equal(read([later + fixed + text + frame + text + later])[0], array)


def test_bulk_may_come_before_the_header() -> None:
    header = gradients_pb2.ExchangeRequest(header=announce((2,))).SerializeToString()
    bulk = gradients_pb2.ExchangeRequest(bulk=bytes(8)).SerializeToString()
    assert read([bulk + header])[0].tolist() == [0, 0]


# ---------------------------------------------------------------- what is refused

ABSURD = [
    (2**62,),
    (2**31, 2**31),
    (2**64 - 1,),
    (2**63, 2),
    (0, 2**62),
    (0, 2**64 - 1),
    (2**40, 0, 2**40),
    (1,) * 33,
    (2**61 // 4 + 1,) * 2,
]


@pytest.mark.parametrize("shape", ABSURD, ids=str)
@pytest.mark.parametrize("use", [take, skip])
def test_an_absurd_shape_is_refused_before_memory_is_allocated(
    shape: tuple[int, ...], use: Callable[[Incoming[Header]], object]
) -> None:
    incoming = opened([stock(announce(shape), b"")])
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="chief"):
            use(incoming)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_shape_of_many_axes_is_refused_without_their_product() -> None:
    incoming = opened([stock(announce((2**63,) * 60_000), b"")])
    begun = time.monotonic()
    with pytest.raises(ModelError, match="absurd"):
        take(incoming)
    assert time.monotonic() - begun < 3.0  # the product took more than 20


@pytest.mark.parametrize(
    "wrong", [announce((2**62,)), announce((1,) * 33), announce((1,), dtype=77)]
)
def test_what_is_refused_is_not_remembered_and_refused_again_by_name(wrong: Header) -> None:
    take(opened(write(np.zeros(3, np.float32))))
    known = _dtype_and_size.cache_info().currsize
    for _ in range(2):
        with pytest.raises(ModelError, match=r"^chief .*'v'") as caught:
            take(opened([stock(wrong, b"")]))
        assert caught.value.__context__ is None
    assert _dtype_and_size.cache_info().currsize == known


def of_bytes(size: int) -> Header:
    header = Header(generation="g" * (size - 10))
    header.generation += "g" * (size - header.ByteSize())
    assert header.ByteSize() == size
    return header


def of_fields(number: int, name: str) -> Header:
    return Header(tensors=[tensors_pb2.Tensor(name=name)] * number)


class Unparsed:
    """A kind of header that must not be parsed."""

    @staticmethod
    def FromString(data: bytes) -> Header:  # noqa: N802
        pytest.fail(f"{len(data):,} bytes were parsed")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: of_bytes(HEADER_LIMIT_BYTES + 1), "8,388,609 bytes; at most 8,388,608"),
        (lambda: of_fields(MOST_FIELDS + 1, "v"), "more than 65,536 arrays"),
        (lambda: of_fields(MOST_FIELDS + 1, ""), "more than 65,536 arrays"),
    ],
    ids=["bytes", "arrays", "the smallest fields there are"],
)
def test_a_header_that_is_too_large_is_refused_before_it_is_parsed(
    make: Callable[[], Header], reason: str
) -> None:
    unparsed: Any = Unparsed
    with pytest.raises(ModelError, match=f"chief .* {reason}"):
        open_message(stock(make(), b""), iter(()), unparsed, "chief")


def test_the_largest_headers_are_taken() -> None:
    most = of_fields(MOST_FIELDS, "v")
    assert most.ByteSize() > 2 * MOST_FIELDS  # or its fields were not even counted
    for header in (most, of_bytes(HEADER_LIMIT_BYTES)):
        assert opened([stock(header, b"")]).header == header


def test_more_than_the_limit_is_refused_before_memory_is_allocated() -> None:
    frames = [stock(announce((1000,), (1 << 28,), (1 << 28,)), b"")]
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="at most 5,000 fit here"):
            read(frames, limit_bytes=5000)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_limit_itself_is_allowed() -> None:
    frames = write(np.ones(100, np.float64))
    assert read(frames, limit_bytes=800)[0].sum() == 100
    with pytest.raises(ModelError, match="at most 799"):
        read(frames, limit_bytes=799)


def broken(frames: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    extra = stock(None, b"x" * 8)
    yield "fewer bytes", frames[:-1]
    yield "a header too early", [*frames[:-1], frames[0]]
    yield "an empty frame", [frames[0], stock(None, b""), *frames[1:]]
    yield "more bytes in one frame", [frames[0], frames[1] + extra]
    yield "more bytes than announced", [stock(announce((1,)), bytes(9))]
    yield "bytes without a header", frames[1:]
    yield "no protobuf", [b"\xff" * 40]
    yield "a length beyond the end", [bytes([15 << 3 | 2, 100]) + b"short"]
    yield "a number without an end", [b"\x80"]
    yield "a number too long", [b"\xff" * 10 + b"\x01"]
    yield "a group", [bytes([1 << 3 | 3])]
    yield "a header that is none", [bytes([1 << 3 | 2, 2]) + b"\xff\xff"]
    yield "two headers", [frames[0] + stock(announce((1,)), b"")]
    yield "an unknown dtype", [stock(announce((1,), dtype=77), bytes(8))]
    yield "no dtype", [stock(announce((1,), dtype=0), bytes(8))]


BROKEN = dict(broken(write(np.zeros(FRAME_BYTES // 4 + 10, np.float32))))


@pytest.mark.parametrize("name", BROKEN)
def test_a_message_that_is_not_well_formed_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"chief|Tensor"):
        read(BROKEN[name])
    if name != "more bytes in one frame":
        with pytest.raises(ModelError):
            skip(opened(BROKEN[name]))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_understood(data: bytes) -> None:
    with contextlib.suppress(ModelError):
        read([data])


@given(st.data())
def test_a_damaged_message_is_refused_or_understood(data: st.DataObject) -> None:
    (frame,) = write(np.arange(7, dtype=np.float32), np.ones((2, 2)))
    damaged = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelError):
        read([bytes(damaged)], limit_bytes=1 << 20)


def test_skip_leaves_the_next_message_on_the_stream() -> None:
    large, small = np.zeros(FRAME_BYTES, np.float32), np.ones(3, np.float32)
    frames = iter([*write(large), *write(small)])
    first = open_message(next(frames), frames, Header, "chief")
    skip(first)
    second = open_message(next(frames), frames, Header, "chief")
    ((_, _, array),) = read_tensors(second, second.header.tensors, LIMIT, "chief")
    np.testing.assert_array_equal(array, small)


@pytest.mark.parametrize("dtype", ["float16", "bool", "uint8", ">f4", "complex64"])
def test_a_dtype_no_variable_has_is_not_sent(dtype: str) -> None:
    with pytest.raises(ModelError, match="'v0': expected a dtype of"):
        write(np.zeros(3, dtype))
