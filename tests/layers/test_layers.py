from __future__ import annotations

import numpy as np
import pytest

from psys import layers, nn
from psys.compute.variables import BuildStore, variable_scope
from psys.errors import ModelError
from psys.initializers import Constant, GlorotUniform

X = np.array([[1.0, 2.0], [-3.0, 4.0]], np.float32)


def test_dense_makes_a_kernel_and_a_bias_under_its_name() -> None:
    with BuildStore(seed=0) as store:
        out = layers.dense(
            X,
            3,
            nn.relu,
            kernel_initializer=Constant(2.0),
            bias_initializer=Constant(-5.0),
            name="h",
        )
    np.testing.assert_array_equal(out, [[1, 1, 1], [0, 0, 0]])
    assert {name: spec.shape for name, spec in store.specs.items()} == {
        "h/kernel": (2, 3),
        "h/bias": (3,),
    }


def test_dense_starts_with_glorot_and_zeros() -> None:
    with BuildStore(seed=0) as store:
        layers.dense(X, 3)
    assert store.specs["dense/kernel"].initializer == GlorotUniform()
    assert store.specs["dense/bias"].initializer == Constant(0.0)


def test_unnamed_layers_are_numbered_in_their_scope() -> None:
    with BuildStore(seed=0) as store:
        layers.dense(X, 3, use_bias=False)
        layers.dense(X, 3, use_bias=False)
        with variable_scope("a"):
            layers.dense(X, 3, use_bias=False)
    assert list(store.specs) == ["dense/kernel", "dense_1/kernel", "a/dense/kernel"]


def test_dense_works_along_the_last_axis() -> None:
    with BuildStore(seed=0):
        flat = layers.dense(X, 3, name="h")
        deep = layers.dense(X.reshape(2, 1, 2), 3, name="h")
    assert deep.shape == (2, 1, 3)
    np.testing.assert_array_equal(deep[:, 0], flat)


def test_bad_arguments_are_refused() -> None:
    with BuildStore(seed=0):
        with pytest.raises(ModelError, match="units must be at least 1, got 0"):
            layers.dense(X, 0)
        with pytest.raises(ModelError, match=r"got shape \(2,\)"):
            layers.dense(X[0], 1)
        with pytest.raises(ModelError, match=r"\[0, 1\), got 1"):
            layers.dropout(X, 1.0, training=True)


def test_dropout_keeps_the_expectation_and_only_acts_in_training() -> None:
    ones = np.ones((100, 100), np.float32)
    with BuildStore(seed=0):
        assert layers.dropout(ones, 0.5) is ones
        out = layers.dropout(ones, 0.25, training=True)
    assert out.dtype == np.float32
    np.testing.assert_allclose(np.unique(out), [0, 4 / 3], rtol=1e-6)
    np.testing.assert_allclose(out.mean(), 1, atol=0.02)


def test_dropout_of_a_step_can_be_repeated() -> None:
    draws = []
    for step in (4, 4, 5):
        with BuildStore(seed=0, global_step=step):
            draws.append(layers.dropout(np.ones((8, 8), np.float32), training=True))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_flatten() -> None:
    assert layers.flatten(np.ones((2, 3, 4))).shape == (2, 12)


def test_nn_functions() -> None:
    x = np.array([-2.0, 0.0, 8.0], np.float32)
    np.testing.assert_allclose(nn.relu6(x), [0, 0, 6])
    np.testing.assert_allclose(nn.leaky_relu(x), [-0.4, 0, 8], rtol=1e-6)
    np.testing.assert_allclose(
        nn.selu(x), [1.05070098 * 1.67326324 * (np.exp(-2) - 1), 0, 8.4056079], rtol=1e-5
    )
    np.testing.assert_allclose(nn.bias_add(x, np.float32(1)), [-1, 1, 9])
    np.testing.assert_allclose(nn.l2_loss(x), 34)
    assert nn.zero_fraction(x) == pytest.approx(1 / 3)
    for function in (nn.relu6, nn.leaky_relu, nn.selu, nn.l2_loss):
        assert function(x).dtype == np.float32


def test_nn_cross_entropies_check_shapes() -> None:
    one_hot = np.array([[1, 0], [0, 1]])
    sparse = nn.sparse_softmax_cross_entropy_with_logits(labels=np.array([0, 1]), logits=X)
    dense = nn.softmax_cross_entropy_with_logits(labels=one_hot, logits=X)
    np.testing.assert_allclose(sparse, dense, rtol=1e-6)
    assert nn.sigmoid_cross_entropy_with_logits(labels=one_hot, logits=X).shape == (2, 2)
    for function in (nn.sigmoid_cross_entropy_with_logits, nn.softmax_cross_entropy_with_logits):
        with pytest.raises(ModelError, match="shape of logits"):
            function(labels=np.ones(2), logits=X)
    with pytest.raises(ModelError, match="without the last axis"):
        nn.sparse_softmax_cross_entropy_with_logits(labels=np.ones((2, 1), int), logits=X)
