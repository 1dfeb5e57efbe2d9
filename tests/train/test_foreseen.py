"""What a batch will look up: each table's rows, those of a stack together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys import feature_column as fc
from psys.arrays import VariableSpec
from psys.compute.build_store import Prefetch
from psys.compute.features import InputFeatures
from psys.errors import ModelError
from psys.feature_column.categorical import IdentityCategoricalColumn
from psys.feature_column.sparse_ids import SparseFeature
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.stacks import TableStack, stacks_of
from psys.train.foreseen import Lookups

SGD = GradientDescentOptimizer(1.0).to_config()
SIZES = {"a": 5, "b": 7, "c": 9}
COLUMNS = {name: fc.categorical_column_with_identity(name, size) for name, size in SIZES.items()}


def stack(*tables: str, sizes: dict[str, int] = SIZES) -> dict[str, TableStack]:
    specs = (
        VariableSpec(f"table {n}", (sizes[n], 2), "float32", Constant(), SGD, True, "stack")
        for n in tables
    )
    return stacks_of(specs)


def lookups(tables: str, stacked: str = "") -> Lookups:
    prefetches = tuple(Prefetch(f"table {name}", COLUMNS[name]) for name in tables)
    return Lookups(prefetches, stack(*stacked) if stacked else {})


def features(**ids: Any) -> InputFeatures:
    return InputFeatures({name: np.array(one, np.int64) for name, one in ids.items()})


ABC: dict[str, Any] = {"a": [3, 1, 3], "b": [6, 0, 0], "c": [8, 8, 8]}


def as_lists(rows: Any) -> dict[str, list[int]]:
    return {name: one.tolist() for name, one in rows.items()}


def test_without_stacks_each_table_is_by_itself() -> None:
    given = features(**ABC)
    assert as_lists(lookups("cab").find(given)) == {
        "table a": [1, 3],
        "table b": [0, 6],
        "table c": [8],
    }
    assert given.stacked == {}


@pytest.mark.parametrize("order", ["abc", "cba", "bca"])
def test_tables_of_a_stack_are_found_in_its_order_whatever_that_of_their_columns(
    order: str,
) -> None:
    given = features(**ABC)
    rows = lookups(order, "abc").find(given)
    assert as_lists(rows) == {"stack": [1, 3, 5, 11, 20]}
    found = given.stacked["stack"]
    assert found.rows is rows["stack"]
    assert {name: one.ids.tolist() for name, one in found.tables.items()} == {
        "table a": [1, 3],
        "table b": [0, 6],
        "table c": [8],
    }
    for name, one in found.tables.items():
        assert one.ids is given.uniques[COLUMNS[name[-1]]][1]


def test_a_table_beside_a_stack_and_one_of_a_stack_that_no_column_reads() -> None:
    given = features(**ABC)
    assert as_lists(lookups("ab", "bc").find(given)) == {"table a": [1, 3], "stack": [0, 6]}
    assert set(given.stacked["stack"].tables) == {"table b"}
    beside = features(**ABC)
    assert as_lists(lookups("a", "bc").find(beside)) == {"table a": [1, 3]}
    assert beside.stacked == {}


def test_several_columns_of_one_table_are_one_set_of_rows() -> None:
    also = fc.categorical_column_with_identity("b", SIZES["a"])
    one = Lookups(
        (Prefetch("table a", COLUMNS["a"]), Prefetch("table a", also)), stack("a", "b", "c")
    )
    given = features(a=[3, 1, 3], b=[4, 0, 1])
    assert as_lists(one.find(given)) == {"stack": [0, 1, 3, 4]}
    table = given.stacked["stack"].tables["table a"]
    assert table.ids.tolist() == [0, 1, 3, 4]
    # Neither column's own ids: the store must not take them for it.
    assert all(unique is not table.ids for _, unique, _ in given.uniques.values())


@pytest.mark.parametrize("stacked", ["", "abc"])
@pytest.mark.parametrize("wrong", [5, 100])
def test_an_id_that_is_no_row_of_its_table_is_refused_as_that_table_s(
    wrong: int, stacked: str
) -> None:
    """A column may give more ids than its table has rows, where the two do not fit."""
    one = lookups("abc", stacked)
    wide = fc.categorical_column_with_identity("a", 1000)
    one = Lookups((Prefetch("table a", wide), *one.prefetches[1:]), one.stacks)
    given = features(**{**ABC, "a": [0, wrong, 1]})
    if not stacked:
        assert as_lists(one.find(given))["table a"] == [0, 1, wrong]
        return  # the store, or Parameters, says so
    with pytest.raises(ModelError, match=rf"'table a' has rows 0 to 4; got the id {wrong}"):
        one.find(given)
    assert given.stacked == {}


def test_tables_of_which_each_example_has_one_row() -> None:
    also = fc.categorical_column_with_identity("b", SIZES["a"])
    one = lookups("abc", "abc")
    given = features(**ABC)
    one.find(given)
    plain = given.stacked["stack"].plain
    assert plain is not None
    assert plain.tables == ("table a", "table b", "table c")
    assert plain.inverses.tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert plain.edges.tolist() == [[0, 2], [2, 4], [4, 5]]
    assert plain.keys == set("abc")
    # Of a table that two columns read, or one of which an example has no row, that cannot be said.
    twice = Lookups((*one.prefetches, Prefetch("table a", also)), one.stacks)
    given = features(**{**ABC, "b": [4, 0, 0]})
    twice.find(given)
    assert (plain := given.stacked["stack"].plain) is not None
    assert plain.tables == ("table b", "table c")
    given = features(**{**ABC, "b": [4, -1, 0]})
    twice.find(given)
    assert (plain := given.stacked["stack"].plain) is not None
    assert plain.tables == ("table c",)
    assert plain.edges.tolist() == [[6, 7]]
    # Nor of features of several sizes: whoever reads them says so.
    given = features(**{**ABC, "b": [4, 0]})
    one.find(given)
    assert given.stacked["stack"].plain is None


def test_a_batch_without_ids_looks_up_no_rows() -> None:
    none = SparseFeature(np.array([], np.int64), np.array([], np.int64), 3)
    given = InputFeatures({**features(**ABC), "a": none, "b": none})
    assert as_lists(lookups("ab", "abc").find(given)) == {"stack": []}
    tables = given.stacked["stack"].tables
    assert {(one.first, one.stop) for one in tables.values()} == {(0, 0)}
    assert given.stacked["stack"].rows.dtype == np.int64


def test_hashed_columns_are_found_as_each_one_is_by_itself() -> None:
    words = {name: fc.categorical_column_with_hash_bucket(name, SIZES[name]) for name in SIZES}
    values = {name: np.array([b"x", b"why", name.encode()]) for name in SIZES}
    values["b"] = np.array([b"", b"why", b""])  # which is no value
    prefetches = tuple(Prefetch(f"table {name}", words[name]) for name in SIZES)
    given = InputFeatures(values)
    found = Lookups(prefetches, stack("a", "b", "c")).find(given)
    tables = given.stacked["stack"].tables
    expected = []
    for name, column in words.items():
        ids = np.unique(column.transform(dict(values)).ids)
        assert tables[f"table {name}"].ids.tolist() == ids.tolist()
        start, _ = stack("a", "b", "c")["stack"].rows_of(f"table {name}")
        expected += (ids + start).tolist()
    assert found["stack"].tolist() == expected


@given(
    st.fixed_dictionaries(
        {name: st.lists(st.integers(0, size - 1), max_size=9) for name, size in SIZES.items()}
    ),
    st.sets(st.sampled_from("abc"), min_size=1),
)
def test_the_rows_of_a_stack_are_sorted_unique_and_each_its_table_s(
    ids: dict[str, list[int]], read: set[str]
) -> None:
    bags = {
        name: SparseFeature(np.array(one, np.int64), np.zeros(len(one), np.int64), 1)
        for name, one in ids.items()
    }
    given = InputFeatures(bags)
    found = lookups("".join(sorted(read)), "abc").find(given)["stack"]
    assert found.dtype == np.int64
    assert (np.diff(found) > 0).all()
    whole = stack("a", "b", "c")["stack"]
    stops = 0
    for name in sorted(read):
        table = given.stacked["stack"].tables[f"table {name}"]
        assert table.first == stops
        stops = table.stop
        own = found[table.first : table.stop] - whole.rows_of(f"table {name}")[0]
        assert own.tolist() == table.ids.tolist() == sorted(set(ids[name]))
    assert stops == len(found)


@pytest.mark.parametrize("order", [0, 1])
def test_of_a_table_that_two_columns_read_none_is_taken_for_the_only_one(order: int) -> None:
    """Though the other could not read its features in this batch, and is left to the model."""
    narrow, wide = (fc.categorical_column_with_identity("a", size) for size in (3, SIZES["a"]))
    both = [Prefetch("table a", narrow), Prefetch("table a", wide)]
    prefetches = (*(both if order else both[::-1]), Prefetch("table b", COLUMNS["b"]))
    one = Lookups(prefetches, stack("a", "b"))
    for ids, found in (([2, 1, 0], [0, 1, 2]), ([2, 1, 4], [1, 2, 4])):
        given = features(a=ids, b=[0, 1, 2])
        assert as_lists(one.find(given))["stack"][:3] == found
        plain = given.stacked["stack"].plain
        assert plain is not None
        assert plain.tables == ("table b",)


class Large(IdentityCategoricalColumn):
    """Finds no room for its ids."""

    def unpruned_ids(self, features: Any) -> Any:
        raise MemoryError("no room")


def test_too_little_memory_is_no_reason_to_leave_a_column_out() -> None:
    one = Lookups((Prefetch("table a", Large("a", 5, None)),))
    with pytest.raises(MemoryError, match="no room"):
        one.find(features(**ABC))
