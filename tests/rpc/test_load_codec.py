"""The codec of loads: slices survive; nothing is read before the generation is checked."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psys.arrays import DTYPES, PlannedSlice, VariableSpec
from psys.errors import GenerationChanged, ModelError
from psys.initializers import (
    Constant,
    GlorotUniform,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
)
from psys.optimizers import AdamOptimizer
from psys.ps.shard import LoadedSlice
from psys.rpc import load_codec
from psys.rpc.v1 import shard_pb2, tensors_pb2

G = "aaaaaaaaaaaa"
ADAM = AdamOptimizer(0.1).to_config()
CONSTANT = '{"kind": "constant", "value": 0.0}'
FLOAT32 = tensors_pb2.DATA_TYPE_FLOAT32
VALUE = tensors_pb2.TENSOR_ROLE_VALUE
SLOT = tensors_pb2.TENSOR_ROLE_SLOT


def allow(generation: str, member: int) -> None:
    assert (generation, member) == (G, 3)


@st.composite
def loads(draw: st.DrawFn) -> list[LoadedSlice]:
    result = []
    for number in range(draw(st.integers(0, 4))):
        shape = draw(st.sampled_from([(), (5,), (5, 2), (0, 3), (300, 1024)]))
        dtype = draw(st.sampled_from(sorted(DTYPES)))
        initializers = [Constant(1.5), RandomUniform(), RandomNormal(), TruncatedNormal()]
        spec = VariableSpec(
            f"v{number}",
            shape,
            dtype,
            draw(st.sampled_from([*initializers, GlorotUniform()])),
            draw(st.sampled_from([None, ADAM])),
            sparse := draw(st.booleans()),
            draw(st.sampled_from(["", "a stack"])) if sparse else "",
        )
        start = draw(st.integers(0, spec.rows))
        stop = draw(st.integers(start, spec.rows))
        array = np.arange((stop - start) * int(np.prod(shape[1:])), dtype=dtype)
        array = array.reshape((stop - start, *shape[1:]))
        slots = dict.fromkeys(draw(st.sets(st.sampled_from("mv"))), array + 1)
        value = draw(st.sampled_from([None, array]))
        seed = draw(st.integers(-(2**63), 2**63 - 1))
        result.append(LoadedSlice(spec, start, stop, seed, value, slots, {"beta": 0.1}))
    return result


def plain(one: LoadedSlice) -> Any:
    def of(array: Any) -> Any:
        return None if array is None else (array.dtype.name, array.shape, array.tobytes())

    slots = {name: of(array) for name, array in one.slots.items()}
    return one.spec, one.start, one.stop, one.seed, of(one.value), slots, dict(one.scalars)


@given(loads())
@settings(max_examples=50)
def test_any_load_survives(slices: list[LoadedSlice]) -> None:
    generation, found, plan = load_codec.decode_load(load_codec.encode_load(G, 3, slices), allow)
    assert (generation, plan) == (G, ())
    assert [plain(one) for one in found] == [plain(one) for one in slices]
    assert all(one.value is None or one.value.flags.writeable for one in found)


PLAN = (
    PlannedSlice("a", 0, 7, 1, 28),
    PlannedSlice("b", 0, 2, 1, 8),
    PlannedSlice("b", 2, 5, 0, 12),
)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_plan_comes_with_the_first_header_alone(count: int) -> None:
    specs = [VariableSpec(name, (5,), "float32", Constant()) for name in "bc"]
    slices = [LoadedSlice(spec, 2, 5) for spec in specs[:count]]
    frames = list(load_codec.encode_load(G, 3, slices, PLAN))
    assert load_codec.decode_load(iter(frames), allow).plan == PLAN
    headers = [shard_pb2.LoadSlicesRequest.FromString(one).slice for one in frames]
    assert [len(one.plan) for one in headers] == [3, 0][: max(count, 1)]


def test_the_generation_is_checked_before_the_bulk_is_read() -> None:
    spec = VariableSpec("w", (1 << 20,), "float32", Constant())
    value = np.ones(spec.shape, np.float32)
    frames = list(
        load_codec.encode_load("bbbbbbbbbbbb", 3, [LoadedSlice(spec, 0, 1 << 20, 0, value)])
    )
    left = iter(frames)

    def refuse(generation: str, member: int) -> None:
        raise GenerationChanged(generation)

    tracemalloc.start()
    try:
        with pytest.raises(GenerationChanged, match="bbbbbbbbbbbb"):
            load_codec.decode_load(left, refuse)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert len(list(left)) == len(frames) - 1


def tensor(*shape: int, role: Any = VALUE, dtype: Any = FLOAT32) -> tensors_pb2.Tensor:
    return tensors_pb2.Tensor(name="w", role=role, dtype=dtype, shape=shape)


def frame(bulk: bytes = b"", **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "generation": G,
        "member": 3,
        "slices": 1,
        "variable": "w",
        "shape": [4],
        "dtype": FLOAT32,
        "initializer_json": CONSTANT,
        "start": 0,
        "stop": 4,
    }
    header = shard_pb2.SliceHeader(**{**fields, **changes})
    return shard_pb2.LoadSlicesRequest(slice=header, bulk=bulk).SerializeToString()


def planned(start: int, stop: int, shard: int = 0) -> shard_pb2.PlannedSlice:
    return shard_pb2.PlannedSlice(variable="w", start=start, stop=stop, shard=shard, nbytes=4)


ODD = {
    "nothing at all": [],
    "more slices announced": [frame(slices=2)],
    "fewer slices announced": [frame(), frame(variable="v")],
    "slices beside none": [frame(slices=0), frame()],
    "two generations": [frame(slices=2), frame(slices=2, variable="v", generation="b" * 12)],
    "a slice twice": [frame(slices=2), frame(slices=2)],
    "no name": [frame(variable="")],
    "no dtype": [frame(dtype=0)],
    "an unknown dtype": [frame(dtype=50)],
    "backwards": [frame(start=3, stop=2)],
    "beyond": [frame(start=3, stop=5)],
    "absurd rows": [frame(shape=[2**62], start=0, stop=2**62)],
    "absurd row shape": [frame(shape=[4, 2**62])],
    "absurd and empty": [frame(shape=[0, 2**62], stop=0)],
    "larger than memory": [frame(shape=[2**40, 8], stop=2**40)],
    "slots larger than memory": [frame(shape=[2**40], stop=2**40, tensors=[tensor(2**40)] * 9)],
    "many slices larger than memory": [
        frame(slices=100, variable=f"w{i}", shape=[2**32], stop=2**32) for i in range(100)
    ],
    "another shape": [frame(bytes(16), tensors=[tensor(2, 2)])],
    "another dtype": [frame(bytes(32), tensors=[tensor(4, dtype=2)])],
    "two values": [frame(bytes(32), tensors=[tensor(4), tensor(4)])],
    "a role of an exchange": [frame(bytes(16), tensors=[tensor(4, role=1)])],
    "no role": [frame(bytes(16), tensors=[tensor(4, role=0)])],
    "no initializer": [frame(initializer_json="")],
    "an unknown initializer": [frame(initializer_json='{"kind": "os.system"}')],
    "an initializer without a name": [frame(initializer_json='{"kind": ["constant"]}')],
    "an argument too many": [frame(initializer_json='{"kind": "constant", "x": 1}')],
    "no object": [frame(optimizer_json="[1]")],
    "no JSON": [frame(optimizer_json="{")],
    "deep JSON": [frame(optimizer_json="[" * 100_000)],
    "fewer bytes": [frame(bytes(8), tensors=[tensor(4)])],
    "more bytes": [frame(bytes(24), tensors=[tensor(4)])],
    "a plan with a gap": [frame(plan=[planned(0, 1), planned(2, 4)])],
    "a plan that overlaps": [frame(plan=[planned(0, 3), planned(2, 4, shard=1)])],
    "a plan that goes backwards": [frame(plan=[planned(4, 0)])],
    "a plan out of order": [frame(plan=[planned(2, 4, shard=1), planned(0, 2)])],
    "a stack of what is no table": [frame(stack="a stack")],
    "no header": [shard_pb2.LoadSlicesRequest(bulk=bytes(8)).SerializeToString()],
}


@pytest.mark.parametrize("name", ODD)
def test_a_load_that_makes_no_sense_is_refused_before_memory_is_allocated(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            load_codec.decode_load(iter(ODD[name]), allow)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_frames_of_the_odd_loads_are_right_but_for_what_is_odd() -> None:
    _, (found,), _ = load_codec.decode_load(
        iter([frame(bytes(32), tensors=[tensor(4), tensor(4, role=SLOT)])]), allow
    )
    assert (found.start, found.stop, list(found.slots)) == (0, 4, ["w"])
