"""Canned model functions run as one step runs them: values and rows in, gradients out.

The gradients are applied by the optimizers themselves; no Estimator, no shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from psys import feature_column as fc
from psys.arrays import Array, IndexedSlices
from psys.compute.variables import (
    BuildStore,
    InputFeatures,
    ReadStore,
    TrainStore,
    untraced,
)
from psys.estimator.canned.dnn import dnn_model_fn
from psys.estimator.canned.linear import (
    linear_model_fn,
)
from psys.estimator.model_fn import EstimatorSpec, ModeKeys
from psys.optimizers import Optimizer

ModelFn = Callable[..., EstimatorSpec]
AGE = fc.numeric_column("age")
X = fc.numeric_column("x")
HEIGHT = fc.numeric_column("height")


class Model:
    """Variables of one model in memory, trained and read one batch at a time."""

    def __init__(self, model_fn: ModelFn, features: Mapping[str, Any], labels: Any = None) -> None:
        self._model_fn = model_fn
        mode = ModeKeys.PREDICT if labels is None else ModeKeys.TRAIN
        with BuildStore(seed=1) as self.built:
            model_fn(arrays(features), labels, mode)
        self.values = {
            name: spec.initializer.rows(name, spec.shape, spec.dtype, 0, spec.rows, 1).reshape(
                spec.shape
            )
            for name, spec in self.built.specs.items()
        }
        self.slots: dict[str, dict[str, Array]] = {}

    def load(self, **values: Any) -> Model:
        """Set variables; a name is the end of one variable's name, with __ for /."""
        for suffix, value in values.items():
            (name,) = [n for n in self.values if n.endswith(suffix.replace("__", "/"))]
            assert np.shape(value) == self.values[name].shape, name
            self.values[name] = np.array(value, np.float32)
        return self

    def value(self, suffix: str) -> Array:
        (name,) = [n for n in self.values if n.endswith(suffix)]
        return self.values[name]

    def train(self, features: Mapping[str, Any], labels: Any) -> float:
        store = TrainStore(
            self.built.specs, self.values, {}, lambda name, ids: self.values[name][ids]
        )
        with store:
            spec = self._model_fn(arrays(features), np.array(labels), ModeKeys.TRAIN)
        assert spec.train_op is not None
        assert untraced(spec.loss).dtype == np.float32
        for minimization in spec.train_op.minimizations:
            for name, gradient in store.gradients(minimization.loss).items():
                if minimization.var_list is None or name.startswith(minimization.var_list):
                    self._apply(minimization.optimizer, name, gradient)
        return float(untraced(spec.loss))

    def _apply(self, optimizer: Optimizer, name: str, gradient: Any) -> None:
        value = self.values[name]
        slots = self.slots.setdefault(
            name, {slot: np.full_like(value, fill) for slot, fill in optimizer.slots.items()}
        )
        if isinstance(gradient, IndexedSlices):
            assert gradient.values.dtype == np.float32
            summed = gradient.summed()
            optimizer.apply_sparse(value, slots, {}, summed.indices, summed.values)
        else:
            assert gradient.dtype == np.float32
            optimizer.apply_dense(value, slots, {}, gradient)

    def _read(self, features: Mapping[str, Any], labels: Any, mode: str) -> EstimatorSpec:
        with ReadStore(self.values.__getitem__, lambda name, ids: self.values[name][ids]):
            return self._model_fn(arrays(features), labels, mode)

    def evaluate(self, features: Mapping[str, Any], labels: Any) -> dict[str, float]:
        spec = self._read(features, np.array(labels), ModeKeys.EVAL)
        results = {name: metric.result() for name, metric in spec.eval_metric_ops.items()}
        return {"loss": float(spec.loss), **results}

    def predict(self, features: Mapping[str, Any]) -> dict[str, Array]:
        predictions: dict[str, Array] = self._read(features, None, ModeKeys.PREDICT).predictions
        return predictions


def arrays(features: Mapping[str, Any]) -> InputFeatures:
    return InputFeatures({name: np.array(value) for name, value in features.items()})


def model_fn(function: ModelFn, **arguments: Any) -> ModelFn:
    return lambda features, labels, mode: function(features, labels, mode, **arguments)


def linear(head: Any, *columns: Any, **arguments: Any) -> ModelFn:
    return model_fn(linear_model_fn, head=head, feature_columns=columns, **arguments)


def deep(head: Any, *columns: Any, hidden_units: Any = (2, 2), **arguments: Any) -> ModelFn:
    return model_fn(
        dnn_model_fn, head=head, hidden_units=hidden_units, feature_columns=columns, **arguments
    )


def assert_close(actual: Any, expected: Any, rel: float = 1e-5) -> None:
    np.testing.assert_allclose(actual, expected, rtol=rel, atol=1e-6)


def assert_results(results: Mapping[str, float], rel: float = 1e-5, **expected: float) -> None:
    for name, value in expected.items():
        assert results[name.replace("__", "/")] == pytest.approx(value, rel=rel, abs=1e-6), name


XS: dict[str, Any] = {"x": [1.0, 2.0, 3.0, 4.0]}


def trained(
    function: ModelFn, labels: Any, stops: Any, features: Mapping[str, Any] = XS
) -> Iterator[Model]:
    """Yield the model at each of ``stops``, trained on batches of two, not shuffled.

    As in the recorded runs, each stop is the end of one call of train, and the next one
    begins with the first batch again.
    """
    model = Model(function, features, np.array(labels))
    done = 0
    for stop in stops:
        for step in range(stop - done):
            half = slice(0, 2) if step % 2 == 0 else slice(2, 4)
            model.train({name: value[half] for name, value in features.items()}, labels[half])
        done = stop
        yield model


WEIGHTS: dict[str, Any] = {
    "hiddenlayer_0__kernel": [[0.6, 0.5]],
    "hiddenlayer_0__bias": [0.1, -0.1],
    "hiddenlayer_1__kernel": [[1.0, 0.8], [-0.8, -1.0]],
    "hiddenlayer_1__bias": [0.2, -0.2],
    "logits__kernel": [[-1.0], [1.0]],
    "logits__bias": [0.3],
}
THREE_LOGITS: dict[str, Any] = {
    **WEIGHTS,
    "logits__kernel": [[-1, 1, 0.5], [-1, 1, 0.5]],
    "logits__bias": [0.3, -0.3, 0],
}
TWO_INPUTS = {"hiddenlayer_0__kernel": [[0.6, 0.5], [-0.6, -0.5]]}
PAIR = fc.numeric_column("age", shape=2)
