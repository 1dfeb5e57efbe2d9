"""A step of a model with stacks is the same model's without them: values, gradients, lookups."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

import psys as tf
from psys import feature_column as fc
from psys import layers, train
from psys.arrays import IndexedSlices
from psys.compute.features import InputFeatures
from psys.compute.primitives import combination, side_by_side
from psys.compute.train_store import TrainStore
from psys.compute.variables import ReadStore, lookup, lookup_part, untraced, variable_scope
from psys.errors import ModelError
from psys.feature_column.sparse_ids import SparseFeature, SparseIds
from psys.initializers import RandomNormal
from psys.optimizers import group
from psys.train.input_pipeline import Batch
from psys.train.model import InitialModel, loss_and_gradients

# Modules of tests are no package (importlib mode), but share what stands in their folder.
sys.path.insert(0, str(Path(__file__).parent))

from stack_models import SGD, CallModel, Spec, built, by_row, pulled_for, step

BATCH = 6
RNG = np.random.default_rng(4)
FEATURES: dict[str, Any] = {
    "a": np.array([3, 1, 3, 0, 4, 1]),
    "b": np.array([0, 0, 6, 6, 2, 5]),
    "c": np.array([8, 7, 0, 1, 8, 8]),
    "bag": SparseFeature(np.array([2, 0, 2, 1, 1]), np.array([0, 0, 2, 4, 5]), BATCH),
    "x": RNG.normal(size=(BATCH, 2)).astype(np.float32),
}
LATER = {
    **FEATURES,
    "a": np.array([2, 2, 2, 4, 4, 0]),
    "b": np.array([1, 3, 3, 3, 5, 5]),
    "bag": SparseFeature(np.array([], np.int64), np.array([], np.int64), BATCH),
}
A, B, C, BAG = (
    fc.categorical_column_with_identity(name, size)
    for name, size in (("a", 5), ("b", 7), ("c", 9), ("bag", 4))
)
ALL = (A, B, C, BAG)
NORMAL = RandomNormal(0.0, 1.0)
MARGIN = np.random.default_rng(8).normal(size=(BATCH, 64)).astype(np.float32)


class Weighted(fc.CategoricalColumn):
    """Another column's ids, the n-th of a batch with weight n − 1: one below zero, one zero."""

    def __init__(self, column: Any) -> None:
        self.column = column

    @property
    def name(self) -> str:
        return f"weighted_{self.column.name}"

    @property
    def keys(self) -> tuple[str, ...]:
        keys: tuple[str, ...] = self.column.keys
        return keys

    @property
    def num_buckets(self) -> int:
        return int(self.column.num_buckets)

    def unpruned_ids(self, features: Any) -> SparseIds:
        ids = self.column.transform(features)
        weights = np.arange(len(ids.ids), dtype=np.float32) - 1
        return SparseIds(ids.ids, ids.segments, weights, ids.batch)


WEIGHTED_C, WEIGHTED_BAG = Weighted(C), Weighted(BAG)


def embedding(column: Any, width: int = 4, **more: Any) -> Any:
    return fc.embedding_column(column, width, **{"initializer": NORMAL, **more})


def loss_of(net: Any) -> Any:
    """A loss with another gradient at each place."""
    return anp.sum(anp.sin(net) * MARGIN[:, : untraced(net).shape[1]])


def of_layer(columns: Any, **more: Any) -> CallModel:
    def call(features: Any, labels: Any) -> Spec:
        net = fc.input_layer(features, columns, **more)
        loss = loss_of(layers.dense(net, 3, name="out"))
        return Spec(loss, SGD.minimize(loss), {"net": net})

    return call


def of_linear(columns: Any, units: int = 1) -> CallModel:
    def call(features: Any, labels: Any) -> Spec:
        net = fc.linear_model(features, columns, units=units)
        loss = loss_of(net)
        return Spec(loss, SGD.minimize(loss), {"net": net})

    return call


def wide_and_deep(features: Any, labels: Any) -> Spec:
    deep = fc.input_layer(features, [fc.numeric_column("x", 2), *map(embedding, ALL)])
    net = layers.dense(deep, 1, name="out") + fc.linear_model(features, [*ALL, WEIGHTED_BAG])
    loss = loss_of(net)
    linear, other = train.FtrlOptimizer(0.1), train.AdagradOptimizer(0.1)
    train_op = group(
        linear.minimize(loss, var_list=["linear_model/"]), other.minimize(loss, var_list=None)
    )
    return Spec(loss, train_op, {"deep": deep, "net": net})


def of_embeddings(features: Any, labels: Any) -> Spec:
    loss = loss_of(fc.input_layer(features, [*map(embedding, ALL)]))
    return Spec(loss, SGD.minimize(loss))


def one_net_of_two(features: Any, labels: Any) -> Spec:
    """Of two layers of one stack only the first takes part in the loss."""
    first = fc.input_layer(features, [embedding(A), embedding(B)])
    with variable_scope("other"):
        second = fc.input_layer(features, [embedding(C), embedding(BAG)])
    loss = loss_of(first)
    return Spec(loss, SGD.minimize(loss), {"first": first, "second": second})


def both_nets(features: Any, labels: Any) -> Spec:
    first = fc.input_layer(features, [embedding(A), embedding(B)])
    with variable_scope("other"):
        second = fc.input_layer(features, [embedding(C), embedding(BAG)])
    loss = loss_of(first) + 3 * loss_of(second)
    return Spec(loss, SGD.minimize(loss), {"first": first, "second": second})


def the_same_layer_twice(features: Any, labels: Any) -> Spec:
    columns = [embedding(A), embedding(B), embedding(BAG)]
    first, second = fc.input_layer(features, columns), fc.input_layer(features, columns[:2])
    loss = loss_of(first) + loss_of(second * 2)
    return Spec(loss, SGD.minimize(loss), {"first": first, "second": second})


def one_table_of_a_layer_in_the_loss(features: Any, labels: Any) -> Spec:
    net = fc.input_layer(features, [embedding(A), embedding(B)])
    loss = loss_of(net[:, :4])
    return Spec(loss, SGD.minimize(loss), {"net": net})


def each_column_by_itself(features: Any, labels: Any) -> Spec:
    nets = []
    for column in map(embedding, ALL):
        with variable_scope(column.name):
            nets.append(column.dense(features))
    loss = loss_of(nets[0]) + loss_of(nets[1] + nets[3])
    return Spec(loss, SGD.minimize(loss), dict(zip("abcd", nets, strict=True)))


def a_column_and_a_lookup_of_one_table(features: Any, labels: Any) -> Spec:
    net = fc.input_layer(features, [embedding(A), embedding(B)])
    ids = A.transform(features).ids
    with variable_scope("input_layer/a_embedding"):
        seen, inverse = lookup(
            "embedding_weights", (5, 4), ids, NORMAL, column=A, features=features
        )
        # Not foreseen, some of them.
        more, _ = lookup("embedding_weights", (5, 4), np.array([2, 0, 2]), NORMAL)
    loss = loss_of(net) + loss_of(seen[inverse]) + anp.sum(more * more)
    return Spec(loss, SGD.minimize(loss), {"net": net, "seen": seen, "more": more})


def the_same_clipped(features: Any, labels: Any) -> Spec:
    spec = a_column_and_a_lookup_of_one_table(features, labels)
    optimizer = train.clip_gradients_by_norm(SGD, 0.5)
    return Spec(spec.loss, optimizer.minimize(spec.loss), spec.predictions)


def two_columns_over_one_table(features: Any, labels: Any) -> Spec:
    parts = []
    with variable_scope("shared"):
        for column in (A, BAG):
            ids = column.transform(features)
            rows, inverse = lookup_part(
                "weights",
                (5, 4),
                ids.ids,
                initializer=NORMAL,
                trainable=True,
                column=column,
                features=features,
            )
            parts.append(combination(rows, inverse, ids.segments, ids.weights, ids.batch, "sum"))
    parts.append(embedding(B).part(features))
    net = side_by_side(parts)
    loss = loss_of(net)
    return Spec(loss, SGD.minimize(loss), {"net": net})


def a_feature_assigned_anew(features: Any, labels: Any) -> Spec:
    features = InputFeatures(features)
    features["a"] = np.array([0, 2, 2, 4, 1, 0])
    return of_layer([embedding(A), embedding(B)])(features, labels)


def assigned_anew_in_place(features: Any, labels: Any) -> Spec:
    features["a"] = np.array([0, 2, 2, 4, 1, 0])
    return of_layer([embedding(A), embedding(B), embedding(C)])(features, labels)


def a_plain_copy_of_the_features(features: Any, labels: Any) -> Spec:
    return of_layer([embedding(A), embedding(B), embedding(BAG)])(dict(features), labels)


def an_untrained_table_beside(features: Any, labels: Any) -> Spec:
    columns = [embedding(A), embedding(B), embedding(C, trainable=False), embedding(BAG)]
    return of_layer(columns)(features, labels)


def a_table_trained_and_read(features: Any, labels: Any) -> Spec:
    """The second time its rows are only read."""
    columns = [embedding(A), embedding(B)]
    net = fc.input_layer(features, columns)
    fixed = fc.input_layer(features, columns, trainable=False)
    assert isinstance(fixed, np.ndarray)
    loss = loss_of(net * fixed)
    return Spec(loss, SGD.minimize(loss), {"net": net, "fixed": fixed})


def clipped(features: Any, labels: Any) -> Spec:
    net = fc.input_layer(features, [embedding(A), embedding(B), embedding(BAG)])
    with variable_scope("other"):
        rest = fc.input_layer(features, [embedding(C), embedding(WEIGHTED_C)])
    loss = loss_of(net) + loss_of(rest)
    first = train.MomentumOptimizer(0.1, 0.9)
    train_op = group(
        train.clip_gradients_by_norm(first, 0.5).minimize(loss, var_list=["input_layer/"]),
        first.minimize(loss, var_list=["other/"]),
    )
    return Spec(loss, train_op, {"net": net, "rest": rest})


def gradients_of_ones_own(features: Any, labels: Any) -> Spec:
    net = fc.input_layer(features, [embedding(A), embedding(B), embedding(BAG)])
    loss = loss_of(net)
    pairs = [
        (IndexedSlices(one.indices, one.values * 2), name)
        for one, name in SGD.compute_gradients(loss)
        if isinstance(one, IndexedSlices)
    ]
    return Spec(loss, SGD.apply_gradients(pairs), {"net": net})


def in_doubles(features: Any, labels: Any) -> Spec:
    """Beside numbers of float64 the whole layer is, and gradients are float32 all the same."""
    net = side_by_side(
        [np.ones((BATCH, 1)), embedding(A, 1).part(features), layers.dense(features["x"], 1)]
    )
    with variable_scope("b"):
        net = side_by_side([net, embedding(B, 1).part(features), embedding_c(features)])
    loss = loss_of(net)
    return Spec(loss, SGD.minimize(loss), {"net": net})


def embedding_c(features: Any) -> Any:
    with variable_scope("c"):
        return embedding(C, 1).part(features)


EXACT: dict[str, CallModel] = {
    "columns of one width": of_layer([*map(embedding, ALL)]),
    "columns of several widths": of_layer(
        [embedding(A, 2), embedding(B, 3), embedding(C, 2), embedding(BAG, 3)]
    ),
    "beside numbers": of_layer([fc.numeric_column("x", 2), embedding(A), embedding(B)]),
    "linear columns": of_linear([A, B, C]),
    "linear columns of units": of_linear([A, B, C], 3),
    "max_norm": of_layer([embedding(A, max_norm=0.5), embedding(B), embedding(C)]),
    "max_norm of all": of_layer([embedding(A, max_norm=0.5), embedding(B, max_norm=9.0)]),
    "frozen": of_layer([embedding(A), fc.numeric_column("x", 2)], trainable=False),
    **{
        f"{combiner} of bags, weighted too": of_layer(
            [embedding(one, combiner=combiner) for one in (A, WEIGHTED_C, BAG, WEIGHTED_BAG)]
        )
        for combiner in ("sum", "mean", "sqrtn")
    },
    **{
        one.__name__.replace("_", " "): one
        for one in (
            one_net_of_two,
            both_nets,
            the_same_layer_twice,
            one_table_of_a_layer_in_the_loss,
            each_column_by_itself,
            two_columns_over_one_table,
            a_feature_assigned_anew,
            assigned_anew_in_place,
            a_plain_copy_of_the_features,
            an_untrained_table_beside,
            a_table_trained_and_read,
            clipped,
            gradients_of_ones_own,
            in_doubles,
        )
    },
}
# Equal but for the order of sums: what is computed of a stack is added up after what is beside
# it, whichever comes first by name; and so is its gradient, to what rows got by themselves.
ROUNDED: dict[str, CallModel] = {
    "a column and a lookup of one table": a_column_and_a_lookup_of_one_table,
    "a column and a lookup of one table, clipped": the_same_clipped,
    "bags and numbers added up": of_linear([A, BAG, WEIGHTED_BAG, fc.numeric_column("x", 2)]),
    "wide and deep": wide_and_deep,
}
LOOKED_UP = {**EXACT, **ROUNDED}


def assert_equal(found: Any, expected: Any, case: str) -> None:
    assert found.keys() == expected.keys()
    for name, one in found.items():
        if isinstance(one, dict):
            assert one.keys() == expected[name].keys(), name
            mine = [one[row] for row in sorted(one)]
            other = [expected[name][row] for row in sorted(one)]
        else:
            mine, other = one, expected[name]
        if case in EXACT:
            np.testing.assert_array_equal(mine, other, name)
        else:
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("later", [None, LATER], ids=["the first batch", "another batch"])
@pytest.mark.parametrize("case", LOOKED_UP)
def test_a_step_with_stacks_is_the_one_without(case: str, later: Any) -> None:
    stacked, alone = (
        step(lambda: LOOKED_UP[case], FEATURES, stacked=stacked, later=later)
        for stacked in (True, False)
    )
    assert stacked.predictions.keys() == alone.predictions.keys()
    assert_equal(stacked.predictions, alone.predictions, case)
    assert {n: one.dtype for n, one in stacked.predictions.items()} == {
        n: one.dtype for n, one in alone.predictions.items()
    }
    assert_equal(stacked.gradients, alone.gradients, case)
    assert stacked.loss == pytest.approx(alone.loss, rel=0 if case in EXACT else 1e-5)
    assert {n: sorted(ids) for n, ids in stacked.fetched.items()} == {
        n: sorted(ids) for n, ids in alone.fetched.items()
    }
    assert not alone.model.lookups.stacks
    assert bool(stacked.model.lookups.stacks) is (case != "frozen")


@pytest.mark.parametrize("case", ["columns of one width", "linear columns", "wide and deep"])
def test_what_is_computed_together_is_sent_together(case: str) -> None:
    one = step(lambda: LOOKED_UP[case], FEATURES, stacked=True)
    tables = {name for name, spec in one.model.specs.items() if spec.stack}
    assert tables
    assert not tables & one.sent.keys()
    assert one.model.lookups.stacks.keys() <= one.sent.keys()
    assert not one.fetched


def test_tables_without_part_in_the_loss_have_no_gradient_rather_than_zeros() -> None:
    one = step(lambda: one_net_of_two, FEATURES, stacked=True)
    ((name, stack),) = one.model.lookups.stacks.items()
    assert len(stack.tables) == 4
    assert set(one.gradients) == {f"input_layer/{n}_embedding/embedding_weights" for n in "ab"}
    assert [len(rows) for _, rows in sorted(one.gradients.items())] == [4, 4]
    assert isinstance(sent := one.sent[name], IndexedSlices)
    assert len(sent.indices) == 8


def test_a_table_foreseen_and_not_looked_up_has_no_gradient() -> None:
    def call(features: Any, labels: Any) -> Spec:
        net = fc.input_layer(features, [*map(embedding, next(turns))])
        loss = loss_of(net)
        return Spec(loss, SGD.minimize(loss), {"net": net})

    found = []
    for stacked in (True, False):
        turns = iter([ALL, (A, C)])
        found.append(step(lambda: call, FEATURES, stacked=stacked))
    assert_equal(found[0].gradients, found[1].gradients, "columns of one width")
    assert set(found[0].gradients) == {f"input_layer/{n}_embedding/embedding_weights" for n in "ac"}


def test_a_loss_of_no_table_names_those_of_the_stack() -> None:
    def call(features: Any, labels: Any) -> Spec:
        fc.input_layer(features, [embedding(A), embedding(B)])
        loss = np.float32(1)
        return Spec(loss, SGD.minimize(loss))

    for stacked in (True, False):
        with pytest.raises(ModelError, match=r"none of \['input_layer/a_emb.*'input_layer/b_emb"):
            step(lambda: call, FEATURES, stacked=stacked)


def test_whoever_changes_gradients_gets_them_by_variable() -> None:
    seen: list[list[str]] = []

    def note(gradients: Any) -> Any:
        seen.append(sorted(gradients))
        return {name: IndexedSlices(one.indices, one.values * 2) for name, one in gradients.items()}

    def call(features: Any, labels: Any) -> Spec:
        net = fc.input_layer(features, [*map(embedding, ALL)])
        loss = loss_of(net)
        mine = ["input_layer/b_embedding/", "input_layer/bag_embedding/"]
        noting = SGD.transforming(note).minimize(loss, var_list=mine)
        return Spec(loss, group(SGD.minimize(loss), noting))

    tables = [f"input_layer/{name}_embedding/embedding_weights" for name in ("b", "bag")]
    plain = step(lambda: of_embeddings, FEATURES, stacked=True)
    found = step(lambda: call, FEATURES, stacked=True)
    assert seen[-1] == tables
    for name in tables:
        for row, values in plain.gradients[name].items():
            assert found.gradients[name][row] == [2 * one for one in values]
    assert found.gradients.keys() == plain.gradients.keys()
    assert len(found.model.lookups.stacks) == 2


def test_computed_gradients_name_tables_without_part_in_the_loss() -> None:
    seen: list[dict[str, bool]] = []

    def call(features: Any, labels: Any) -> Spec:
        spec = one_net_of_two(features, labels)
        with variable_scope("input_layer/a_embedding"):
            lookup("embedding_weights", (5, 4), np.array([1]), NORMAL)  # in no loss at all
        pairs = SGD.compute_gradients(spec.loss)
        seen.append({name.split("/")[-2]: one is None for one, name in pairs})
        return Spec(spec.loss, SGD.apply_gradients(pairs))

    for stacked in (True, False):
        step(lambda: call, FEATURES, stacked=stacked)
        assert seen[-1] == {
            "a_embedding": False,
            "b_embedding": False,
            "bag_embedding": True,
            "c_embedding": True,
        }


def test_rows_pulled_for_another_batch_are_taken_for_no_others() -> None:
    call = EXACT["columns of one width"]
    model = built(call, FEATURES, stacked=True)
    values = InitialModel(model.specs, seed=1)
    mine, other = (Batch(InputFeatures(one), None) for one in (FEATURES, LATER))
    for batch in (mine, other):
        batch.prepare(model.lookups)
    dense = {n: values.read(n) for n, one in model.specs.items() if not one.sparse}
    expected = step(lambda: call, FEATURES, stacked=True)
    store = TrainStore(
        model.specs,
        dense,
        pulled_for(model, other, values),
        values.read_rows,
        stacks=model.lookups.stacks,
        seed=1,
    )
    loss, gradients, _ = loss_and_gradients(model, call, mine.features, None, store)
    assert loss == expected.loss
    assert by_row(model, gradients) == expected.gradients


def test_evaluation_reads_what_training_computes() -> None:
    for case, call in LOOKED_UP.items():
        model = built(call, FEATURES, stacked=True)
        values = InitialModel(model.specs, seed=1)
        with ReadStore(values.read, values.read_rows, seed=1) as store:
            read = call(InputFeatures(FEATURES), None) if case != "gradients of ones own" else None
            assert "stack" not in " ".join(store._used)
        if read is None:
            continue
        expected = step(lambda call=call: call, FEATURES, stacked=True).predictions
        for name, one in read.predictions.items():
            assert isinstance(one, np.ndarray)
            np.testing.assert_allclose(one, expected[name], rtol=1e-5, atol=1e-6, err_msg=case)


# ---------------------------------------------------------------- which tables make a stack


def stacks(call: CallModel) -> dict[str, list[str]]:
    found = built(call, FEATURES, stacked=True).lookups.stacks
    return {name: [one.split("/")[-2] for one in stack.tables] for name, stack in found.items()}


def trained_by(*optimizers: Any) -> CallModel:
    def call(features: Any, labels: Any) -> Spec:
        net = fc.input_layer(features, [*map(embedding, ALL)])
        loss = loss_of(net)
        names = [["input_layer/a_embedding/", "input_layer/b_embedding/"], None]
        train_ops = [
            one.minimize(loss, var_list=own)
            for one, own in zip(optimizers, names[-len(optimizers) :], strict=True)
        ]
        return Spec(loss, group(*train_ops))

    return call


def test_tables_of_one_width_and_one_minimization_are_a_stack() -> None:
    name = "stack:input_layer/a_embedding/embedding_weights"
    columns = [embedding(A), embedding(B, 3), embedding(C), embedding(BAG, 2)]
    assert stacks(of_layer(columns)) == {name: ["a_embedding", "c_embedding"]}
    assert stacks(of_layer([embedding(A), embedding(B, 3)])) == {}
    other = "stack:input_layer/bag_embedding/embedding_weights"
    assert stacks(trained_by(SGD, SGD)) == {
        name: ["a_embedding", "b_embedding"],
        other: ["bag_embedding", "c_embedding"],
    }


def test_an_optimizer_that_does_not_work_by_row_has_no_stack() -> None:
    adam = train.AdamOptimizer(0.1)
    assert stacks(trained_by(adam)) == {}
    assert [len(one) for one in stacks(trained_by(SGD, adam)).values()] == [2]


def test_a_variable_may_have_the_name_a_stack_would_have() -> None:
    def call(features: Any, labels: Any) -> Spec:
        taken = tf.get_variable("stack:a/weights", (), trainable=False)
        net = 0.0
        for column in (A, B):
            with variable_scope(column.name):
                ids = column.transform(features).ids
                rows, inverse = lookup("weights", (9, 2), ids, NORMAL)
                net = net + rows[inverse] + taken
        loss = loss_of(net)
        return Spec(loss, SGD.minimize(loss))

    assert stacks(call) == {"stack:a/weights:": ["a", "b"]}
    assert step(lambda: call, FEATURES, stacked=True).gradients


def test_the_digest_tells_apart_programs_of_other_stacks() -> None:
    alone, stacked = (built(EXACT["both nets"], FEATURES, stacked=one) for one in (False, True))
    assert alone.digest != stacked.digest
    assert stacked.digest == built(EXACT["both nets"], LATER, stacked=True).digest


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("case", LOOKED_UP)
def test_a_step_is_freed_without_the_garbage_collector(case: str) -> None:
    call = LOOKED_UP[case]
    model = built(call, FEATURES, stacked=True)
    values = InitialModel(model.specs, seed=1)
    gc.collect()
    gc.disable()
    try:
        batch = Batch(InputFeatures(FEATURES), None)
        batch.prepare(model.lookups)
        rows = pulled_for(model, batch, values)
        dense = {n: values.read(n).copy() for n, one in model.specs.items() if not one.sparse}
        arrays = [one for _, one in rows.values()] + list(dense.values())
        fetch: Callable[..., Any] = values.read_rows
        store = TrainStore(model.specs, dense, rows, fetch, stacks=model.lookups.stacks, seed=1)
        loss, gradients, spec = loss_and_gradients(model, call, batch.features, None, store)
        alive = [weakref.ref(one) for one in (*arrays, store)]
        assert all(one() is not None for one in alive)
        # The batch itself is kept: it may be trained on again.
        del rows, dense, arrays, store, loss, gradients, spec
        assert [one() for one in alive] == [None] * len(alive)
    finally:
        gc.enable()
