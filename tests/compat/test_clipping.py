"""tf's clipping functions, and clipping a model's gradients in each of the ways tf programs do.

Values were made by running TF 1.x's functions.
"""

from __future__ import annotations

import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

import psys as tf
from psys.arrays import IndexedSlices
from psys.errors import ConfigError, ModelError
from psys.nn import clipping
from psys.optimizers import Optimizer

F32 = np.float32


def array(values: Any) -> Any:
    return np.array(values, F32)


def plain(gradients: Any) -> Any:
    return [None if one is None else one.tolist() for one in gradients]


class TestClipByNorm:
    @pytest.mark.parametrize(
        ("t", "clip_norm", "axes", "expected"),
        [
            ([3, 4], 2.5, None, [1.5, 2]),
            ([3, 4], 10, None, [3, 4]),
            ([0, 0], 2.5, None, [0, 0]),
            ([[3, 4], [6, 8]], 5, [1], [[3, 4], [3, 4]]),
            (4.0, 2.0, None, 2.0),
        ],
    )
    def test_value(self, t: Any, clip_norm: float, axes: Any, expected: Any) -> None:
        clipped = tf.clip_by_norm(array(t), clip_norm, axes)
        assert clipped.dtype == F32
        np.testing.assert_allclose(clipped, expected, rtol=1e-6)

    def test_rows_given_twice_are_not_summed_first(self) -> None:
        slices = IndexedSlices(np.array([1, 1]), array([[3], [4]]))
        clipped = tf.clip_by_norm(slices, 2.5)
        assert clipped.indices.tolist() == [1, 1]
        assert clipped.values.tolist() == [[1.5], [2.0]]

    def test_it_can_be_differentiated_at_zero_too(self) -> None:
        gradient = autograd.grad(lambda x: anp.sum(tf.clip_by_norm(x, 2.0)))
        np.testing.assert_allclose(gradient(np.zeros(2)), [1.0, 1.0])
        # Of 2 x / |x| at [3, 4]: 2 (I - x xᵀ / 25) / 5, summed by rows.
        np.testing.assert_allclose(gradient(np.array([3.0, 4.0])), [0.064, -0.048], atol=1e-12)

    @pytest.mark.parametrize("clip_norm", [0, -1.0, "5", None, np.nan])
    def test_limit_is_a_positive_number(self, clip_norm: Any) -> None:
        for function in (tf.clip_by_norm, tf.clip_by_average_norm):
            with pytest.raises(ConfigError, match=rf"{function.__name__}: clip_norm must be"):
                function(array([1]), clip_norm)


def test_clip_by_average_norm() -> None:
    # The norm is 5, over 2 elements 2.5.
    assert tf.clip_by_average_norm(array([3, 4]), 0.5).tolist() == pytest.approx([0.6, 0.8])
    assert tf.clip_by_average_norm(array([3, 4]), 3.0).tolist() == [3, 4]
    rows = tf.clip_by_average_norm(IndexedSlices(np.array([7]), array([[3, 4]])), 0.5)
    assert rows.values.tolist() == [pytest.approx([0.6, 0.8])]


class TestClipByValue:
    def test_value(self) -> None:
        clipped = tf.clip_by_value(array([-2, 0.5, 3]), -1, 2.0)
        assert clipped.dtype == F32
        assert clipped.tolist() == [-1, 0.5, 2]
        rows = tf.clip_by_value(IndexedSlices(np.array([3]), array([[9.0, -9.0]])), -1.0, 1.0)
        assert rows.values.tolist() == [[1, -1]]

    def test_gradient_is_that_of_the_elements_inside(self) -> None:
        gradient = autograd.grad(lambda x: anp.sum(tf.clip_by_value(x, -1.0, 1.0) * 2.0))
        assert gradient(np.array([-2.0, -1.0, 0.0, 1.0, 3.0])).tolist() == [0, 2, 2, 2, 0]


class TestClipByGlobalNorm:
    def test_value(self) -> None:
        clipped, norm = tf.clip_by_global_norm([array([3, 4]), None, array([[12]])], 6.5)
        assert plain(clipped) == [[1.5, 2], None, [[6]]]
        assert norm == 13
        assert [one.dtype for one in clipped if one is not None] == [F32, F32]

    def test_below_the_limit_nothing_changes(self) -> None:
        clipped, norm = tf.clip_by_global_norm((array([3, 4]), array([[12]])), 100)
        assert plain(clipped) == [[3, 4], [[12]]]
        assert norm == 13

    def test_a_known_norm_is_used(self) -> None:
        clipped, norm = tf.clip_by_global_norm([array([3, 4])], 1.0, use_norm=10.0)
        assert plain(clipped) == [pytest.approx([0.3, 0.4])]
        assert norm == 10.0

    def test_a_norm_that_is_not_finite_makes_everything_nan(self) -> None:
        clipped, norm = tf.clip_by_global_norm([array([3, np.inf]), array([1])], 1.0)
        assert norm == np.inf
        assert all(np.isnan(one).all() for one in clipped)  # type: ignore[arg-type]

    def test_rows_given_twice_are_not_summed_first(self) -> None:
        slices = IndexedSlices(np.array([1, 1]), array([[3], [4]]))
        (clipped,), norm = tf.clip_by_global_norm([slices], 2.5)
        assert isinstance(clipped, IndexedSlices)
        assert (clipped.values.tolist(), norm) == ([[1.5], [2.0]], 5.0)

    @pytest.mark.parametrize("given", [np.ones(3), {"a": np.ones(3)}, 5.0, "ab"])
    def test_anything_but_a_list_is_a_type_error(self, given: Any) -> None:
        with pytest.raises(TypeError, match="takes a list of gradients"):
            tf.clip_by_global_norm(given, 1.0)
        with pytest.raises(TypeError, match="global_norm takes a list"):
            tf.global_norm(given)

    def test_global_norm(self) -> None:
        assert tf.global_norm([array([3, 4]), None, array([[12]])]) == 13
        assert tf.global_norm([]) == 0


FEATURES = {"x": np.array([[1.0], [3.0]], F32), "word": np.array([2, 2])}
LABELS = np.array([[8.0], [8.0]], F32)
RATE = 0.5


def clipped_by_wrapping(optimizer: Optimizer, loss: Any) -> Any:
    return tf.train.clip_gradients_by_norm(optimizer, 1.0).minimize(loss)


def clipped_by_hand(optimizer: Optimizer, loss: Any) -> Any:
    gradients, variables = zip(*optimizer.compute_gradients(loss), strict=True)
    clipped, _ = tf.clip_by_global_norm(gradients, 1.0)
    return optimizer.apply_gradients(
        zip(clipped, variables, strict=True), global_step=tf.train.get_global_step()
    )


def train_once(train_op: Callable[[Optimizer, Any], Any], directory: Path, steps: int = 1) -> Any:
    """Train a dense layer and a table for ``steps`` steps; return the Estimator."""

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        word = tf.feature_column.categorical_column_with_identity("word", 4)
        table = tf.feature_column.embedding_column(word, 1, initializer=None)
        with tf.variable_scope("model"):
            embedded = tf.feature_column.input_layer(features, [table])
            loss = tf.losses.mean_squared_error(
                labels, tf.layers.dense(features["x"], 1, name="out") + embedded
            )
        train = train_op(tf.train.GradientDescentOptimizer(RATE), loss)
        return tf.estimator.EstimatorSpec(mode, predictions={}, loss=loss, train_op=train)

    estimator = tf.estimator.Estimator(
        model_fn, str(directory), tf.estimator.RunConfig(tf_random_seed=1)
    )
    return estimator.train(lambda: (FEATURES, LABELS), steps=steps)


def moved(estimator: Any, before: dict[str, Any]) -> dict[str, Any]:
    return {name: estimator.get_variable_value(name) - one for name, one in before.items()}


def start(directory: Path) -> dict[str, Any]:
    """Return the values a model of this seed starts with."""
    estimator = train_once(lambda optimizer, loss: type(optimizer)(0.0).minimize(loss), directory)
    return {name: estimator.get_variable_value(name) for name in VARIABLES}


VARIABLES = (
    "model/out/kernel",
    "model/out/bias",
    "model/input_layer/word_embedding/embedding_weights",
)


class TestTraining:
    @pytest.mark.parametrize("train_op", [clipped_by_wrapping, clipped_by_hand])
    def test_a_step_is_as_long_as_the_limit_over_all_variables(
        self, train_op: Any, tmp_path: Path
    ) -> None:
        before = start(tmp_path / "start")
        free = moved(train_once(lambda o, loss: o.minimize(loss), tmp_path / "free"), before)
        clipped = moved(train_once(train_op, tmp_path / "clipped"), before)
        length = tf.global_norm(list(free.values()))
        assert length > 2 * RATE
        for name, step in clipped.items():
            np.testing.assert_allclose(step, free[name] * (RATE / length), rtol=1e-4, atol=1e-6)

    def test_a_gradient_changed_by_hand_is_what_is_applied(self, tmp_path: Path) -> None:
        def only_the_bias_by_one(optimizer: Optimizer, loss: Any) -> Any:
            pairs = optimizer.compute_gradients(loss)
            assert {name for _, name in pairs} == set(VARIABLES)
            ones = [(np.ones_like(g), name) for g, name in pairs if name.endswith("/bias")]
            return optimizer.apply_gradients(ones)

        before = start(tmp_path / "start")
        steps = moved(train_once(only_the_bias_by_one, tmp_path / "model", steps=3), before)
        assert steps["model/out/bias"].tolist() == [pytest.approx(-3 * RATE)]
        assert not steps["model/out/kernel"].any()

    def test_a_canned_estimator_takes_a_clipping_optimizer(self, tmp_path: Path) -> None:
        estimator = tf.estimator.LinearRegressor(
            [tf.feature_column.numeric_column("x")],
            str(tmp_path),
            optimizer=lambda: tf.train.clip_gradients_by_norm(
                tf.train.GradientDescentOptimizer(RATE), 0.25
            ),
        )
        estimator.train(lambda: ({"x": FEATURES["x"]}, LABELS), steps=1)
        weights = [estimator.get_variable_value(name) for name in estimator.get_variable_names()]
        moved = [one for one in weights if one.dtype == F32]
        assert tf.global_norm(moved) == pytest.approx(RATE * 0.25, rel=1e-5)

    def test_eval_and_predict_may_build_the_train_op_too(self, tmp_path: Path) -> None:
        estimator = train_once(clipped_by_hand, tmp_path)
        assert estimator.evaluate(lambda: (FEATURES, LABELS), steps=1)["loss"] > 0

    def test_the_variables_must_be_those_of_the_first_run(self, tmp_path: Path) -> None:
        runs = iter(range(9))

        def more_later(optimizer: Optimizer, loss: Any) -> Any:
            pairs = optimizer.compute_gradients(loss)
            return optimizer.apply_gradients(pairs[: 1 + next(runs)])

        with pytest.raises(ModelError, match="did not get when model_fn ran first"):
            train_once(more_later, tmp_path)


class TestPairs:
    OPTIMIZER = tf.train.GradientDescentOptimizer(0.1)

    @pytest.mark.parametrize(
        ("pairs", "message"),
        [
            ([], "No gradients provided for any variable"),
            ([(None, "a")], "No gradients provided for any variable"),
            ([np.ones(2)], "takes pairs"),
            ([(np.ones(2), np.ones(2))], "takes pairs"),
            ([(np.ones(2), "a"), (None, "a"), (np.ones(2), "a")], "'a' is there twice"),
        ],
    )
    def test_refused(self, pairs: Any, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            self.OPTIMIZER.apply_gradients(pairs)

    def test_gradients_exist_inside_a_model_fn_only(self) -> None:
        with pytest.raises(ModelError, match="work inside a model_fn"):
            self.OPTIMIZER.compute_gradients(1.0)

    def test_transforms_run_in_the_order_they_were_given(self) -> None:
        twice = self.OPTIMIZER.transforming(lambda g: {n: one * 2 for n, one in g.items()})
        then_one_more = twice.transforming(lambda g: {n: one + 1 for n, one in g.items()})
        assert then_one_more.transform is not None
        assert then_one_more.transform({"a": np.ones(1)})["a"].tolist() == [3.0]  # type: ignore[union-attr]
        assert self.OPTIMIZER.transform is None
        assert then_one_more.to_config() == self.OPTIMIZER.to_config()

    def test_clipping_wraps_an_optimizer_only(self) -> None:
        with pytest.raises(ConfigError, match="takes an optimizer, got 'Adam'"):
            tf.train.clip_gradients_by_norm("Adam", 1.0)  # type: ignore[type-var]


def test_examples_in_the_docstrings() -> None:
    result = doctest.testmod(clipping)
    assert result.attempted
    assert not result.failed
