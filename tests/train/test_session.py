"""Real trainings, step by step: what is trained, restored, refused, and when it ends."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

import psys as tf
from psys.checkpoint import open_checkpoint
from psys.errors import ModelError
from psys.estimator import Estimator, EstimatorSpec, ModeKeys, RunConfig
from psys.initializers import Constant
from psys.train import NanLossDuringTrainingError

RNG = np.random.default_rng(3)
X = RNG.normal(size=(40, 3)).astype(np.float32)
WORDS = RNG.choice([b"a", b"b", b"c", b"d", b"e", b"f"], 40)
Y = (X[:, 0] > 0).astype(np.int64)

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "SGD": lambda: tf.train.GradientDescentOptimizer(0.1),
    "Momentum": lambda: tf.train.MomentumOptimizer(0.1, 0.9),
    "Nesterov": lambda: tf.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
    "Adagrad": lambda: tf.train.AdagradOptimizer(0.1),
    "Adam": lambda: tf.train.AdamOptimizer(0.1),
    "Ftrl": lambda: tf.train.FtrlOptimizer(0.1, l1_regularization_strength=0.01),
}


def batches_from(start: int) -> Callable[[], Iterator[Any]]:
    """Batches of four: the number of a batch, not of a call, says what is in it."""

    def input_fn() -> Iterator[Any]:
        for number in itertools.count(start):
            at = np.arange(4 * number, 4 * number + 4) % 40
            yield {"x": X[at], "word": WORDS[at]}, Y[at]

    return input_fn


def with_dropout(optimizer: Callable[[], Any]) -> Callable[..., Any]:
    """A model of a table, dense layers and dropout."""
    word = tf.feature_column.categorical_column_with_hash_bucket("word", 20)
    columns = [
        tf.feature_column.numeric_column("x", shape=3),
        tf.feature_column.embedding_column(word, 4),
    ]

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        net = tf.feature_column.input_layer(features, columns)
        net = tf.layers.dense(net, 8, tf.nn.tanh)
        net = tf.layers.dropout(net, 0.5, training=mode == ModeKeys.TRAIN)
        logits = tf.layers.dense(net, 2)
        loss = tf.losses.sparse_softmax_cross_entropy(labels=labels, logits=logits)
        return EstimatorSpec(mode, loss=loss, train_op=optimizer().minimize(loss))

    return model_fn


def state(model_dir: Path) -> dict[str, Any]:
    """All of the newest checkpoint: values, slots, and scalars such as Adam's powers."""
    reader = open_checkpoint(str(model_dir))
    found: dict[str, Any] = {"global_step": reader.global_step}
    for name, spec in reader.variables.items():
        one = reader.slice_state(name, 0, spec.rows)
        found[name] = (one.value.tobytes(), {s: a.tobytes() for s, a in one.slots.items()})
        found[f"{name} scalars"] = dict(one.scalars)
    return found


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_ten_steps_are_five_a_restart_and_five(tmp_path: Path, kind: str) -> None:
    def estimator(name: str) -> Estimator:
        config = RunConfig(model_dir=str(tmp_path / name), tf_random_seed=5)
        return Estimator(with_dropout(OPTIMIZERS[kind]), config=config)

    estimator("whole").train(batches_from(0), steps=10)
    estimator("parts").train(batches_from(0), steps=5)
    estimator("parts").train(batches_from(5), max_steps=10)
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert whole["global_step"] == 10
    assert len(whole) == 11  # five variables
    assert whole == parts
    if kind == "Adam":
        assert whole["dense/kernel scalars"] == pytest.approx(
            {"beta1_power": 0.9**11, "beta2_power": 0.999**11}
        )


def test_another_seed_is_another_model(tmp_path: Path) -> None:
    for seed in (1, 1, 2):
        name = tmp_path / f"{seed}"
        config = RunConfig(model_dir=str(name), tf_random_seed=seed)
        Estimator(with_dropout(OPTIMIZERS["SGD"]), config=config).train(batches_from(0), steps=1)
    assert state(tmp_path / "1") != state(tmp_path / "2")


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_optimizer_lowers_the_loss(tmp_path: Path, kind: str) -> None:
    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        logits = tf.layers.dense(features["x"], 1)[:, 0]
        loss = tf.losses.sigmoid_cross_entropy(labels, logits)
        return EstimatorSpec(
            mode,
            loss=loss,
            train_op=OPTIMIZERS[kind]().minimize(loss, tf.train.get_global_step()),
            eval_metric_ops={"accuracy": tf.metrics.accuracy(labels, logits > 0)},
        )

    config = RunConfig(tf_random_seed=1)
    estimator = Estimator(model_fn, model_dir=str(tmp_path), config=config)
    before = estimator.evaluate(batches_from(0), steps=10)
    estimator.train(batches_from(0), steps=60)
    after = estimator.evaluate(batches_from(0), steps=10)
    assert (before["global_step"], after["global_step"]) == (0, 60)
    assert after["loss"] < 0.75 * before["loss"]
    assert after["accuracy"] > 0.9


def test_a_model_in_plain_array_mathematics(tmp_path: Path) -> None:
    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        with tf.variable_scope("part"):
            weight = tf.get_variable("weight", (3,), initializer=Constant(0.5))
        offset = tf.get_variable("offset", (), initializer=Constant(2.0), trainable=False)
        steps = tf.get_variable("steps", (2,), np.int64, initializer=Constant(7))
        assert steps.dtype == np.int64
        outputs = anp.tanh(anp.dot(features["x"], weight)) + offset
        if mode == ModeKeys.PREDICT:
            return EstimatorSpec(mode, predictions=outputs)
        loss = anp.mean((outputs - labels) ** 2)
        train_op = tf.train.GradientDescentOptimizer(0.5).minimize(loss)
        return EstimatorSpec(mode, loss=loss, train_op=train_op)

    estimator = Estimator(model_fn, model_dir=str(tmp_path))
    estimator.train(batches_from(0), steps=1)
    x, y = X[:4].astype(np.float64), Y[:4]
    out = np.tanh(x @ np.full(3, 0.5))
    slope = (2 * (out + 2 - y) * (1 - out**2)) @ x / 4
    np.testing.assert_allclose(
        estimator.get_variable_value("part/weight"), 0.5 - 0.5 * slope, rtol=1e-4
    )
    assert float(estimator.get_variable_value("offset")) == 2.0
    assert estimator.get_variable_value("steps").tolist() == [7, 7]
    assert len(list(estimator.predict(lambda: {"x": X[:4]}))) == 4


def test_two_optimizers_each_train_their_part(tmp_path: Path) -> None:
    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        with tf.variable_scope("wide"):
            wide = tf.layers.dense(features["x"], 1)
        with tf.variable_scope("deep"):
            deep = tf.layers.dense(features["x"], 1)
        with tf.variable_scope("idle"):
            tf.layers.dense(features["x"], 1)
        loss = tf.losses.mean_squared_error(labels, (wide + deep)[:, 0])
        train_op = tf.group(
            tf.train.FtrlOptimizer(0.1).minimize(loss, var_list=["wide/"]),
            tf.train.AdamOptimizer(0.1).minimize(loss, var_list=["deep/"]),
        )
        return EstimatorSpec(mode, loss=loss, train_op=train_op)

    estimator = Estimator(model_fn, model_dir=str(tmp_path))
    estimator.train(batches_from(0), steps=2)
    reader = open_checkpoint(str(tmp_path))
    slots = {name: set(reader.slice_state(name, 0, 1).slots) for name in reader.variables}
    for part, expected in (("wide", {"accum", "linear"}), ("deep", {"m", "v"}), ("idle", set())):
        assert slots[f"{part}/dense/bias"] == expected
    assert estimator.get_variable_value("idle/dense/bias").tolist() == [0.0]


def test_a_not_finite_loss_ends_training_before_it_is_learned(tmp_path: Path) -> None:
    told: list[int] = []

    class Hook(tf.train.SessionRunHook):
        def after_run(self, run_context: Any, run_values: Any) -> None:
            told.append(run_values.global_step)

        def end(self, session: Any) -> None:
            told.append(-1)

    def poisoned() -> Iterator[Any]:
        for number, batch in enumerate(batches_from(0)()):
            if number == 3:
                batch[0]["x"] = np.full((4, 3), np.nan, np.float32)
            yield batch

    estimator = tf.estimator.LinearRegressor(
        [tf.feature_column.numeric_column("x", shape=3)],
        config=RunConfig(model_dir=str(tmp_path), save_checkpoints_steps=1),
    )
    with pytest.raises(NanLossDuringTrainingError, match=r"the loss is nan after global step 3\."):
        estimator.train(
            poisoned,
            steps=9,
            hooks=[Hook()],
            saving_listeners=[tf.train.CheckpointSaverListener()],
        )
    assert told == [1, 2, 3]
    reader = open_checkpoint(str(tmp_path))
    assert reader.global_step == 3
    assert all(np.isfinite(reader.read(name)).all() for name in reader.variables)
    # The last checkpoint is a good place to go on from.
    estimator.train(batches_from(0), steps=1)


def test_an_overflow_is_told_by_the_loss_alone(tmp_path: Path) -> None:
    """numpy's own warnings, errors in these tests, would come before the one line."""
    estimator = tf.estimator.DNNRegressor(
        [8],
        [tf.feature_column.numeric_column("x", shape=3)],
        model_dir=str(tmp_path),
        optimizer=tf.train.GradientDescentOptimizer(1e30),
    )
    labels = np.ones((4, 1), np.float32)
    batch = ({"x": np.full((4, 3), 100, np.float32)}, labels)
    with pytest.raises(NanLossDuringTrainingError):
        estimator.train(lambda: [batch] * 9, steps=9)


def classifier(model_dir: Path, *columns: Any, **arguments: Any) -> Any:
    return tf.estimator.LinearClassifier(columns, model_dir=str(model_dir), **arguments)


NUMBER = tf.feature_column.numeric_column("x")
WORD = tf.feature_column.categorical_column_with_vocabulary_list("word", ["a", "b"])


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        ({"y": [[1.0]]}, [1], "'x'"),
        ({"x": [["text"]]}, [1], "'x' takes numbers"),
        ({"x": [[1.0]]}, [2], r"Labels must be <= n_classes - 1, given 2"),
        ({"x": [[1.0]]}, [-1], r"Labels must be >= 0, given -1"),
        ({"x": [[1.0], [2.0]]}, [1], "labels shape must be"),
        ({"x": [[1.0]]}, None, "You must provide a labels"),
        ([[1.0]], [1], "features should be a dictionary"),
    ],
)
def test_data_that_does_not_fit_the_model_is_named(
    tmp_path: Path, features: Any, labels: Any, message: str
) -> None:
    estimator = classifier(tmp_path, NUMBER)
    with pytest.raises(ModelError, match=message):
        estimator.train(lambda: (features, labels), steps=1)

    def second() -> Iterator[Any]:
        yield {"x": [[1.0]]}, [1]
        yield features, labels

    with pytest.raises(ModelError, match=message):
        estimator.train(second, steps=2)


def test_a_missing_feature_is_named_with_its_column(tmp_path: Path) -> None:
    batches = [({"word": ["a"]}, [1]), ({"wrod": ["a"]}, [1])]
    with pytest.raises(ModelError, match=r"word"):
        classifier(tmp_path, WORD).train(lambda: iter(batches), steps=2)


def test_a_batch_of_another_shape_is_refused(tmp_path: Path) -> None:
    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        loss = tf.losses.mean_squared_error(labels, tf.layers.dense(features, 1, name="a")[:, 0])
        train_op = OPTIMIZERS["SGD"]().minimize(loss)
        return EstimatorSpec(mode, loss=loss, train_op=train_op)

    batches = [(np.ones((2, width), np.float32), [0, 1]) for width in (3, 4)]
    with pytest.raises(ModelError, match=r"'a/kernel' has shape \(3, 1\), model_fn now asks"):
        Estimator(model_fn, model_dir=str(tmp_path)).train(lambda: iter(batches))


def test_another_model_in_the_same_model_dir_is_refused(tmp_path: Path) -> None:
    classifier(tmp_path, NUMBER).train(lambda: ({"x": [[1.0]]}, [1]), steps=1)
    with pytest.raises(ModelError, match=r"Use another model_dir"):
        classifier(tmp_path, NUMBER, n_classes=3).train(lambda: ({"x": [[1.0]]}, [1]), steps=1)


def test_what_the_input_raises_comes_as_itself(tmp_path: Path) -> None:
    class Broken(Exception):
        pass

    def input_fn() -> Iterator[Any]:
        yield from itertools.islice(batches_from(0)(), 3)
        raise Broken("a file is gone")

    with pytest.raises(Broken, match="a file is gone"):
        classifier(tmp_path, tf.feature_column.numeric_column("x", shape=3)).train(input_fn)


def test_a_schedule_is_refused_and_not_ignored(tmp_path: Path) -> None:
    def decaying() -> Any:
        return tf.train.AdagradOptimizer(0.1 * 0.9 ** tf.train.get_global_step())

    estimator = classifier(tmp_path, NUMBER, optimizer=decaying)
    with pytest.raises(ModelError, match="fixed when training begins"):
        estimator.train(lambda: ({"x": [[1.0]]}, [1]), steps=3)


def test_without_a_seed_two_trainings_differ(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Estimator(with_dropout(OPTIMIZERS["SGD"]), model_dir=str(tmp_path / name)).train(
            batches_from(0), steps=1
        )
    assert state(tmp_path / "a") != state(tmp_path / "b")


def test_the_manifest_says_which_optimizer_it_was(tmp_path: Path) -> None:
    classifier(tmp_path, NUMBER, optimizer="Adam").train(lambda: ({"x": [[1.0]]}, [1]), steps=1)
    (newest,) = (tmp_path / "checkpoints").glob("*0001-*/manifest.json")
    variables = json.loads(newest.read_text())["variables"]
    assert {one["optimizer"]["kind"] for one in variables} == {"Adam"}


def test_what_model_fn_assigns_to_a_batch_is_gone_when_the_batch_comes_again(
    tmp_path: Path,
) -> None:
    """The first batch is there twice: to find the variables, and to be trained on."""
    seen: list[list[float]] = []

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        features["x"] = features["x"] + 1
        labels["y"] = labels["y"] * 2
        seen.append([float(features["x"][0]), float(labels["y"][0])])
        loss = tf.get_variable("w", (), initializer=Constant(2.0)) ** 2
        optimizer = tf.train.GradientDescentOptimizer(0.1)
        return EstimatorSpec(mode, loss=loss, train_op=optimizer.minimize(loss))

    def input_fn() -> Iterator[Any]:
        for number in (10.0, 20.0):
            yield {"x": np.array([number])}, {"y": np.array([number])}

    Estimator(model_fn, model_dir=str(tmp_path)).train(input_fn)
    assert seen == [[11, 20], [11, 20], [21, 40]]
