"""Models whose tables make stacks, in all the ways a program may look them up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np

from psys import feature_column as fc
from psys import layers, train
from psys.arrays import IndexedSlices
from psys.compute.features import InputFeatures
from psys.compute.layer_parts import one_by_one
from psys.compute.primitives import combination, side_by_side
from psys.compute.variables import lookup, lookup_part, untraced, variable_scope
from psys.feature_column.sparse_ids import SparseFeature, SparseIds
from psys.initializers import RandomNormal
from psys.optimizers import group

# Modules of tests are no package (importlib mode), but share what stands in their folder.
sys.path.insert(0, str(Path(__file__).parent))

from stack_models import SGD, CallModel, Spec

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
    net = side_by_side(one_by_one(parts))
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
    parts = [np.ones((BATCH, 1)), embedding(A, 1).part(features), layers.dense(features["x"], 1)]
    net = side_by_side(one_by_one(parts))
    with variable_scope("b"):
        net = side_by_side(one_by_one([net, embedding(B, 1).part(features), embedding_c(features)]))
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
