"""A step of a model whose tables are stacks, and of the same one whose tables are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np

from psys import train
from psys.arrays import Array, IndexedSlices
from psys.compute.features import InputFeatures
from psys.compute.train_store import TrainStore
from psys.compute.variables import untraced
from psys.sharding import ShardMap, plan
from psys.spread import Spread
from psys.train import model as train_model
from psys.train.input_pipeline import Batch
from psys.train.model import InitialModel, Model, build, loss_and_gradients

SGD = train.GradientDescentOptimizer(0.1)


@dataclass
class Spec:
    """What training looks at of an EstimatorSpec."""

    loss: Any
    train_op: Any
    predictions: Any = field(default_factory=dict)


CallModel = Callable[[Any, Any], Spec]
NewCall = Callable[[], CallModel]


@dataclass
class Step:
    """One step.

    Attributes:
        model: as its first run found it.
        loss: its loss.
        predictions: the model's, untraced.
        gradients: table → row → gradient, of every row that has one, and variable → gradient.
        sent: by the names they were given to be sent under.
        fetched: rows that had to be asked for in the middle of the step, by table.
    """

    model: Model
    loss: float
    predictions: dict[str, Array]
    gradients: dict[str, Any]
    sent: dict[str, Any]
    fetched: dict[str, list[int]]


def without_stacks() -> Any:
    """Switch stacks off, from outside, while the context is open."""
    return patch.object(train_model, "_stacked", lambda mine, specs: {})


def built(call: CallModel, features: dict[str, Any], *, stacked: bool) -> Model:
    if stacked:
        return build(call, InputFeatures(features), None, seed=1)[0]
    with without_stacks():
        return build(call, InputFeatures(features), None, seed=1)[0]


def pulled_for(model: Model, batch: Batch, values: InitialModel) -> dict[str, Any]:
    """What a pull brings, read-only as what was pulled is."""
    rows = {}
    for name, ids in batch.rows.items():
        if name in model.specs:
            own = values.read_rows(name, ids)
        else:
            stack = model.lookups.stacks[name]
            own = np.concatenate([values.read(table) for table in stack.tables])[ids]
        own.flags.writeable = False
        rows[name] = (ids, own)
    return rows


def step(new_call: NewCall, features: dict[str, Any], *, stacked: bool, later: Any = None) -> Step:
    """Take a step on features, or on ``later`` ones with the model that they made."""
    call = new_call()
    model = built(call, features, stacked=stacked)
    batch = Batch(InputFeatures(features if later is None else later), None)
    batch.prepare(model.lookups)
    values = InitialModel(model.specs, seed=1)
    dense = {name: values.read(name) for name, spec in model.specs.items() if not spec.sparse}
    fetched: dict[str, list[int]] = {}

    def fetch(table: str, ids: Array) -> Array:
        fetched.setdefault(table, []).extend(ids.tolist())
        return values.read_rows(table, ids)

    store = TrainStore(
        model.specs,
        dense,
        pulled_for(model, batch, values),
        fetch,
        stacks=model.lookups.stacks,
        seed=1,
    )
    loss, gradients, spec = loss_and_gradients(model, call, batch.features, None, store)
    predictions = {name: untraced(one) for name, one in spec.predictions.items()}
    return Step(model, loss, predictions, by_row(model, gradients), gradients, fetched)


def by_row(model: Model, gradients: dict[str, Any]) -> dict[str, Any]:
    """Return gradients by variable; of a table, by row: as a single ps would apply them."""
    where = plan(list(model.specs.values()), 1)
    assert isinstance(where, ShardMap)
    (parts,) = Spread(model.specs, where).split_gradients(gradients)
    found: dict[str, Any] = {}
    for name, one in parts.items():
        if not isinstance(one, IndexedSlices):
            found[name] = one.tolist()
            continue
        for row, values in zip(one.indices.tolist(), one.values, strict=True):
            stack = model.lookups.stacks.get(name)
            table = name if stack is None else stack.table_of(row)
            start = 0 if stack is None else stack.rows_of(table)[0]
            found.setdefault(table, {})[row - start] = values.tolist()
    return found
