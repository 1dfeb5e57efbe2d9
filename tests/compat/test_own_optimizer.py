"""An optimizer and a schedule of a user's own, on a cluster: each ps runs the same script."""

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
class Same(tf.train.LearningRateSchedule):
    kind = "Same"
    rate: float

    def __call__(self, step):
        return self.rate


def model_fn(features, labels, mode):
    a = tf.get_variable("a", (2,))
    b = tf.get_variable("b", ())
    loss = a[0] + a[1] + 3 * b
    spec = tf.group(
        TwiceDescent(0.25).minimize(loss, var_list=["a"]),
        TwiceDescent(Same(0.5)).minimize(loss, var_list=["b"]),
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
    """Train for so many steps; return a and b."""
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
    return {name: reader.get_variable_value(name) for name in ("a", "b")}


@pytest.mark.parametrize(
    "launcher", [[], ["-m", "psys", "run", "--ps", "2", "--workers", "0"]], ids=["local", "cluster"]
)
def test_every_ps_applies_it(launcher: list[str], tmp_path: Path) -> None:
    one, five = (values_after(steps, tmp_path, launcher) for steps in (1, 5))
    np.testing.assert_allclose(five["a"] - one["a"], [-4 * 2 * 0.25] * 2, rtol=1e-5)
    np.testing.assert_allclose(five["b"] - one["b"], -4 * 2 * 0.5 * 3, rtol=1e-5)
