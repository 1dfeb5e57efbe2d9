"""A step of a model with stacks is the same model's without them: values, gradients, lookups."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import psys as tf
from psys import feature_column as fc
from psys import train
from psys.arrays import IndexedSlices
from psys.compute.features import InputFeatures
from psys.compute.train_store import TrainStore
from psys.compute.variables import ReadStore, lookup, variable_scope
from psys.errors import ModelError
from psys.optimizers import group
from psys.train.input_pipeline import Batch
from psys.train.model import InitialModel, loss_and_gradients

# Modules of tests are no package (importlib mode), but share what stands in their folder.
sys.path.insert(0, str(Path(__file__).parent))

from stack_models import SGD, CallModel, Spec, built, by_row, pulled_for, step
from stacked_cases import (
    ALL,
    BAG,
    EXACT,
    FEATURES,
    LATER,
    LOOKED_UP,
    NORMAL,
    A,
    B,
    C,
    assert_equal,
    embedding,
    loss_of,
    of_embeddings,
    of_layer,
    one_net_of_two,
)


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
