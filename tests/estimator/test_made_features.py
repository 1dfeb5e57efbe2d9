"""Features that model_fn makes what their columns read: these look them up all the same.

Promise: docs/how-to-write-a-model-fn.md, "assign a new array, and columns read that"; in
tf.estimator a column reads what model_fn hands to the layer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import psys as tf
from psys.errors import ModelError

column = tf.feature_column
WORDS = np.array(["A", "b", "C", "a", "B", "c"])
NUMBERS = np.array([85, 3, 17, 12, 41, 3])
LABELS = np.array([[0.0], [1.0], [2.0], [0.5], [1.5], [2.5]], np.float32)

Change = Callable[[dict[str, Any]], None]


def lower(features: dict[str, Any]) -> None:
    features["d"] = np.char.lower(features["s"])


def remainder(features: dict[str, Any]) -> None:
    features["i"] = features["i"] % 10


def as_text(features: dict[str, Any]) -> None:
    features["i"] = features["i"].astype(str)


def as_number(features: dict[str, Any]) -> None:
    features["t"] = features["t"].astype(float)


CASES: dict[str, tuple[Change, Any]] = {
    "a new one": (lower, column.categorical_column_with_hash_bucket("d", 20)),
    "ids that were too large": (remainder, column.categorical_column_with_identity("i", 10)),
    "numbers as text": (as_text, column.categorical_column_with_hash_bucket("i", 20)),
    "text as numbers": (
        as_number,
        column.bucketized_column(column.numeric_column("t"), [0.5, 1.5]),
    ),
}


def features() -> dict[str, Any]:
    return {"s": WORDS, "i": NUMBERS, "t": np.array(["0", "1", "2", "0", "1", "2"])}


def trained(folder: Path, change: Change | None, read: Any, given: dict[str, Any]) -> Any:
    beside = column.categorical_column_with_hash_bucket("s", 7)
    initializer = tf.initializers.Constant(0.5)
    columns = [column.embedding_column(one, 3, initializer=initializer) for one in (read, beside)]

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        if change is not None:
            change(features)
        outputs = tf.layers.dense(
            column.input_layer(features, columns), 1, kernel_initializer=initializer
        )
        loss = tf.losses.mean_squared_error(labels, outputs)
        train_op = tf.train.AdagradOptimizer(0.1).minimize(loss)
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)

    estimator = tf.estimator.Estimator(
        model_fn, str(folder), tf.estimator.RunConfig(tf_random_seed=1)
    )
    estimator.train(lambda: (dict(given), LABELS), steps=4)
    return {
        name: estimator.get_variable_value(name).tobytes()
        for name in estimator.get_variable_names()
    }


@pytest.mark.parametrize("case", CASES)
def test_a_table_is_looked_up_by_what_model_fn_made(case: str, tmp_path: Path) -> None:
    change, read = CASES[case]
    made = features()
    change(made)
    in_model = trained(tmp_path / "model", change, read, features())
    assert in_model == trained(tmp_path / "input", None, read, made)


def test_one_that_model_fn_does_not_make_is_missed_where_it_is_read(tmp_path: Path) -> None:
    given = features()
    steps: list[int] = []

    def once(features: dict[str, Any]) -> None:
        steps.append(len(steps))
        if len(steps) < 3:
            lower(features)

    with pytest.raises(ModelError, match="Feature 'd' is not in the features dictionary"):
        trained(tmp_path, once, CASES["a new one"][1], given)
    assert len(steps) == 3
