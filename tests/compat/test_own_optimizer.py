"""Optimizers and schedules, a user's own too, on a cluster: each ps runs the same script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import psys as tf

PROGRAM = """
import dataclasses, sys
import numpy as np
import psys as tf


class TwiceDescent(tf.train.Optimizer):
    kind = "TwiceDescent"
    arguments = ("learning_rate", "times")

    def __init__(self, learning_rate, times=2.0):
        super().__init__(learning_rate, use_locking=False, name=self.kind)
        self.times = float(times)

    @property
    def slots(self):
        return {"steps": 0.0}

    def update(self, value, slots, scalars, gradient):
        slots["steps"] += 1
        value -= self.times * self.learning_rate * gradient


@dataclasses.dataclass(frozen=True)
class HalvedAfter(tf.train.LearningRateSchedule):
    kind = "HalvedAfter"
    rate: float
    step: int

    def __call__(self, step):
        return self.rate / 2 if step > self.step else self.rate


def model_fn(features, labels, mode):
    a = tf.get_variable("a", (2,))
    b = tf.get_variable("b", ())
    c = tf.get_variable("c", ())
    loss = a[0] + a[1] + 3 * b + c
    rate = tf.train.piecewise_constant(tf.train.get_global_step(), [1, 3], [1.0, 0.5, 0.25])
    spec = tf.group(
        TwiceDescent(0.25).minimize(loss, var_list=["a"]),
        TwiceDescent(HalvedAfter(0.5, 2)).minimize(loss, var_list=["b"]),
        tf.train.GradientDescentOptimizer(rate).minimize(loss),
    )
    return tf.estimator.EstimatorSpec(mode, predictions={}, loss=loss, train_op=spec)


def batches():
    while True:
        yield {"x": np.ones(2, np.float32)}, None


estimator = tf.estimator.Estimator(model_fn, sys.argv[1], tf.estimator.RunConfig(tf_random_seed=1))
tf.estimator.train_and_evaluate(
    estimator,
    tf.estimator.TrainSpec(batches, max_steps=int(sys.argv[2])),
    tf.estimator.EvalSpec(lambda: batches(), steps=1),
)
"""


def values_after(steps: int, directory: Path, launcher: list[str]) -> dict[str, Any]:
    """Train for so many steps; return a, b and c."""
    program = directory / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    model_dir = directory / f"after-{steps}"
    done = subprocess.run(
        [sys.executable, *launcher, str(program), str(model_dir), str(steps)],
        cwd=directory,
        env={**os.environ, "TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reader = tf.estimator.Estimator(lambda features: features, str(model_dir))
    return {name: reader.get_variable_value(name) for name in ("a", "b", "c")}


@pytest.mark.parametrize(
    "launcher", [[], ["-m", "psys", "run", "--ps", "2", "--workers", "0"]], ids=["local", "cluster"]
)
def test_every_ps_applies_it(launcher: list[str], tmp_path: Path) -> None:
    one, five = (values_after(steps, tmp_path, launcher) for steps in (1, 5))
    np.testing.assert_allclose(five["a"] - one["a"], [-4 * 2 * 0.25] * 2, rtol=1e-5)
    # Steps 1 and 2 at the first rate, 3 and 4 at half of it.
    np.testing.assert_allclose(five["b"] - one["b"], -2 * 3 * (0.5 + 0.5 + 0.25 + 0.25), rtol=1e-5)
    # A decay of psys's own, given the global step: steps 1, 2, 3 and 4.
    np.testing.assert_allclose(five["c"] - one["c"], -(1.0 + 0.5 + 0.5 + 0.25), rtol=1e-5)
