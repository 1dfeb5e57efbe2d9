"""Whole trainings whose every number tf.estimator printed: V1 classes, defaults of Ftrl, Adagrad.

The V1 classes sum the loss over a batch, hence ``loss_reduction="sum"`` here. Float32 in both;
TF printed eight digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import psys as tf
from psys.arrays import VariableSpec
from psys.checkpoint import (
    FileStorage,
    Manifest,
    ShardEntry,
    checkpoint_dir,
    commit,
    open_checkpoint,
    shard_file_name,
    write_shard,
)
from psys.feature_column import numeric_column
from psys.initializers import Constant

X = {"x": np.array([1.0, 2.0, 3.0, 4.0], np.float32)}
NUMBERS = np.array([3.0, 5.0, 7.0, 9.0], np.float32)
WEIGHT = "linear/linear_model/x/weights"
BIAS = "linear/linear_model/bias_weights"


def batches(x: Any, y: Any, batch_size: int = 2, epochs: int | None = None) -> Any:
    return tf.estimator.inputs.numpy_input_fn(
        x, y, batch_size=batch_size, num_epochs=epochs, shuffle=False
    )


def assert_close(actual: Any, expected: Any, rel: float = 2e-6) -> None:
    np.testing.assert_allclose(np.ravel(actual), np.ravel(expected), rtol=rel, atol=1e-7)


def read(estimator: Any, name: str) -> Any:
    return estimator.get_variable_value(name)


def linear_regressor(model_dir: Path, **arguments: Any) -> Any:
    return tf.estimator.LinearRegressor(
        [numeric_column("x")], model_dir=str(model_dir), **arguments
    )


# After so many steps: weight and bias, and Ftrl's slots of the weight.
REGRESSION = [
    (1, 0.19998521, 0.19996096, 676.1, -26.0),
    (2, 0.33184558, 0.33164862, 1195.9574, -57.380444),
    (3, 0.4345333, 0.43409979, 1624.1018, -87.558777),
    (10, 0.97460961, 0.92854685, 17115.615, -637.5246),
]


def train_in_calls(estimator: Any, labels: Any, *steps: int) -> Any:
    """Train up to each of these steps; with each call the input begins anew, as TF's did."""
    for step in steps:
        estimator.train(batches(X, labels), max_steps=step)
    return estimator


def test_a_linear_regressor_step_by_step(tmp_path: Path) -> None:
    estimator = linear_regressor(tmp_path, loss_reduction="sum")
    for steps, weight, bias, accum, linear in REGRESSION:
        train_in_calls(estimator, NUMBERS, steps)
        assert_close(read(estimator, WEIGHT), weight)
        assert_close(read(estimator, BIAS), bias)
        slots = open_checkpoint(str(tmp_path)).slice_state(WEIGHT, 0, 1).slots
        assert_close(slots["accum"], accum)
        assert_close(slots["linear"], linear)
    for size, loss in ((2, 16.514267), (4, 33.028534), (3, 16.514267)):
        results = estimator.evaluate(batches(X, NUMBERS, size, epochs=1))
        assert_close(results["loss"], loss)
        assert_close(results["average_loss"], 8.2571335)
        assert_close(results["prediction/mean"], 3.3650711)
        assert results["label/mean"] == 6.0


def test_the_mean_over_the_batch_is_tf_2_s(tmp_path: Path) -> None:
    estimator = train_in_calls(linear_regressor(tmp_path), NUMBERS, 1, 2, 10)
    assert_close(read(estimator, WEIGHT), 0.97894126)
    assert_close(read(estimator, BIAS), 0.94160199)
    for size, loss in ((2, 8.1207561), (3, 11.134307)):
        results = estimator.evaluate(batches(X, NUMBERS, size, epochs=1))
        assert_close(results["average_loss"], 8.1207561)
        assert_close(results["loss"], loss)


def test_a_linear_classifier_of_two_classes(tmp_path: Path) -> None:
    estimator = tf.estimator.LinearClassifier(
        [numeric_column("x")], model_dir=str(tmp_path), loss_reduction="sum"
    )
    labels = np.array([0, 1, 1, 0])
    for steps, weight, bias in (
        (1, 0.16903085, 0.0),
        (2, 0.25716004, -0.073966958),
        (10, 0.077627741, -0.33352336),
    ):
        train_in_calls(estimator, labels, steps)
        assert_close(read(estimator, WEIGHT), weight, rel=1e-5)
        assert_close(read(estimator, BIAS), bias, rel=1e-5)
    results = estimator.evaluate(batches(X, labels, epochs=1))
    assert_close(results["average_loss"], 0.69651270)
    assert_close(results["prediction/mean"], 0.46525797)
    assert_close(results["auc"], 0.5)
    assert results["accuracy"] == 0.5


def test_a_linear_classifier_of_three_classes(tmp_path: Path) -> None:
    estimator = tf.estimator.LinearClassifier(
        [numeric_column("x")], model_dir=str(tmp_path), n_classes=3, loss_reduction="sum"
    )
    labels = np.array([0, 1, 2, 1])
    train_in_calls(estimator, labels, 1, 2, 10)
    assert_close(read(estimator, WEIGHT), [-0.45958531, 0.15971565, -0.017051809], rel=1e-5)
    assert_close(read(estimator, BIAS), [0.3116661, -0.15956682, -0.15132658], rel=1e-5)
    results = estimator.evaluate(batches(X, labels, epochs=1))
    assert_close(results["average_loss"], 0.88574004)


def test_a_linear_classifier_of_words(tmp_path: Path) -> None:
    words = {"w": np.array(["a", "b", "c", "d"])}
    column = tf.feature_column.categorical_column_with_hash_bucket("w", 10)
    estimator = tf.estimator.LinearClassifier(
        [column], model_dir=str(tmp_path), loss_reduction="sum"
    )
    estimator.train(batches(words, np.array([0, 1, 1, 0])), steps=4)
    expected = np.zeros(10)
    expected[[2, 5, 9]] = 0.47787505, -0.28987837, -0.29033148
    assert_close(read(estimator, "linear/linear_model/w/weights"), expected, rel=1e-5)
    assert_close(read(estimator, BIAS), -0.059795368, rel=1e-5)


# ---------------------------------------------------------------- networks from fixed weights

NET = {
    "dnn/hiddenlayer_0/kernel": [[0.6, 0.5]],
    "dnn/hiddenlayer_0/bias": [0.1, -0.1],
    "dnn/hiddenlayer_1/kernel": [[1.0, 0.8], [-0.8, -1.0]],
    "dnn/hiddenlayer_1/bias": [0.2, -0.2],
    "dnn/logits/kernel": [[-1.0], [1.0]],
    "dnn/logits/bias": [0.3],
}
LINE = {WEIGHT: [[0.5]], BIAS: [0.25]}


def start_from(model_dir: Path, values: Mapping[str, Any]) -> None:
    """Write a checkpoint of step 0 with these values and no optimizer state."""
    arrays = {name: np.array(value, np.float32) for name, value in values.items()}
    specs = tuple(
        VariableSpec(name, array.shape, "float32", Constant()) for name, array in arrays.items()
    )
    slices = tuple((name, 0, len(array)) for name, array in arrays.items())
    storage, checkpoint_id, file = FileStorage(model_dir), "0" * 12, shard_file_name(0, 1)
    metadata = {"checkpoint_id": checkpoint_id, "slices": slices}
    info = write_shard(storage, f"{checkpoint_dir(0, checkpoint_id)}/{file}", arrays, metadata)
    shard = ShardEntry(file, info.bytes, info.sha256, slices)
    commit(storage, Manifest(checkpoint_id, "job", "generation", 0, 1.0, specs, (shard,)))


def assert_net(estimator: Any, expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        assert_close(read(estimator, name), value, rel=1e-5)


def test_a_dnn_regressor_from_fixed_weights(tmp_path: Path) -> None:
    start_from(tmp_path, NET)
    estimator = tf.estimator.DNNRegressor(
        [2, 2],
        [numeric_column("x")],
        model_dir=str(tmp_path),
        optimizer=tf.train.AdagradOptimizer(0.05),
    )
    source = batches({"x": np.array([10.0], np.float32)}, np.array([1.0], np.float32), 1)
    estimator.train(source, max_steps=1)
    assert_net(
        estimator,
        {
            "dnn/hiddenlayer_0/kernel": [0.55000067, 0.549999],
            "dnn/hiddenlayer_0/bias": [0.050065752, -0.050102629],
            "dnn/hiddenlayer_1/kernel": [0.95000178, 0.8, -0.84999728, -1.0],
            "dnn/hiddenlayer_1/bias": [0.15006575, -0.2],
            "dnn/logits/kernel": [-0.95001161, 1.0],
            "dnn/logits/bias": [0.34993425],
        },
    )
    estimator.train(source, max_steps=5)
    assert_net(
        estimator,
        {
            "dnn/hiddenlayer_0/kernel": [0.52097899, 0.58231491],
            "dnn/hiddenlayer_1/kernel": [0.92220074, 0.8, -0.88370317, -1.0],
            "dnn/logits/kernel": [-0.94172841, 1.0],
            "dnn/logits/bias": [0.39905185],
        },
    )


def test_a_dnn_classifier_from_fixed_weights(tmp_path: Path) -> None:
    start_from(tmp_path, NET)
    estimator = tf.estimator.DNNClassifier(
        [2, 2],
        [numeric_column("x")],
        model_dir=str(tmp_path),
        optimizer=tf.train.AdagradOptimizer(0.05),
        loss_reduction="sum",
    )
    source = batches({"x": np.array([10.0, 10.0], np.float32)}, np.array([1, 0]))
    estimator.train(source, max_steps=1)
    assert_net(
        estimator,
        {
            "dnn/hiddenlayer_0/kernel": [0.55004132, 0.54993558],
            "dnn/logits/kernel": [-0.95071381, 1.0],
            "dnn/logits/bias": [0.34631896],
        },
    )
    kernel = "dnn/hiddenlayer_0/kernel"
    slots = open_checkpoint(str(tmp_path)).slice_state(kernel, 0, 1).slots
    assert_close(slots["accumulator"], [60.610989, 38.827026])
    estimator.train(source, max_steps=5)
    assert_net(estimator, {kernel: [0.53731441, 0.5640977], "dnn/logits/bias": [0.35938185]})


def test_a_combined_regressor_from_fixed_weights(tmp_path: Path) -> None:
    start_from(tmp_path, {**NET, **LINE})
    estimator = tf.estimator.DNNLinearCombinedRegressor(
        linear_feature_columns=[numeric_column("x")],
        linear_optimizer=tf.train.FtrlOptimizer(0.005),
        dnn_feature_columns=[numeric_column("x")],
        dnn_optimizer=tf.train.AdagradOptimizer(0.001),
        dnn_hidden_units=[2, 2],
        model_dir=str(tmp_path),
    )
    source = batches({"x": np.array([10.0], np.float32)}, np.array([1.0], np.float32), 1)
    for steps, weight, bias, logits in (
        (1, 0.49135709, 0.2268455, -1.0009996),
        (5, 0.4807182, 0.21621719, -1.0031518),
    ):
        estimator.train(source, max_steps=steps)
        assert_net(estimator, {WEIGHT: weight, BIAS: bias, "dnn/logits/kernel": [logits, 1.0]})
