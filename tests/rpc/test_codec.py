"""The codec of exchanges: every request and reply survives; what is not well formed is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from psys.arrays import IndexedSlices
from psys.errors import ModelError
from psys.ps.messages import ExchangeReply, ExchangeRequest, Grant, Outcome
from psys.rpc import codec
from psys.rpc.v1 import gradients_pb2, tensors_pb2

LIMIT = 1 << 20
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
NUMBERS = st.integers(0, 2**64 - 1)
FLOATS = hnp.arrays(
    st.sampled_from(["float32", "float64"]), hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)
)
ROWS = hnp.arrays(np.int64, st.integers(0, 5).map(lambda n: (n,)))
SLICES = st.integers(0, 4).flatmap(
    lambda n: st.builds(
        IndexedSlices,
        hnp.arrays(np.int64, (n,)),
        hnp.arrays("float32", st.tuples(st.just(n), st.integers(1, 3))),
    )
)
REQUESTS = st.builds(
    ExchangeRequest,
    generation=NAMES,
    task=NAMES,
    member=NUMBERS,
    sequence=NUMBERS,
    base_version=NUMBERS,
    push=st.none() | st.dictionaries(NAMES, FLOATS | SLICES, max_size=4),
    pull_dense=st.booleans(),
    pull_rows=st.dictionaries(NAMES, ROWS, max_size=3),
    wants_grant=st.booleans(),
    known_version=st.none() | NUMBERS,
)
REPLIES = st.builds(
    ExchangeReply,
    generation=NAMES | st.just(""),
    sequence=NUMBERS,
    outcome=st.sampled_from(Outcome),
    reason=NAMES | st.just(""),
    version=NUMBERS,
    staleness=NUMBERS,
    global_step=NUMBERS,
    grant=st.sampled_from(Grant),
    waiting_for=NAMES | st.just(""),
    dense=st.dictionaries(NAMES, FLOATS, max_size=4),
    rows=st.dictionaries(NAMES, FLOATS, max_size=3),
)


def plain(value: Any) -> Any:
    """Return something that compares by content, dtype and shape."""
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape, value.tobytes()
    if isinstance(value, IndexedSlices):
        return plain(value.indices), plain(value.values)
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return value


def decode(frames: list[bytes]) -> ExchangeRequest:
    rest = iter(frames)
    incoming = codec.open_request(next(rest), rest)
    return codec.decode_request(incoming, codec.lay_out_request(incoming, LIMIT))


def decode_reply(frames: Iterator[bytes]) -> ExchangeReply:
    return codec.decode_reply(codec.open_reply(next(frames), frames, "ps:0"), LIMIT, "ps:0")


@given(REQUESTS)
def test_any_request_survives(request: ExchangeRequest) -> None:
    found = decode(list(codec.encode_request(request)))
    assert plain(vars(found)) == plain(vars(request))


@given(REPLIES)
def test_any_reply_survives(reply: ExchangeReply) -> None:
    found = decode_reply(codec.encode_reply(reply))
    assert plain(vars(found)) == plain(vars(reply))


def test_no_push_and_an_empty_push_are_told_apart() -> None:
    request = ExchangeRequest("g", "chief", 1, 1, 0, {}, False, {}, False)
    assert decode(list(codec.encode_request(request))).push == {}


def test_a_base_version_from_the_future_does_not_break_the_stream() -> None:
    frames = codec.encode_reply(ExchangeReply("g", 1, Outcome.APPLIED, staleness=-5))
    assert decode_reply(frames).staleness == 0


# ---------------------------------------------------------------- roles

R = tensors_pb2.TensorRole
DTYPES = tensors_pb2.DataType
FOUR = (DTYPES.DATA_TYPE_INT64, (4,), 32)
VALUES = (DTYPES.DATA_TYPE_FLOAT32, (4, 1), 16)


def message(*tensors: tuple[str, Any, tuple[Any, tuple[int, ...], int]], **header: Any) -> bytes:
    """Return a frame as a stock client would write it."""
    described = [
        tensors_pb2.Tensor(name=name, role=role, dtype=dtype, shape=shape)
        for name, role, (dtype, shape, _) in tensors
    ]
    fields = {"task": "worker:3", "has_push": True, **header}
    return gradients_pb2.ExchangeRequest(
        header=gradients_pb2.ExchangeRequestHeader(tensors=described, **fields),
        bulk=bytes(sum(size for _, _, (_, _, size) in tensors)),
    ).SerializeToString()


ODD = {
    "no role": message(("v", R.TENSOR_ROLE_UNSPECIFIED, VALUES)),
    "unknown role": message(("v", 99, VALUES)),
    "a reply's role": message(("v", R.TENSOR_ROLE_DENSE, VALUES)),
    "a load's role": message(("v", R.TENSOR_ROLE_SLOT, VALUES)),
    "values alone": message(("v", R.TENSOR_ROLE_VALUES, VALUES)),
    "indices alone": message(("v", R.TENSOR_ROLE_INDICES, FOUR)),
    "indices, then a pull": message(
        ("v", R.TENSOR_ROLE_INDICES, FOUR), ("v", R.TENSOR_ROLE_PULL, FOUR)
    ),
    "indices of another": message(
        ("v", R.TENSOR_ROLE_INDICES, FOUR), ("w", R.TENSOR_ROLE_VALUES, VALUES)
    ),
    "indices of the wrong dtype": message(
        ("v", R.TENSOR_ROLE_INDICES, (DTYPES.DATA_TYPE_INT32, (4,), 16)),
        ("v", R.TENSOR_ROLE_VALUES, VALUES),
    ),
    "indices of the wrong rank": message(
        ("v", R.TENSOR_ROLE_INDICES, (DTYPES.DATA_TYPE_INT64, (2, 2), 32)),
        ("v", R.TENSOR_ROLE_VALUES, VALUES),
    ),
    "fewer values than indices": message(
        ("v", R.TENSOR_ROLE_INDICES, FOUR),
        ("v", R.TENSOR_ROLE_VALUES, (DTYPES.DATA_TYPE_FLOAT32, (3,), 16)),
    ),
    "a scalar for values": message(
        ("v", R.TENSOR_ROLE_INDICES, FOUR),
        ("v", R.TENSOR_ROLE_VALUES, (DTYPES.DATA_TYPE_FLOAT32, (), 8)),
    ),
    "a pull of floats": message(("v", R.TENSOR_ROLE_PULL, VALUES)),
    "a gradient twice": message(
        ("v", R.TENSOR_ROLE_GRADIENT, VALUES), ("v", R.TENSOR_ROLE_GRADIENT, VALUES)
    ),
    "a pull twice": message(("v", R.TENSOR_ROLE_PULL, FOUR), ("v", R.TENSOR_ROLE_PULL, FOUR)),
    "gradients without a push": message(("v", R.TENSOR_ROLE_GRADIENT, VALUES), has_push=False),
}


@pytest.mark.parametrize("name", ODD)
def test_a_request_that_makes_no_sense_is_refused(name: str) -> None:
    with pytest.raises(ModelError):
        decode([ODD[name]])


@pytest.mark.parametrize(
    "field", [{"task": "é" * 65}, {"examples": 2**32 + 1}], ids=["task", "examples"]
)
def test_what_no_trainer_says_of_itself_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"at most 64 characters, a batch 4,294,967,296 examples"):
        decode([message(has_push=False, **field)])


def test_the_longest_name_and_the_largest_batch_are_taken() -> None:
    found = decode([message(has_push=False, task="é" * 64, examples=2**32)])
    assert (found.task, found.examples) == ("é" * 64, 2**32)


@pytest.mark.parametrize("field", ["outcome", "grant"])
@pytest.mark.parametrize("number", [0, 11])
def test_a_reply_of_a_later_version_is_refused_in_words(field: str, number: int) -> None:
    numbers: dict[str, Any] = {"outcome": 2, "grant": 1, field: number}
    header = gradients_pb2.ExchangeResponseHeader(**numbers)
    frame = gradients_pb2.ExchangeResponse(header=header).SerializeToString()
    with pytest.raises(ModelError, match=f"ps:0 sent an unknown {field}"):
        decode_reply(iter([frame]))


def test_a_reply_in_the_role_of_a_request_is_refused() -> None:
    header = gradients_pb2.ExchangeResponseHeader(
        outcome=gradients_pb2.OUTCOME_APPLIED,
        grant=gradients_pb2.GRANT_NONE,
        tensors=[
            tensors_pb2.Tensor(
                name="v", role=R.TENSOR_ROLE_GRADIENT, dtype=DTYPES.DATA_TYPE_INT64, shape=[1]
            )
        ],
    )
    frame = gradients_pb2.ExchangeResponse(header=header, bulk=bytes(8)).SerializeToString()
    with pytest.raises(ModelError, match="no reply has"):
        decode_reply(iter([frame]))
