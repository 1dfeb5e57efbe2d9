"""A model_dir gone on with under another optimizer: what of the checkpoint's state still counts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

import psys as tf
from psys.checkpoint import open_checkpoint
from psys.initializers import Constant


def train(model_dir: Path, optimizer: Callable[[], Any], steps: int) -> Any:
    """Train steps of gradient 100; return the state of ``w`` in the newest checkpoint."""

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        w = tf.get_variable("w", (2,), initializer=Constant(0.0))
        loss = anp.sum(w) * 100.0
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=optimizer().minimize(loss))

    batch = {"x": np.zeros(1, np.float32)}, np.zeros(1, np.float32)
    estimator = tf.estimator.Estimator(model_fn, str(model_dir))
    estimator.train(lambda: iter([batch] * steps))
    return open_checkpoint(str(model_dir)).slice_state("w", 0, 2)


def test_another_optimizer_begins_without_accumulators_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = train(tmp_path, lambda: tf.train.MomentumOptimizer(0.001, 0.9), 5)
    with caplog.at_level(logging.WARNING, "psys"):
        after = train(tmp_path, lambda: tf.train.RMSPropOptimizer(1e-9, momentum=0.9), 1)
    # Both have a slot "momentum": the old one would move w by 369.
    np.testing.assert_allclose(after.value, before.value, atol=1e-6)
    (said,) = [one.getMessage() for one in caplog.records]
    assert "was trained by Momentum, the model is by RMSProp (variables: 1)" in said


@pytest.mark.parametrize(
    "second",
    [
        lambda: tf.train.AdamOptimizer(0.5, beta1=0.5),
        lambda: tf.train.LazyAdamOptimizer(0.1, beta1=0.5),
    ],
    ids=["other arguments", "its lazy kind"],
)
def test_the_same_slots_go_on(
    tmp_path: Path, second: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    before = train(tmp_path, lambda: tf.train.AdamOptimizer(0.1, beta1=0.5), 3)
    with caplog.at_level(logging.WARNING, "psys"):
        after = train(tmp_path, second, 1)
    np.testing.assert_allclose(after.slots["m"], before.slots["m"] / 2 + 50, rtol=1e-6)
    assert after.scalars["beta1_power"] == before.scalars["beta1_power"] / 2
    assert not caplog.records
