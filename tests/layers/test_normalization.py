from __future__ import annotations

from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import psys as tf
from psys import layers
from psys.checkpoint import open_checkpoint
from psys.compute.normalization import normalize
from psys.compute.variables import BuildStore, ReadStore
from psys.errors import ModelError

X = np.array([[1.0, 10.0], [3.0, 30.0]], np.float32)


def test_in_training_the_batch_itself_gives_mean_and_variance() -> None:
    with BuildStore(seed=0) as store:
        out = layers.batch_normalization(X, epsilon=0.0, training=True)
    np.testing.assert_allclose(out, [[-1, -1], [1, 1]], rtol=1e-6)
    assert out.dtype == np.float32
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    assert list(store.specs) == [f"batch_normalization/{name}" for name in names]
    assert store.trainable == {"batch_normalization/gamma", "batch_normalization/beta"}


def test_otherwise_the_averages_do() -> None:
    values = {
        "n/gamma": [2.0, 1.0],
        "n/beta": [0.0, 5.0],
        "n/moving_mean": [1.0, 10.0],
        "n/moving_variance": [4.0, 100.0],
    }
    store = ReadStore(
        lambda name: np.array(values[name], np.float32), lambda name, ids: np.empty(0)
    )
    with store:
        out = layers.batch_normalization(X, epsilon=0.0, name="n")
    np.testing.assert_allclose(out, [[0, 5], [2, 7]], rtol=1e-6)


def test_without_scale_and_center_there_is_nothing_to_train() -> None:
    with BuildStore(seed=0) as store:
        layers.batch_normalization(X, center=False, scale=False, training=True)
    assert not store.trainable


@pytest.mark.parametrize(("inputs", "axis"), [(X[0], -1), (X, 0)])
def test_what_has_no_channels_last_is_refused(inputs: Any, axis: int) -> None:
    with BuildStore(seed=0), pytest.raises(ModelError, match="axis the last"):
        layers.batch_normalization(inputs, axis=axis)


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 5), st.integers(1, 3), st.just(2)),
        elements=st.floats(-3, 3, width=32),
    ),
)
@settings(max_examples=40)
def test_its_gradients_are_those_of_the_formula(x: Any) -> None:
    gamma, beta = np.array([1.5, -0.5]), np.array([0.1, 0.2])
    weights = np.cos(np.arange(x.size)).reshape(x.shape)

    def plain(x: Any, gamma: Any, beta: Any) -> Any:
        flat = anp.reshape(x, (-1, 2))
        mean = anp.mean(flat, axis=0)
        variance = anp.mean((flat - mean) ** 2, axis=0)
        return anp.sum(weights * ((x - mean) / anp.sqrt(variance + 0.1) * gamma + beta))

    def fused(x: Any, gamma: Any, beta: Any) -> Any:
        return anp.sum(weights * normalize(x, gamma, beta, 0.1))

    for number in range(3):
        np.testing.assert_allclose(
            grad(fused, number)(x, gamma, beta),
            grad(plain, number)(x, gamma, beta),
            rtol=1e-7,
            atol=1e-9,
        )


def test_a_trained_model_has_averages_of_its_data(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(5.0, 2.0, (256, 3)).astype(np.float32)

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        training = mode == tf.estimator.ModeKeys.TRAIN
        net = layers.batch_normalization(features["x"], momentum=0.9, training=training)
        tf.counter("batches_seen")
        predictions = layers.dense(net, 1)
        loss = tf.losses.mean_squared_error(labels, predictions)
        return tf.estimator.EstimatorSpec(
            mode, predictions, loss, tf.train.GradientDescentOptimizer(0.1).minimize(loss)
        )

    estimator = tf.estimator.Estimator(model_fn, str(tmp_path))
    estimator.train(
        tf.estimator.inputs.numpy_input_fn({"x": x}, x[:, :1], 64, None, True), steps=100
    )
    reader = open_checkpoint(str(tmp_path))
    assert reader.read("batches_seen") == 100
    np.testing.assert_allclose(
        reader.read("batch_normalization/moving_mean"), x.mean(axis=0), atol=0.2
    )
    np.testing.assert_allclose(
        reader.read("batch_normalization/moving_variance"), x.var(axis=0), rtol=0.15
    )
    result = estimator.evaluate(
        tf.estimator.inputs.numpy_input_fn({"x": x}, x[:, :1], 64, 1, False)
    )
    assert result["loss"] < 0.2 * x.var()
