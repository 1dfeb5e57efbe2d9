"""A layer that goes on from the step before computes the bits it would compute without that."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psys import feature_column as fc
from psys import layers
from psys.compute.layer_parts import LayerPlan
from psys.compute.train_store import TrainStore
from psys.errors import ModelError
from psys.feature_column.categorical import IdentityCategoricalColumn
from psys.feature_column.column import DenseColumn
from psys.feature_column.embedding import EmbeddingColumn
from psys.feature_column.sparse_ids import SparseFeature, SparseIds
from psys.initializers import Constant
from psys.train.model import InitialModel, Model

# Modules of tests are no package (importlib mode), but share what stands in their folder.
sys.path.insert(0, str(Path(__file__).parent))

from planned_step import step
from stack_models import SGD, CallModel, Spec, built
from stacked_cases import (
    BAG,
    BATCH,
    FEATURES,
    LATER,
    LOOKED_UP,
    A,
    B,
    C,
    embedding,
    loss_of,
    of_layer,
)

ONE_EACH = {**LATER, "bag": SparseFeature(np.array([1, 1, 0, 3, 2, 2]), np.arange(6), 6)}
BATCHES = (FEATURES, LATER, ONE_EACH, FEATURES)
FIRST_THREE = {
    name: SparseFeature(np.array([1]), np.array([2]), 3) if name == "bag" else one[:3]
    for name, one in FEATURES.items()
}


def check(call: CallModel, given: Iterable[dict[str, Any]] = BATCHES) -> Model:
    """Check that plans change nothing; return the model, with its plans."""
    model = built(call, FEATURES, stacked=True)
    for one in given:
        assert step(call, model, one, model.lookups.layers) == step(call, model, one, {})
    return model


def plans_of(model: Model) -> list[tuple[str, ...]]:
    """Return which columns are looked up together, by stack."""
    return [
        tuple(table.split("/")[-2] for table in stack.tables)
        for plan in model.lookups.layers.values()
        if isinstance(plan, LayerPlan)
        for stack in plan.stacks
    ]


@pytest.mark.parametrize("case", LOOKED_UP)
def test_every_way_to_look_up(case: str) -> None:
    check(LOOKED_UP[case])


def test_only_what_gives_one_row_is_looked_up_together() -> None:
    columns = [fc.numeric_column("x", 2), *map(embedding, (A, B, C, BAG))]
    assert plans_of(check(of_layer(columns))) == [("a_embedding", "b_embedding", "c_embedding")]
    # Of each stack those that are two or more.
    columns = [embedding(A, 2), embedding(B, 3), embedding(C, 2), embedding(BAG, 3)]
    assert plans_of(check(of_layer(columns))) == [("a_embedding", "c_embedding")]
    # As it was in the step before, not in the first of all.
    columns = [*map(embedding, (A, B, BAG))]
    model = check(of_layer(columns), (FEATURES, ONE_EACH, ONE_EACH))
    assert plans_of(model) == [("a_embedding", "b_embedding", "bag_embedding")]
    model = check(of_layer(columns), (FEATURES, ONE_EACH, LATER))
    assert plans_of(model) == [("a_embedding", "b_embedding")]
    clipped = [embedding(A, max_norm=0.5), embedding(B), embedding(C, trainable=False)]
    assert plans_of(check(of_layer(clipped))) == []


@pytest.mark.parametrize("case", ["columns of one width", "linear columns", "beside numbers"])
def test_they_are_looked_up_once_a_stack(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = LOOKED_UP[case]
    model = built(call, FEATURES, stacked=True)
    single: list[str] = []
    lookup_part = TrainStore.lookup_part

    def counted(store: TrainStore, name: str, *rest: Any) -> Any:
        single.append(name)
        return lookup_part(store, name, *rest)

    monkeypatch.setattr(TrainStore, "lookup_part", counted)
    counts = []
    for given in (FEATURES, LATER, {**LATER, "a": np.array([-1, 1, 1, 1, 1, 1])}):
        single.clear()
        step(call, model, given, model.lookups.layers)
        counts.append(len(single))
    assert counts[1] == (1 if case == "columns of one width" else 0)  # the bag
    assert counts[0] > counts[1]
    assert counts[2] > counts[1]  # an example without an id: not as foreseen


def test_tables_looked_up_together_are_checked_as_each_alone() -> None:
    model = built(of_layer([embedding(A), embedding(B)]), FEATURES, stacked=True)
    first, second = (name for name, one in model.specs.items() if one.sparse)
    store = TrainStore(model.specs, {}, {}, InitialModel(model.specs, seed=1).read_rows)
    shapes = {name: model.specs[name].shape for name in (first, second)}
    store.use_tables({first: shapes[first]})
    store.use_tables(shapes)
    with pytest.raises(ModelError, match="first asked for with shape"):
        store.use_tables({first: (1, 1)})
    store.check_use("whole", (2, 3), sparse=False)
    with pytest.raises(ModelError, match="both as a whole"):
        store.use_tables({"whole": (2, 3)})


def test_columns_made_anew_in_every_step_are_not_kept() -> None:
    def call(features: Any, labels: Any) -> Spec:
        return of_layer([embedding(A), embedding(B)])(features, labels)

    model = check(call)
    assert model.lookups.layers == {"input_layer/": None}


def test_an_initializer_that_cannot_be_compared() -> None:
    def call(features: Any, labels: Any) -> Spec:
        tables = [embedding(one, 4, initializer=Uneven()) for one in (A, B)]
        return of_layer(tables)(features, labels)

    check(call)


class Uneven(Constant):
    """Whether two are equal is an array."""

    def __init__(self) -> None:
        super().__init__(0.5)

    __hash__ = Constant.__hash__

    def __eq__(self, other: object) -> Any:
        return np.array([True, False])


# ---------------------------------------------------------------- features that model_fn changes


class Forgetful(IdentityCategoricalColumn):
    """Keeps nothing of what it made of a batch."""

    def transform(self, features: Any) -> SparseIds:
        return self.unpruned_ids(features)


NEW = np.array([0, 2, 2, 4, 1, 0])
CHANGES: dict[str, Any] = {
    "assigned": lambda features: features.__setitem__("a", NEW),
    "updated": lambda features: features.update(a=NEW),
    "in a copy": lambda features: features.copy().__setitem__("a", NEW),
    "its ids asked for": lambda features: features.transformed,
    "another one": lambda features: features.__setitem__("new", NEW),
}


class Silent(IdentityCategoricalColumn):
    """Does not say in a tuple what it reads."""

    keys = "a"  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [IdentityCategoricalColumn, Forgetful, Silent])
@pytest.mark.parametrize("change", CHANGES)
def test_a_feature_changed_in_some_steps(change: str, kind: Any) -> None:
    first = kind("a", 5, None)
    turn = {"change": False}
    layer = of_layer([embedding(first), embedding(B), embedding(C)])

    def call(features: Any, labels: Any) -> Spec:
        if turn["change"]:
            CHANGES[change](features)
        return layer(features, labels)

    model = built(call, FEATURES, stacked=True)
    losses = []
    for changed in (False, False, True, False):
        turn["change"] = changed
        found = step(call, model, LATER, model.lookups.layers)
        assert found == step(call, model, LATER, {})
        losses.append(found[0])
    assert losses[0] == losses[1] == losses[3]
    assert (losses[2] != losses[0]) is (change in ("assigned", "updated"))


@pytest.mark.parametrize("copies", ["before", "after"])
def test_a_copy_that_is_changed_is_what_is_looked_up(copies: str) -> None:
    layer = of_layer([embedding(A), embedding(B)])
    turn = {"change": False}

    def call(features: Any, labels: Any) -> Spec:
        if copies == "before":
            features = features.copy()
        if turn["change"]:
            features["a"] = NEW
        return layer(features.copy() if copies == "after" else features, labels)

    model = built(call, FEATURES, stacked=True)
    losses = []
    for changed in (False, False, True):
        turn["change"] = changed
        found = step(call, model, LATER, model.lookups.layers)
        assert found == step(call, model, LATER, {})
        losses.append(found[0])
    assert losses[0] == losses[1] != losses[2]


# ---------------------------------------------------------------- columns of a program's own


class Tower(DenseColumn):
    """A layer in a column: how often it is made counts, by its name."""

    name = "tower"
    keys = ("x",)
    width = 4

    def dense(self, features: Any, *, trainable: bool = True) -> Any:
        return layers.dense(features["x"], 4)


def test_a_column_gives_once_a_step_whatever_the_batch_is_like() -> None:
    # In the third batch each example has one id of the bag, which is not as it was.
    model = check(of_layer([*map(embedding, (A, B, BAG)), Tower()]))
    assert plans_of(model) == [("a_embedding", "b_embedding")]


class Sometimes(EmbeddingColumn):
    """Is trained in some steps only."""

    frozen = False

    def part(self, features: Any, *, trainable: bool = True) -> Any:
        return super().part(features, trainable=trainable and not Sometimes.frozen)


def test_a_column_that_decides_in_each_step_is_asked_in_each_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = [getattr(embedding(A), name) for name in EmbeddingColumn.__dataclass_fields__]
    call = of_layer([Sometimes(*values), embedding(B), embedding(C)])
    model = check(call)
    assert plans_of(model) == [("b_embedding", "c_embedding")]
    monkeypatch.setattr(Sometimes, "frozen", True)
    found = step(call, model, LATER, model.lookups.layers)
    assert found == step(call, model, LATER, {})
    (stack,) = model.lookups.stacks.values()
    assert len(model.lookups.stacks) == 1
    rows = np.frombuffer(found[1][stack.name][0], np.int64)
    start, stop = stack.rows_of("input_layer/a_embedding/embedding_weights")
    assert not ((rows >= start) & (rows < stop)).any()


def test_options_of_a_layer_may_change() -> None:
    turn = {"trainable": True}
    columns = [embedding(A), embedding(B)]

    def call(features: Any, labels: Any) -> Spec:
        fixed = fc.input_layer(features, columns, trainable=turn["trainable"])
        loss = loss_of(layers.dense(fixed, 3, name="out"))
        return Spec(loss, SGD.minimize(loss), {"net": fixed})

    model = built(call, FEATURES, stacked=True)
    for trainable in (True, True, False, True):
        turn["trainable"] = trainable
        found = step(call, model, LATER, model.lookups.layers)
        assert found == step(call, model, LATER, {})


# ---------------------------------------------------------------- batches that do not fit


def test_batches_of_another_size() -> None:
    columns = [fc.numeric_column("x", 2), *map(embedding, (A, B, C, BAG))]
    model = built(of_layer(columns), FEATURES, stacked=True)
    call = without_margin(columns)
    for given in (FEATURES, FIRST_THREE, LATER, FIRST_THREE):
        assert step(call, model, given, model.lookups.layers) == step(call, model, given, {})


def without_margin(columns: Any) -> CallModel:
    """A model of batches of any size."""

    def call(features: Any, labels: Any) -> Spec:
        net = fc.input_layer(features, columns)
        out = layers.dense(net, 3, name="out")
        loss = (out * out).sum()
        return Spec(loss, SGD.minimize(loss), {"net": net})

    return call


@pytest.mark.parametrize("short", [("x",), ("c",), ("a", "b"), ("c", "d"), ("bag",)])
def test_features_of_several_sizes_are_refused_as_without_a_plan(short: tuple[str, ...]) -> None:
    d = fc.categorical_column_with_identity("d", 6)
    columns = [fc.numeric_column("x", 2), embedding(A), embedding(B), embedding(BAG)]
    columns += [embedding(C, 3), embedding(d, 3)]
    given = {**FEATURES, "d": np.array([0, 5, 5, 1, 2, 3])}
    shorter = {**FIRST_THREE, "d": given["d"][:3]}
    call = without_margin(columns)
    model = built(call, given, stacked=True)
    step(call, model, given, model.lookups.layers)
    assert len(plans_of(model)) == 2
    messages = []
    for plans in (model.lookups.layers, {}):
        with pytest.raises(ModelError, match="batches of different sizes") as told:
            step(call, model, {**given, **{name: shorter[name] for name in short}}, plans)
        messages.append(str(told.value))
    assert messages[0] == messages[1]


class Widening(DenseColumn):
    """Gives another width from its second batch on."""

    name = "widening"
    keys = ("x",)
    width = 2

    def dense(self, features: Any, *, trainable: bool = True) -> Any:
        return np.repeat(features["x"], features["times"][0], axis=1)


def test_a_column_whose_width_changes_is_placed_by_the_width_it_has() -> None:
    columns = [embedding(A), embedding(B), Widening()]

    def call(features: Any, labels: Any) -> Spec:
        net = fc.input_layer(features, columns)
        loss = loss_of(net)
        return Spec(loss, SGD.minimize(loss), {"net": net})

    given = [{**FEATURES, "times": np.full(BATCH, times)} for times in (1, 1, 3, 1)]
    model = built(call, given[0], stacked=True)
    for one in given:
        assert step(call, model, one, model.lookups.layers) == step(call, model, one, {})


def test_a_lone_column_is_handed_on_as_it_is() -> None:
    class Flat(DenseColumn):
        name = "flat"
        keys = ("x",)
        width = 1

        def dense(self, features: Any, *, trainable: bool = True) -> Any:
            return features["x"][:, 0]

    def call(features: Any, labels: Any) -> Spec:
        flat = fc.input_layer(features, Flat())
        assert flat.shape == (BATCH,)
        loss = loss_of(layers.dense(flat[:, None], 3, name="out"))
        return Spec(loss, SGD.minimize(loss), {"net": flat})

    check(call)
