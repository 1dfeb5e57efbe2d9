from __future__ import annotations

import doctest
import importlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psys.arrays import VariableSpec
from psys.errors import ConfigError, ModelError
from psys.initializers import Constant
from psys.sharding import ShardMap, Slice, plan


def spec(name: str, *shape: int, sparse: bool = False) -> VariableSpec:
    return VariableSpec(name, shape, "float32", Constant(), sparse=sparse)


THREE = ShardMap(4, (Slice("w", 0, 4, 0), Slice("w", 4, 6, 1), Slice("w", 6, 10, 3)))
"""Ten rows on shards 0, 1 and 3 of four."""


@st.composite
def maps(draw: st.DrawFn) -> tuple[ShardMap, int]:
    """Return a shard map of one variable ``w``, cut anywhere, and its rows."""
    num_shards = draw(st.integers(1, 6))
    pieces = draw(st.lists(st.integers(1, 7), min_size=1, max_size=num_shards))
    shards = draw(st.permutations(range(num_shards)))
    stops = np.cumsum(pieces).tolist()
    slices = [
        Slice("w", stop - piece, stop, shard)
        for piece, stop, shard in zip(pieces, stops, shards, strict=False)
    ]
    return ShardMap(num_shards, tuple(slices)), stops[-1]


class TestSplitAndJoin:
    @given(drawn=maps(), row_shape=st.sampled_from([(), (3,), (2, 2), (0,)]))
    def test_join_undoes_split(
        self, drawn: tuple[ShardMap, int], row_shape: tuple[int, ...]
    ) -> None:
        shard_map, rows = drawn
        shape = (rows, *row_shape)
        whole = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        parts = shard_map.split_dense("w", whole)
        assert set(parts) == {one.shard for one in shard_map.slices}
        for one in shard_map.slices:
            np.testing.assert_array_equal(parts[one.shard], whole[one.start : one.stop])
        joined = shard_map.join("w", parts, shape)
        assert joined.dtype == whole.dtype
        np.testing.assert_array_equal(joined, whole)

    def test_parts_are_views(self) -> None:
        whole = np.zeros((10, 2), np.float32)
        THREE.split_dense("w", whole)[1][:] = 7
        assert (whole[4:6] == 7).all()
        assert whole.sum() == 7 * 4

    def test_scalar(self) -> None:
        shard_map = plan([spec("step")], 2)
        parts = shard_map.split_dense("step", np.array(3.0))
        assert {shard: part.tolist() for shard, part in parts.items()} == {0: [3.0]}
        assert shard_map.join("step", parts, ()).shape == ()
        assert shard_map.join("step", {0: np.array(3.0), 1: np.zeros(5)}, ()).item() == 3.0

    def test_variable_without_rows(self) -> None:
        shard_map = plan([spec("empty", 0, 3)], 2)
        parts = shard_map.split_dense("empty", np.zeros((0, 3)))
        assert [part.shape for part in parts.values()] == [(0, 3)]
        assert shard_map.join("empty", parts, (0, 3)).shape == (0, 3)
        none = np.zeros(0, np.int64)
        ((positions, local),) = shard_map.split_rows("empty", none).values()
        assert none[positions].shape == local.shape == (0,)

    @settings(max_examples=50)
    @given(old=st.integers(1, 7), new=st.integers(1, 7), rows=st.integers(0, 20))
    def test_a_model_moves_from_any_number_of_shards_to_any_other(
        self, old: int, new: int, rows: int
    ) -> None:
        specs = [spec("table", rows, 300, sparse=True), spec("kernel", 7, 11), spec("step")]
        before, after = plan(specs, old), plan(specs, new)
        for one in specs:
            whole = np.random.default_rng(0).standard_normal(one.shape)
            held = before.split_dense(one.name, whole)
            held = after.split_dense(one.name, before.join(one.name, held, one.shape))
            np.testing.assert_array_equal(after.join(one.name, held, one.shape), whole)

    def test_wrong_number_of_rows(self) -> None:
        with pytest.raises(ModelError, match=r"'w' has 10 rows, got an array \(9, 2\)"):
            THREE.split_dense("w", np.zeros((9, 2)))
        with pytest.raises(ModelError, match=r"'w' has 10 rows, not shape \(9,\)"):
            THREE.join("w", {}, (9,))

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({0: np.zeros(4), 1: np.zeros(2)}, "shard 3 is missing"),
            ({0: np.zeros(4), 1: np.zeros(3), 3: np.zeros(4)}, r"shard 1 must be \(2,\), got"),
        ],
    )
    def test_parts_that_do_not_fit(self, parts: dict[int, Any], message: str) -> None:
        with pytest.raises(ModelError, match=message):
            THREE.join("w", parts, (10,))


def dumb_split_rows(shard_map: ShardMap, ids: list[int]) -> dict[int, tuple[list[int], list[int]]]:
    """Split ids one at a time, looking at every slice for each."""
    result: dict[int, tuple[list[int], list[int]]] = {
        one.shard: ([], []) for one in shard_map.slices
    }
    for position, row in enumerate(ids):
        for one in shard_map.slices:
            if one.start <= row < one.stop:
                result[one.shard][0].append(position)
                result[one.shard][1].append(row - one.start)
    return result


class TestSplitRows:
    @given(data=st.data(), drawn=maps(), ordered=st.booleans())
    def test_agrees_with_the_dumb_version(
        self, data: st.DataObject, drawn: tuple[ShardMap, int], ordered: bool
    ) -> None:
        shard_map, rows = drawn
        ids = data.draw(st.lists(st.integers(0, rows - 1), max_size=20))
        ids = sorted(ids) if ordered else ids
        parts = shard_map.split_rows("w", np.array(ids, np.int64))
        places = np.arange(len(ids))
        as_lists = {
            shard: (places[at].tolist(), local.tolist()) for shard, (at, local) in parts.items()
        }
        assert as_lists == dumb_split_rows(shard_map, ids)
        assert sorted(at for positions, _ in as_lists.values() for at in positions) == list(
            range(len(ids))
        )
        assert all(local.dtype == np.int64 for _, local in parts.values())
        assert all(isinstance(at, slice) for at, _ in parts.values()) or not ordered

    def test_gathering_by_parts_equals_gathering_from_the_whole(self) -> None:
        whole, ids = np.arange(20.0).reshape(10, 2), np.array([9, 0, 4, 4, 6, 3])
        held = THREE.split_dense("w", whole)
        rows = np.full((6, 2), np.nan)
        for shard, (positions, local) in THREE.split_rows("w", ids).items():
            rows[positions] = held[shard][local]
        np.testing.assert_array_equal(rows, whole[ids])

    @pytest.mark.parametrize("ids", [[-1], [10], [0, 11, 3], [3, -2, 0], [-5, 3]])
    def test_ids_outside_the_variable(self, ids: list[int]) -> None:
        with pytest.raises(ModelError, match=r"Ids of 'w' must lie in \[0, 10\), got (-|1)\d*"):
            THREE.split_rows("w", np.array(ids))


class TestShardMap:
    def test_of_and_on(self) -> None:
        shard_map = ShardMap(3, (Slice("a", 0, 2, 2), Slice("b", 0, 1, 0), Slice("b", 1, 3, 2)))
        assert shard_map.of("b") == shard_map.slices[1:]
        assert shard_map.on(2) == (Slice("a", 0, 2, 2), Slice("b", 1, 3, 2))
        assert shard_map.on(1) == ()

    def test_unknown_names(self) -> None:
        for call in (
            lambda: THREE.of("v"),
            lambda: THREE.split_dense("v", np.zeros(10)),
            lambda: THREE.split_rows("v", np.zeros(1, np.int64)),
            lambda: THREE.join("v", {}, (10,)),
        ):
            with pytest.raises(ModelError, match="no variable 'v'"):
                call()
        for shard in (-1, 4):
            with pytest.raises(ModelError, match="there are 4"):
                THREE.on(shard)

    def test_config_round_trip_through_json(self) -> None:
        shard_map = plan([spec("w", 10, 4), spec("step"), spec("t", 99, 7, sparse=True)], 3)
        back = ShardMap.from_config(json.loads(json.dumps(shard_map.to_config())))
        assert back == shard_map
        assert hash(back) == hash(shard_map)
        assert back.of("w") == shard_map.of("w")

    @pytest.mark.parametrize(
        ("slices", "message"),
        [
            ([["w", 1, 3, 0]], "must start at row 0, got 1"),
            ([["w", 0, 3, 0], ["w", 4, 5, 1]], "must start at row 3, got 4"),
            ([["w", 0, 3, 0], ["w", 2, 5, 1]], "must start at row 3, got 2"),
            ([["w", 0, 3, 0], ["w", 3, 5, 0]], "two slices on one shard"),
            ([["w", 0, 3, 0], ["w", 3, 3, 1]], "empty slice on shard 1"),
            ([["w", 0, 3, 2]], "shard 2 of 2"),
            ([["w", 0, 3, -1]], "no shard -1"),
            ([["w", 3, 0, 0]], "0 <= start <= stop"),
            ([["w", 0, 3, 0], ["v", 0, 3, 0]], "ordered"),
            ([["w", 0, 3]], "Not the description"),
            (None, "Not the description"),
        ],
    )
    def test_a_config_that_describes_no_shard_map(self, slices: Any, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            ShardMap.from_config({"num_shards": 2, "slices": slices})

    def test_a_shard_map_needs_a_shard(self) -> None:
        with pytest.raises(ModelError, match="at least 1 shard, got 0"):
            ShardMap(0, ())
        with pytest.raises(ConfigError, match="at least 1 shard, got 0"):
            plan([], 0)


@pytest.mark.parametrize("module", ["description", "partitioner", "shard_map"])
def test_examples_in_the_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"psys.sharding.{module}"))
    assert result.attempted
    assert not result.failed
