"""Gradients as 16-bit floats: exactly rounded, and how much is lost by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from psys.arrays import IndexedSlices, VariableSpec
from psys.errors import ConfigError, ModelError
from psys.exchange import Place
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer, MovingAverage
from psys.parameters import Parameters
from psys.ps.messages import ExchangeReply, ExchangeRequest, Outcome
from psys.rpc import stream_memory
from psys.rpc.half_floats import BFLOAT16, FLOAT16, PUSH_DTYPES, narrow, widen
from psys.rpc.remote_shard import RemoteShard
from psys.sharding import ShardMap, Slice

SGD = GradientDescentOptimizer(1.0).to_config()
LARGEST_BFLOAT16 = float.fromhex("0x1.fep127")
WITHIN = st.floats(-LARGEST_BFLOAT16, LARGEST_BFLOAT16, width=32)
FINITE = hnp.arrays("float32", 8, elements=WITHIN | st.sampled_from([np.inf, -np.inf]))


def through(values: Any, name: str) -> Any:
    return widen(narrow(np.asarray(values, np.float32), PUSH_DTYPES[name], "v"))


def nearest_bfloat16(value: float) -> float:
    """Return the bfloat16 nearest to a float32, found the slow way: of the two around it."""
    bits = int(np.float32(value).view(np.uint32))
    below, above = bits & 0xFFFF0000, (bits & 0xFFFF0000) + 0x10000
    ends = [float(np.array([one], np.uint32).view(np.float32)[0]) for one in (below, above)]
    if not np.isfinite(ends[1]):
        ends[1] = np.copysign(2.0**128, value)
    if not np.isfinite(ends[0]):
        return ends[0]
    distances = [abs(float(value) - one) for one in ends]
    if distances[0] == distances[1]:
        return ends[0] if not below >> 16 & 1 else ends[1]
    return ends[int(distances[1] < distances[0])]


@given(FINITE)
def test_bfloat16_is_the_nearest_and_ties_go_to_even(values: Any) -> None:
    for value, found in zip(values.tolist(), through(values, "bfloat16").tolist(), strict=True):
        expected = nearest_bfloat16(value)
        assert found == expected or (abs(expected) == 2.0**128 and np.isinf(found))


def test_known_bfloat16_bits() -> None:
    known = [
        (1.0, 0x3F80),
        (-2.0, 0xC000),
        (0.0, 0x0000),
        (-0.0, 0x8000),
        (1.00390625, 0x3F80),  # half way between 1 and the next: to the even one
        (1.01171875, 0x3F82),  # half way above an odd one: up
        (3.1415927, 0x4049),
        (np.inf, 0x7F80),
        (-np.inf, 0xFF80),
        (1e-40, 0x0001),  # subnormal
    ]
    bits = narrow(np.array([value for value, _ in known], np.float32), BFLOAT16, "v")
    assert [hex(one) for one in bits.view(np.uint16)] == [hex(one) for _, one in known]


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF, 0xFF800001])
def test_a_nan_stays_one(bits: int) -> None:
    value = np.array([bits], np.uint32).view(np.float32)
    for name in PUSH_DTYPES:
        assert np.isnan(through(value, name)).all()


def test_every_16_bit_float_survives() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    for dtype in (BFLOAT16, FLOAT16):
        wide = widen(bits.view(dtype))
        again = narrow(wide, dtype, "v").view(np.uint16)
        kept = np.isnan(wide) | (again == bits)
        assert kept.all()


def test_what_is_lost() -> None:
    """bfloat16 is wrong by at most one part in 2^8 of a number, float16 by one in 2^11.

    Below its least normal number, 6.1e-5, float16 is wrong by at most 3.0e-8 instead: a gradient
    of 1e-6 loses up to 3 %, and one below 3e-8 becomes zero.
    """
    values = np.random.default_rng(1).standard_normal(100_000).astype(np.float32)
    values *= np.float32(10.0) ** np.random.default_rng(2).integers(-4, 4, 100_000)
    exact = values.astype(np.float64)

    def error(name: str) -> Any:
        return np.abs(through(values, name) - exact)

    assert (error("bfloat16") <= np.abs(exact) * 2.0**-8).all()
    assert (error("bfloat16") / np.abs(exact)).max() > 2.0**-9  # no better than that
    assert (error("float16") <= np.maximum(np.abs(exact) * 2.0**-11, 2.0**-25)).all()
    assert (error("float16") / np.abs(exact)).max() > 2.0**-12
    assert through([2e-8, 1e-30], "float16").tolist() == [0, 0]
    np.testing.assert_allclose(through([1e-30], "bfloat16"), [1e-30], rtol=2.0**-8)


def test_what_is_beyond_float16_is_refused_by_name_and_not_made_infinite() -> None:
    with pytest.raises(ModelError, match=r"'dnn/kernel'.*65,504.*bfloat16"):
        narrow(np.array([1.0, 7e4], np.float32), FLOAT16, "dnn/kernel")
    assert through([65504.0, -65504.0], "float16").tolist() == [65504.0, -65504.0]
    assert np.isfinite(through([7e4], "bfloat16")).all()


def test_what_is_beyond_bfloat16_is_refused_too() -> None:
    for value in (3.4e38, -3.4e38):
        with pytest.raises(ModelError, match=r"'dnn/kernel'.*bfloat16's range.*clip"):
            narrow(np.array([1.0, value], np.float32), BFLOAT16, "dnn/kernel")
    largest = LARGEST_BFLOAT16
    assert through([largest, -largest, -1.0], "bfloat16").tolist() == [largest, -largest, -1.0]


@pytest.mark.parametrize("layout", ["strided", "fortran", "scalar", "empty"])
@pytest.mark.parametrize("name", PUSH_DTYPES)
def test_any_layout(name: str, layout: str) -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    values = {
        "strided": whole[:, ::2],
        "fortran": np.asfortranarray(whole),
        "scalar": np.array(3.0, np.float32),
        "empty": whole[:0],
    }[layout]
    np.testing.assert_array_equal(through(values, name), values)
    assert through(values, name).shape == values.shape


# ---------------------------------------------------------------- over the wire

KERNEL = VariableSpec("kernel", (300, 3), "float32", Constant(), SGD)
PRECISE = VariableSpec("precise", (5,), "float64", Constant(), SGD)
TABLE = VariableSpec("table", (100, 2), "float32", Constant(), SGD, sparse=True)


def exchange(shard: RemoteShard, request: ExchangeRequest) -> ExchangeReply:
    shard.begin_exchange(request)
    return shard.finish_exchange()


@pytest.mark.parametrize("transport", ["gRPC", "shared memory"])
@pytest.mark.parametrize("name", PUSH_DTYPES)
def test_gradients_arrive_rounded_and_values_return_whole(
    job: Any, monkeypatch: pytest.MonkeyPatch, name: str, transport: str
) -> None:
    monkeypatch.setenv("PSYS_SHM_DIR", "none" if transport == "gRPC" else "")
    monkeypatch.setattr(stream_memory, "INLINE_BYTES", 0)
    job.go_live([KERNEL, PRECISE, TABLE])
    generator = np.random.default_rng(1)
    kernel = generator.standard_normal((300, 3)).astype(np.float32)
    precise = generator.standard_normal(5)
    rows = IndexedSlices(np.array([3, 7]), generator.standard_normal((2, 2)).astype(np.float32))
    shard = RemoteShard(0, job.address, push_dtype=name)
    sums = [np.zeros_like(kernel), np.zeros_like(rows.values)]
    for sequence in (1, 2, 3):
        push = {"kernel": kernel * sequence, "precise": precise, "table": rows}
        wanted = {"table": np.array([3, 7])}
        reply = exchange(
            shard,
            ExchangeRequest(job.generation, "worker:0", 1, sequence, 0, push, True, wanted, False),
        )
        assert reply.outcome is Outcome.APPLIED
        sums[0] -= through(kernel * sequence, name)
        sums[1] -= through(rows.values, name)
        np.testing.assert_array_equal(reply.dense["kernel"], sums[0])
        np.testing.assert_array_equal(reply.rows["table"], sums[1])
        # A float64 variable was made one for its precision: its gradients travel as they are.
        np.testing.assert_allclose(reply.dense["precise"], -sequence * precise, rtol=1e-15)
        assert {str(one.dtype) for one in reply.dense.values()} == {"float32", "float64"}
    shard.close()


def test_half_the_bytes_travel(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from psys.rpc import codec

    request = ExchangeRequest(
        "g", "chief", 1, 1, 0, {"w": np.ones(4096, np.float32)}, False, {}, False
    )
    sizes = [
        sum(map(len, codec.encode_request(request, dtype))) for dtype in (None, BFLOAT16, FLOAT16)
    ]
    assert sizes[0] > 16_384
    assert max(sizes[1:]) < 8192 + 100


def test_a_gradient_beyond_float16_is_refused_before_anything_is_sent(job: Any) -> None:
    job.go_live([KERNEL])
    shard = RemoteShard(0, job.address, push_dtype="float16")
    large = np.full((300, 3), 1e6, np.float32)
    with pytest.raises(ModelError, match="'kernel'"):
        shard.begin_exchange(
            ExchangeRequest(job.generation, "chief", 1, 1, 0, {"kernel": large}, True, {}, False)
        )
    assert job.host.read_lead(lambda node: node.shard.version) == 0
    shard.close()


def test_a_gradient_beyond_float16_on_one_shard_is_sent_to_none(
    small_ps: Callable[..., Any],
) -> None:
    generation = "aaaaaaaaaaaa"
    spec = VariableSpec("weight", (6,), "float32", Constant(), SGD)
    started = [small_ps(generation, rows=3) for _ in range(2)]
    shards = [RemoteShard(i, ps.address, push_dtype="float16") for i, ps in enumerate(started)]
    halves = ShardMap(2, (Slice("weight", 0, 3, 0), Slice("weight", 3, 6, 1)))
    parameters = Parameters({"weight": spec}, shards, 1.0, shard_map=halves)
    place = Place(generation, "worker:0", 1)
    gradient = np.array([1, 1, 1, 1, 1, 1e6], np.float32)
    with pytest.raises(ModelError, match="beyond float16's range"):
        parameters.exchange(place, 1, {"weight": gradient}, {}, wants_grant=False)
    fits = np.ones(6, np.float32)
    # Had the first shard applied its part, it would take this for the same push again.
    pulled = parameters.exchange(place, 1, {"weight": fits}, {}, wants_grant=False)
    assert pulled.outcome is Outcome.APPLIED
    parameters.close()


@pytest.mark.parametrize("push_dtype", ["float16", "bfloat16"])
def test_what_is_measured_is_no_gradient_and_never_narrow(job: Any, push_dtype: str) -> None:
    mean = VariableSpec("mean", (2,), "float32", Constant(), MovingAverage(0.0).to_config())
    job.go_live([mean])
    shard = RemoteShard(0, job.address, push_dtype=push_dtype)
    parameters = Parameters({"mean": mean}, [shard], 1.0)
    measured = np.array([1000.3, 1e6], np.float32)  # beyond float16, and between two bfloat16
    place = Place(job.generation, "chief", 1)
    pulled = parameters.exchange(place, 1, {"mean": measured}, {}, wants_grant=False)
    assert pulled.dense["mean"].tolist() == measured.tolist()
    parameters.close()


@pytest.mark.parametrize("name", ["float32", "bf16", ""])
def test_a_push_dtype_that_is_none_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"push_dtype.*float16.*bfloat16"):
        RemoteShard(0, "127.0.0.1:1", push_dtype=name)


def test_pulled_values_and_loads_are_never_narrow(new_job: Callable[..., Any]) -> None:
    from psys.ps.shard import LoadedSlice
    from psys.rpc import load_codec

    narrow_value = narrow(np.ones((300, 3), np.float32), BFLOAT16, "kernel")
    with pytest.raises(ModelError):
        load_codec.decode_load(
            load_codec.encode_load("g", 1, [LoadedSlice(KERNEL, 0, 300, 0, narrow_value)]),
            lambda generation, member: None,
        )
