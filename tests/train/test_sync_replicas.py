"""SyncReplicasOptimizer and the policy of a job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import psys as tf
from psys.checkpoint import open_checkpoint
from psys.distribute import ParameterServerStrategy
from psys.errors import ConfigError, ModelError
from psys.ps.messages import Consistency, Policy
from psys.train.sync_replicas import policy_of, replicas_of

SGD = tf.train.GradientDescentOptimizer(0.5)


@pytest.mark.parametrize(
    ("strategy", "replicas", "policy"),
    [
        (ParameterServerStrategy(), None, Policy()),
        (ParameterServerStrategy("bounded", staleness=0), None, Policy(Consistency.BOUNDED)),
        (
            ParameterServerStrategy("bounded", staleness=4),
            None,
            Policy(Consistency.BOUNDED, staleness=4),
        ),
        (ParameterServerStrategy("sync"), None, Policy(Consistency.SYNC)),
        (
            ParameterServerStrategy("sync", replicas_to_aggregate=2),
            None,
            Policy(Consistency.SYNC, replicas=2),
        ),
        (ParameterServerStrategy(), 3, Policy(Consistency.SYNC, replicas=3)),
        (ParameterServerStrategy("sync"), 3, Policy(Consistency.SYNC, replicas=3)),
    ],
)
def test_strategy_and_optimizer_make_one_policy(
    strategy: ParameterServerStrategy, replicas: int | None, policy: Policy
) -> None:
    assert policy_of(strategy, replicas) == policy


@pytest.mark.parametrize(
    "strategy",
    [
        ParameterServerStrategy("bounded", staleness=1),
        ParameterServerStrategy("sync", replicas_to_aggregate=2),
        ParameterServerStrategy(pipeline_depth=1),
    ],
)
def test_an_optimizer_that_contradicts_the_strategy_is_refused(
    strategy: ParameterServerStrategy,
) -> None:
    with pytest.raises(ConfigError, match="SyncReplicasOptimizer"):
        policy_of(strategy, 3)


def test_optimizers_of_one_model_must_agree() -> None:
    two, three = (tf.train.SyncReplicasOptimizer(SGD, number) for number in (2, 3))
    assert replicas_of([two, two]) == 2
    assert replicas_of([SGD, SGD]) is None
    for pair in ([two, three], [two, SGD]):
        with pytest.raises(ModelError, match="Either all optimizers of a model"):
            replicas_of(pair)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"opt": "SGD"}, "opt must be an optimizer"),
        ({"replicas_to_aggregate": 0}, "replicas_to_aggregate must be an integer of 1 or more"),
        ({"replicas_to_aggregate": True}, "integer"),
        ({"total_num_replicas": 0}, "total_num_replicas"),
        ({"variable_averages": object()}, "psys.moving_average"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tf.train.SyncReplicasOptimizer(**{"opt": SGD, "replicas_to_aggregate": 2, **arguments})


def test_a_ps_is_told_of_the_optimizer_inside() -> None:
    adagrad = tf.train.AdagradOptimizer(0.1)
    wrapped = tf.train.SyncReplicasOptimizer(adagrad, 2, total_num_replicas=3)
    assert wrapped.to_config() == adagrad.to_config()
    assert (wrapped.slots, wrapped.scalars) == (adagrad.slots, adagrad.scalars)
    assert wrapped.by_row is adagrad.by_row is True
    assert not tf.train.SyncReplicasOptimizer(tf.train.AdamOptimizer(0.1), 2).by_row
    assert isinstance(wrapped.make_session_run_hook(True), tf.train.SessionRunHook)


def input_fn() -> Iterator[Any]:
    while True:
        yield {"x": np.array([[1.0], [2.0]], np.float32)}, np.array([3.0, 5.0], np.float32)


@pytest.mark.parametrize("how", ["optimizer", "clipped", "strategy", "bounded"])
def test_alone_every_policy_trains_as_async_does(tmp_path: Path, how: str) -> None:
    def kernel(directory: Path, optimizer: Any, strategy: Any = None) -> bytes:
        config = tf.estimator.RunConfig(
            model_dir=str(directory), tf_random_seed=1, train_distribute=strategy
        )
        estimator = tf.estimator.LinearRegressor(
            [tf.feature_column.numeric_column("x")], optimizer=optimizer, config=config
        )
        estimator.train(input_fn, max_steps=5)
        reader = open_checkpoint(str(directory))
        assert reader.global_step == 5
        return b"".join(reader.read(name).tobytes() for name in sorted(reader.variables))

    optimizer: Any = SGD
    if how == "clipped":
        optimizer = tf.train.clip_gradients_by_norm(SGD, 0.5)
    expected = kernel(tmp_path / "async", optimizer)
    strategy = None
    if how in ("optimizer", "clipped"):
        optimizer = tf.train.SyncReplicasOptimizer(optimizer, 2)
    elif how == "strategy":
        strategy = ParameterServerStrategy("sync")
    else:
        strategy = ParameterServerStrategy("bounded", staleness=0)
    assert kernel(tmp_path / how, optimizer, strategy) == expected
