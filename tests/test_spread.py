"""What of a step goes to which shard, asked and pushed by table or by stack."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys.arrays import Array, Gradient, IndexedSlices, VariableSpec
from psys.errors import ModelError
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.sharding import ShardMap, plan
from psys.spread import Spread

SGD = GradientDescentOptimizer(1.0).to_config()
STACK = "stack:a"
STARTS = {"a": 0, "b": 5, "c": 9}
ROWS = {"a": 5, "b": 4, "c": 3}
ALL = 12


def spec(name: str, shape: tuple[int, ...], **more: Any) -> VariableSpec:
    return VariableSpec(name, shape, "float32", Constant(), SGD, **more)


SPECS = {
    "bias": spec("bias", (3,)),
    "alone": spec("alone", (6, 2), sparse=True),
    **{name: spec(name, (rows, 2), sparse=True, stack=STACK) for name, rows in ROWS.items()},
}


def spread(num_shards: int = 1, specs: dict[str, VariableSpec] = SPECS) -> Spread:
    return Spread(specs, shard_map(num_shards))


def shard_map(num_shards: int) -> ShardMap:
    return plan(list(SPECS.values()), num_shards)


def slices(ids: Any, values: Any = None) -> IndexedSlices:
    ids = np.array(ids, np.int64)
    if values is None:
        values = ids + 1
    return IndexedSlices(ids, np.stack([values, np.negative(values)], 1).astype(np.float32))


def as_lists(parts: list[dict[str, Gradient]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for part in parts:
        found.append({})
        for name, one in sorted(part.items()):
            assert isinstance(one, IndexedSlices)
            found[-1][name] = (one.indices.tolist(), one.values.tolist())
    return found


def in_stack(parts: dict[str, IndexedSlices]) -> IndexedSlices:
    return IndexedSlices(
        np.concatenate([one.indices + STARTS[name] for name, one in sorted(parts.items())]),
        np.concatenate([one.values for _, one in sorted(parts.items())]),
    )


TABLES = st.dictionaries(
    st.sampled_from("abc"), st.sets(st.integers(0, 2), min_size=1).map(sorted), min_size=1
)


@given(tables=TABLES, num_shards=st.integers(1, 4), both=st.sampled_from("abc"))
def test_gradients_by_table_by_stack_and_by_both_are_the_same_push(
    tables: dict[str, list[int]], num_shards: int, both: str
) -> None:
    apart = {name: slices(ids) for name, ids in tables.items()}
    one = spread(num_shards)
    expected = as_lists(one.split_gradients(apart))
    assert as_lists(one.split_gradients({STACK: in_stack(apart)})) == expected
    rest = {name: ids for name, ids in apart.items() if name != both}
    mixed: dict[str, Gradient] = {} if both not in apart else {both: apart[both]}
    if rest:
        mixed[STACK] = in_stack(rest)
    assert as_lists(one.split_gradients(mixed)) == expected
    assert as_lists(one.split_gradients(dict(reversed(mixed.items())))) == expected
    assert all(set(part) <= {STACK} for part in expected)


def test_a_row_named_by_table_and_by_stack_gets_the_sum() -> None:
    gradients = {"b": slices([1, 1], [1, 2]), STACK: slices([0, 6], [8, 4])}
    ((part,),) = [spread().split_gradients(gradients)]
    one = part[STACK]
    assert isinstance(one, IndexedSlices)
    assert one.indices.tolist() == [0, 6]
    assert one.values[:, 0].tolist() == [8, 7]


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("by", ["b", STACK])
def test_a_dense_gradient_of_a_table_or_stack_is_one_of_all_its_rows(
    num_shards: int, by: str
) -> None:
    rows = ROWS.get(by, ALL)
    dense = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    expected = {by: IndexedSlices(np.arange(rows), dense)}
    one = spread(num_shards)
    with_other = {"c": slices([0])}
    for more in ({}, with_other):
        found = one.split_gradients({**more, by: dense})
        assert as_lists(found) == as_lists(one.split_gradients({**more, **expected}))


def test_no_row_at_all_is_a_push_of_nothing() -> None:
    (part,) = spread().split_gradients({"a": slices([]), "b": slices([])})
    assert as_lists([part]) == [{STACK: ([], [])}]


@pytest.mark.parametrize("num_shards", [1, 2])
@pytest.mark.parametrize(
    ("name", "row"), [("a", 5), ("a", -1), ("b", -1), ("b", 4), ("c", 3), ("c", 1 << 40)]
)
def test_a_row_beyond_its_table_is_not_its_neighbour_s(
    num_shards: int, name: str, row: int
) -> None:
    one = spread(num_shards)
    message = rf"Ids of '{name}' must lie in \[0, {ROWS[name]}\)"
    with pytest.raises(ModelError, match=message):
        one.split_gradients({name: slices([0, row])})
    with pytest.raises(ModelError, match=message):
        one.want(name, np.array(sorted([0, row])))


@pytest.mark.parametrize("row", [-1, ALL])
def test_a_row_beyond_the_stack_is_refused_under_its_name(row: int) -> None:
    with pytest.raises(ModelError, match=f"Rows of '{STACK}'"):
        spread().split_gradients({STACK: slices([row])})
    with pytest.raises(ModelError, match=f"Rows of '{STACK}'"):
        spread(2).want(STACK, np.array([row]))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("row", "name"), [(4, "a"), (5, "b"), (8, "b"), (9, "c")])
def test_what_is_not_finite_is_told_by_the_name_of_its_table(
    row: int, name: str, wrong: float
) -> None:
    bad = slices([0, row], [1, wrong])
    with pytest.raises(ModelError, match=rf"gradient of '{name}' is not finite"):
        spread().split_gradients({STACK: bad})
    own = IndexedSlices(bad.indices[1:] - STARTS[name], bad.values[1:])
    with pytest.raises(ModelError, match=rf"gradient of '{name}' is not finite"):
        spread().split_gradients({"a": slices([1]), name: own})


@pytest.mark.parametrize("wrong", ["one", "two", "three"])
def test_each_gradient_of_a_step_must_be_finite(wrong: str) -> None:
    specs = {name: spec(name, (3,)) for name in ("one", "two", "three")}
    gradients: dict[str, Gradient] = {name: np.ones(3, np.float32) for name in specs}
    gradients[wrong] = np.array([1, 1, np.nan], np.float32)
    with pytest.raises(ModelError, match=f"gradient of '{wrong}' is not finite"):
        Spread(specs, plan(list(specs.values()), 2)).split_gradients(gradients)


def test_what_is_not_finite_beyond_the_stack_is_refused_all_the_same() -> None:
    for row in (-1, ALL, ALL + 7):
        with pytest.raises(ModelError, match=f"gradient of '{STACK}' is not finite"):
            spread().split_gradients({STACK: slices([row], [np.nan])})


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"z": slices([0])}, "unknown variable 'z'"),
    "width": ({"a": IndexedSlices(np.array([0]), np.ones((1, 3), np.float32))}, "rows of"),
    "dtype": ({"a": IndexedSlices(np.array([0]), np.ones((1, 2)))}, "'a': expected float32"),
    "dense shape": ({"a": np.ones((4, 2), np.float32)}, r"'a': expected shape \(5, 2\)"),
    "stack width": ({STACK: IndexedSlices(np.array([0]), np.ones((1, 3), np.float32))}, STACK),
}


@pytest.mark.parametrize("case", BAD)
def test_a_gradient_that_does_not_fit_is_refused(case: str) -> None:
    gradients, message = BAD[case]
    with pytest.raises(ModelError, match=message):
        spread().split_gradients(gradients)


def test_tables_that_do_not_fit_their_stack_are_refused() -> None:
    wrong = {**SPECS, "b": replace(SPECS["b"], shape=(4, 3))}
    with pytest.raises(ModelError, match="'a' and 'b' cannot be one stack"):
        spread(1, wrong)


# ---------------------------------------------------------------- rows


def answers(one: Spread, num_shards: int, wanted: Any) -> list[dict[str, Array]]:
    """What shards would give of rows that hold their own numbers in the stack."""
    if wanted.name != STACK:
        whole = {wanted.name: np.arange(6)}
    else:
        whole = {name: np.arange(rows) + STARTS[name] for name, rows in ROWS.items()}
    found: list[dict[str, Array]] = []
    for shard in range(num_shards):
        here = [
            whole[piece.variable][piece.start : piece.stop]
            for piece in shard_map(num_shards).on(shard)
            if piece.variable in whole
        ]
        rows = np.concatenate(here) if here else np.empty(0)
        values = np.stack([rows, rows], 1).astype(np.float32)
        parts = wanted.parts.get(shard)
        found.append({} if parts is None else {wanted.name: values[parts[1]]})
    return found


@given(num_shards=st.integers(1, 5), tables=TABLES, name=st.sampled_from(["alone", "a", "b", "c"]))
def test_rows_come_joined_as_they_were_asked_for(
    num_shards: int, tables: dict[str, list[int]], name: str
) -> None:
    one = spread(num_shards)
    ids = np.array(next(iter(tables.values())), np.int64)
    asked = {
        name: (ids, ids + STARTS.get(name, 0)),
        STACK: (rows := in_stack({n: slices(own) for n, own in tables.items()}).indices, rows),
    }
    for key, (numbers, expected) in asked.items():
        wanted = one.want(key, numbers)
        assert wanted.name == ("alone" if key == "alone" else STACK)
        assert wanted.size == len(numbers)
        joined = one.join_rows(wanted, answers(one, num_shards, wanted))
        assert joined[:, 0].tolist() == expected.tolist()
        assert (joined.shape, joined.dtype) == ((len(numbers), 2), np.float32)


def test_dense_variables_are_joined_and_tables_are_not_among_them() -> None:
    one = spread(2)
    assert [set(one.dense_slices(shard)) for shard in range(2)].count({"bias"}) >= 1
    whole = np.arange(3, dtype=np.float32)
    parts: list[dict[str, Array]] = [{}, {}]
    for shard, part in shard_map(2).split_dense("bias", whole).items():
        parts[shard]["bias"] = part
    assert {name: value.tolist() for name, value in one.join_dense(parts).items()} == {
        "bias": [0, 1, 2]
    }


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64"])
def test_indices_of_any_integers_name_the_same_rows(dtype: str) -> None:
    ids = np.array([1, 2], np.int64)
    narrow = IndexedSlices(ids.astype(dtype), np.ones((2, 2), np.float32))
    assert narrow.indices.dtype == np.int64
    assert narrow.indices.tolist() == [1, 2]


def test_indices_that_are_no_integers_are_refused() -> None:
    with pytest.raises(ModelError, match="indices must be integers, got float64"):
        IndexedSlices(np.array([1.0]), np.ones((1, 2), np.float32))
