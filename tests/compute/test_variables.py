from __future__ import annotations

import copy
import threading
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

from psys.arrays import Array, IndexedSlices
from psys.compute import primitives
from psys.compute.variables import (
    BuildStore,
    InputFeatures,
    Prefetch,
    ReadStore,
    TrainStore,
    current_global_step,
    current_store,
    get_variable,
    lookup,
    untraced,
    variable_scope,
)
from psys.errors import ModelError
from psys.initializers import Constant, GlorotUniform

TABLE = np.arange(20, dtype=np.float32).reshape(10, 2)


def model(ids: Array, column: Any = None, features: Any = None) -> Any:
    with variable_scope("net"):
        kernel = get_variable("kernel", (2, 1), initializer=Constant(0.5))
        with variable_scope("table"):
            rows, inverse = lookup("weights", (10, 2), ids, column=column, features=features)
    out = primitives.dense(rows[inverse], kernel)
    return primitives.weighted_sum(out, None, out.size)


def built(ids: Array) -> BuildStore:
    with BuildStore(seed=1) as store:
        model(ids)
    return store


def no_fetch(table: str, ids: Array) -> Array:
    raise AssertionError(f"{table} {ids} should have been prefetched")


def test_the_first_run_finds_the_variables() -> None:
    store = built(np.array([3, 3, 9]))
    assert list(store.specs) == ["net/kernel", "net/table/weights"]
    kernel, table = store.specs.values()
    assert (kernel.shape, kernel.sparse, kernel.initializer) == ((2, 1), False, Constant(0.5))
    assert (table.shape, table.sparse, table.initializer) == ((10, 2), True, GlorotUniform())
    assert store.trainable == {"net/kernel", "net/table/weights"}


def test_the_first_run_gives_initial_values_and_never_a_whole_table() -> None:
    with BuildStore(seed=1):
        np.testing.assert_array_equal(get_variable("b", (3,), initializer=Constant(2.0)), [2, 2, 2])
        assert get_variable("scalar", ()).shape == ()
        # 10**15 rows: making them would need petabytes.
        rows, inverse = lookup("t", (10**15, 4), np.array([10**14, 5, 5]))
    assert rows.shape == (2, 4)
    np.testing.assert_array_equal(inverse, [1, 0, 0])


def test_only_lookups_of_the_batch_itself_can_be_prefetched() -> None:
    features = InputFeatures(x=np.array([1]))
    ids = np.array([1])
    with BuildStore(seed=1) as store:
        lookup("a", (5, 1), ids, column="column a", features=features)
        lookup("a", (5, 1), ids, column="column a", features=features)
        lookup("b", (5, 1), ids, column="column b", features=dict(features))
        lookup("c", (5, 1), ids)
    assert store.prefetches == [Prefetch("a", "column a")]


def test_gradients_of_dense_variables_and_of_rows() -> None:
    ids = np.array([3, 1, 3])
    kernel = np.array([[2.0], [3.0]], np.float32)
    rows = {"net/table/weights": (np.array([1, 3]), TABLE[[1, 3]])}
    with TrainStore(built(ids).specs, {"net/kernel": kernel}, rows, no_fetch) as store:
        loss = model(ids)
        gradients = store.gradients(loss)
    np.testing.assert_allclose(float(untraced(loss)), (TABLE[[3, 1, 3]] @ kernel).mean(), rtol=1e-6)
    dense = gradients["net/kernel"]
    assert isinstance(dense, np.ndarray)
    assert dense.dtype == np.float32
    np.testing.assert_allclose(dense, TABLE[[3, 1, 3]].mean(axis=0)[:, None], rtol=1e-6)
    sparse = gradients["net/table/weights"]
    assert isinstance(sparse, IndexedSlices)
    np.testing.assert_array_equal(sparse.indices, [1, 3])
    assert sparse.values.dtype == np.float32
    np.testing.assert_allclose(sparse.values, [[2 / 3, 1], [4 / 3, 2]], rtol=1e-6)


@pytest.mark.parametrize("known", [[], [1], [1, 2, 3, 8], [8, 9]])
def test_rows_that_were_not_prefetched_are_fetched(known: list[int]) -> None:
    ids = np.array([3, 1, 3])
    asked: list[list[int]] = []

    def fetch(table: str, missing: Array) -> Array:
        asked.append(missing.tolist())
        return TABLE[missing]

    rows = {"net/table/weights": (np.array(known, np.int64), TABLE[known])}
    values = {"net/kernel": np.ones((2, 1), np.float32)}
    with TrainStore(built(ids).specs, values, rows, fetch) as store:
        loss = model(ids)
        gradients = store.gradients(loss)
    np.testing.assert_allclose(float(untraced(loss)), TABLE[[3, 1, 3]].sum() / 3, rtol=1e-6)
    sparse = gradients["net/table/weights"]
    assert isinstance(sparse, IndexedSlices)
    # A row that was prefetched and not used gets no gradient, not even a zero one.
    np.testing.assert_array_equal(sparse.indices, [1, 3])
    missing = [row for row in (1, 3) if row not in known]
    assert asked == ([missing] if missing else [])


def test_two_lookups_in_one_table_add_up() -> None:
    with BuildStore(seed=0) as build:
        lookup("t", (10, 2), np.array([0]))
    with TrainStore(build.specs, {}, {}, lambda _, ids: TABLE[ids]) as store:
        first, _ = lookup("t", (10, 2), np.array([1, 4]))
        second, _ = lookup("t", (10, 2), np.array([4, 7]))
        gradients = store.gradients(anp.sum(first) + 2 * anp.sum(second))
    sparse = gradients["t"]
    assert isinstance(sparse, IndexedSlices)
    summed = sparse.summed()
    np.testing.assert_array_equal(summed.indices, [1, 4, 7])
    np.testing.assert_array_equal(summed.values[:, 0], [1, 3, 2])


def test_a_variable_asked_for_twice_is_one_variable() -> None:
    with BuildStore(seed=0) as build:
        get_variable("w", (2,))
    with TrainStore(build.specs, {"w": np.array([1, 2], np.float32)}, {}, no_fetch) as store:
        loss = anp.sum(get_variable("w", (2,)) * get_variable("w", (2,)))
        gradients = store.gradients(loss)
    np.testing.assert_allclose(gradients["w"], [2, 4])


def test_what_is_not_trainable_is_not_traced() -> None:
    with BuildStore(seed=0) as build:
        get_variable("w", (2,))
        get_variable("fixed", (2,), trainable=False)
        get_variable("count", (2,), dtype="int64", initializer=Constant(0))
    assert build.trainable == {"w"}
    values = {name: np.ones(2, spec.dtype) for name, spec in build.specs.items()}
    with TrainStore(build.specs, values, {}, no_fetch) as store:
        fixed = get_variable("fixed", (2,), trainable=False)
        assert isinstance(fixed, np.ndarray)
        loss = anp.sum(get_variable("w", (2,)) * fixed * get_variable("count", (2,), "int64"))
        assert set(store.gradients(loss)) == {"w"}


def test_what_was_pulled_is_only_to_be_read() -> None:
    with BuildStore(seed=0) as build:
        get_variable("w", (2,))
        get_variable("fixed", (2,), trainable=False)
    values = {"w": np.ones(2, np.float32), "fixed": np.ones(2, np.float32)}
    for _ in range(2):  # what was pulled may serve more than one step
        with TrainStore(build.specs, values, {}, no_fetch):
            fixed = get_variable("fixed", (2,), trainable=False)
            with pytest.raises(ValueError, match="read-only"):
                fixed += 1
            assert fixed.tolist() == [1, 1]
            with pytest.raises(ValueError, match="read-only"):
                untraced(get_variable("w", (2,)))[:] = 5


def test_a_loss_without_variables_has_no_gradients() -> None:
    with BuildStore(seed=0) as build:
        get_variable("w", (2,))
    with TrainStore(build.specs, {"w": np.ones(2, np.float32)}, {}, no_fetch) as store:
        get_variable("w", (2,))
        with pytest.raises(ModelError, match=r"No gradients provided for any variable: .*'w'"):
            store.gradients(np.float32(3))


def test_a_loss_must_be_a_scalar() -> None:
    with BuildStore(seed=0) as build:
        get_variable("w", (2,))
    with (
        TrainStore(build.specs, {"w": np.ones(2, np.float32)}, {}, no_fetch) as store,
        pytest.raises(ModelError, match=r"Loss must be scalar, given shape \(2,\)"),
    ):
        store.gradients(get_variable("w", (2,)) * 2)


def test_a_scalar_variable_has_a_scalar_gradient() -> None:
    with BuildStore(seed=0) as build:
        get_variable("s", ())
    with TrainStore(build.specs, {"s": np.array(3, np.float32)}, {}, no_fetch) as store:
        gradient = store.gradients(get_variable("s", ()) ** 2)["s"]
    assert isinstance(gradient, np.ndarray)
    assert (gradient.shape, gradient.dtype, float(gradient)) == ((), np.float32, 6.0)


def test_autograds_own_grad_nests_in_a_step() -> None:
    with BuildStore(seed=0) as build:
        get_variable("w", ())
    with TrainStore(build.specs, {"w": np.array(3, np.float32)}, {}, no_fetch) as store:
        w = get_variable("w", ())
        slope = autograd.grad(lambda x: w * x**2)(2.0)  # 4 w
        gradients = store.gradients(slope * w)  # 4 w²
    np.testing.assert_allclose(gradients["w"], 24)


def test_another_shape_is_an_error_in_every_store() -> None:
    stores = [
        BuildStore(seed=0),
        ReadStore(lambda _: np.ones(2), lambda _, ids: TABLE[ids]),
        TrainStore(BuildStore(0).specs, {}, {}, no_fetch),
    ]
    with stores[0]:
        get_variable("w", (2,))
        with pytest.raises(ModelError, match=r"'w' was first .* \(2,\), now with \(3,\)"):
            get_variable("w", (3,))
        with pytest.raises(ModelError, match="both as a whole"):
            lookup("w", (2,), np.array([0]))
    with stores[1], pytest.raises(ModelError, match=r"asks for shape \(3,\).*shape \(2,\)"):
        get_variable("w", (3,))
    with stores[1], pytest.raises(ModelError, match=r"rows of shape \(3,\)"):
        lookup("t", (10, 3), np.array([1]))
    with stores[2], pytest.raises(ModelError, match="same variables on every batch"):
        get_variable("w", (3,))


def test_an_id_outside_the_table_is_named() -> None:
    with BuildStore(seed=0):
        for wrong in (-1, 10):
            with pytest.raises(ModelError, match=f"rows 0 to 9; got the id {wrong}"):
                lookup("t", (10, 2), np.array([3, wrong]))
        with pytest.raises(ModelError, match="must be integers"):
            lookup("t", (10, 2), np.array([1.0]))
        rows, inverse = lookup("t", (10, 2), np.array([], np.int64))
        assert (rows.shape, inverse.shape) == ((0, 2), (0,))


def test_a_read_store_reads_each_variable_once() -> None:
    asked: list[Any] = []

    def read_value(name: str) -> Array:
        asked.append(name)
        return np.ones((2, 1), np.float32)

    def read_rows(name: str, ids: Array) -> Array:
        asked.append((name, ids.tolist()))
        return TABLE[ids]

    with ReadStore(read_value, read_rows, global_step=12):
        result = model(np.array([3, 1, 3]))
        model(np.array([3, 1, 3]))
        assert current_global_step() == 12
    assert not hasattr(result, "_node")
    np.testing.assert_allclose(result, TABLE[[3, 1, 3]].sum() / 3, rtol=1e-6)
    assert asked[:2] == ["net/kernel", ("net/table/weights", [1, 3])]
    assert asked.count("net/kernel") == 1


def test_outside_a_model_there_are_no_variables() -> None:
    for call in (lambda: get_variable("w", (1,)), current_global_step):
        with pytest.raises(ModelError, match="inside a model_fn"):
            call()


def test_each_thread_has_its_own_store() -> None:
    seen: list[str] = []

    def look() -> None:
        try:
            current_store()
        except ModelError:
            seen.append("none")

    with BuildStore(seed=0):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == ["none"]


def test_a_scope_closes_and_names_count_up_in_it() -> None:
    with BuildStore(seed=0) as store:
        with variable_scope("a"):
            assert store.unique_name("dense") == "dense"
            assert store.unique_name("dense") == "dense_1"
            assert store.full_name("w") == "a/w"
        assert store.unique_name("dense") == "dense"
        assert store.full_name("w") == "w"


def test_random_numbers_follow_the_seed_and_the_step() -> None:
    draws = [
        BuildStore(seed, global_step=step).generator.random()
        for seed, step in ((1, 5), (1, 5), (1, 6), (2, 5))
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


class Column:
    def __init__(self, *keys: str) -> None:
        self.keys = keys


def test_a_feature_assigned_anew_forgets_its_columns() -> None:
    age, cross, other = Column("age"), Column("age", "job"), Column("city")
    features = InputFeatures(age=1, job=2, city=3)

    def remember() -> None:
        features.transformed.update(dict.fromkeys((age, cross, other), "ids"))

    remember()
    features["age"] = 5
    assert set(features.transformed) == {other}
    remember()
    features.update(job=7)
    assert set(features.transformed) == {age, other}
    remember()
    features |= {"city": 1}
    assert set(features.transformed) == {age, cross}
    assert dict(features) == {"age": 5, "job": 7, "city": 1}
    remember()
    assert features.setdefault("age", 6) == 5
    assert set(features.transformed) == {age, cross, other}
    features.pop("age")
    assert features.setdefault("age", 6) == 6
    assert set(features.transformed) == {other}


@pytest.mark.parametrize("make", [copy.copy, InputFeatures.copy])
def test_a_copy_of_features_knows_the_same_ids_and_forgets_alone(make: Any) -> None:
    age, other = Column("age"), Column("city")
    features = InputFeatures(age=1, city=3)
    features.note(lambda: ({age: "ids", other: "ids"}, {}))
    features.uniques["column"] = features.stacked["stack"] = "found"  # type: ignore[assignment]
    same = make(features)
    assert isinstance(same, InputFeatures)
    assert dict(same) == dict(features)
    assert (same.transformed, same.uniques, same.stacked) == (
        features.transformed,
        features.uniques,
        features.stacked,
    )
    same["age"] = 5
    same.transformed[age] = "ids of 5"
    assert features == {"age": 1, "city": 3}
    assert features.transformed == {age: "ids", other: "ids"}
