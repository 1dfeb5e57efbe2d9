"""tf.train's decay functions: values, arguments, errors, and schedules inside a model_fn.

The values were made by evaluating TF 1.x's functions (``tf.compat.v1.train``) at these steps.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import psys as tf
from psys.arrays import GlobalStep
from psys.compute.variables import BuildStore
from psys.errors import ConfigError, ModelError
from psys.optimizers import Optimizer, from_config
from psys.optimizers.schedules import LearningRateSchedule
from psys.train import (
    cosine_decay,
    cosine_decay_restarts,
    exponential_decay,
    inverse_time_decay,
    linear_cosine_decay,
    natural_exp_decay,
    noisy_linear_cosine_decay,
    piecewise_constant,
    polynomial_decay,
)

STEPS = [0, 1, 5, 10, 15, 20, 30, 100]

VALUES = {
    "exponential": (
        lambda s: exponential_decay(0.1, s, 10, 0.5),
        [0.1, 0.0933033, 0.070710681, 0.05, 0.035355341, 0.025, 0.0125, 9.7656e-05],
    ),
    "exponential, staircase": (
        lambda s: exponential_decay(0.1, s, 10, 0.5, staircase=True),
        [0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.0125, 9.7656e-05],
    ),
    "natural_exp": (
        lambda s: natural_exp_decay(0.1, s, 10, 0.5),
        [
            0.1,
            0.095122948,
            0.077880077,
            0.060653068,
            0.047236659,
            0.036787946,
            0.022313017,
            0.000673795,
        ],
    ),
    "natural_exp, staircase": (
        lambda s: natural_exp_decay(0.1, s, 10, 0.5, True),
        [0.1, 0.1, 0.1, 0.060653068, 0.060653068, 0.036787946, 0.022313017, 0.000673795],
    ),
    "inverse_time": (
        lambda s: inverse_time_decay(0.1, s, 10, 0.5),
        [0.1, 0.095238104, 0.08, 0.066666670, 0.057142857, 0.05, 0.04, 0.016666668],
    ),
    "inverse_time, staircase": (
        lambda s: inverse_time_decay(0.1, s, 10, 0.5, True),
        [0.1, 0.1, 0.1, 0.06666667, 0.06666667, 0.05, 0.04, 0.016666668],
    ),
    "polynomial": (
        lambda s: polynomial_decay(0.1, s, 10),
        [0.1, 0.09001, 0.05005, 0.0001, 0.0001, 0.0001, 0.0001, 0.0001],
    ),
    "polynomial, squared": (
        lambda s: polynomial_decay(0.1, s, 10, end_learning_rate=0.01, power=2),
        [0.1, 0.0829, 0.0325, 0.01, 0.01, 0.01, 0.01, 0.01],
    ),
    "polynomial, cycle": (
        lambda s: polynomial_decay(0.1, s, 10, 0.01, 0.5, cycle=True),
        [0.1, 0.095381498, 0.073639609, 0.01, 0.055, 0.01, 0.01, 0.01],
    ),
    "piecewise_constant": (
        lambda s: piecewise_constant(s, [5, 15], [1.0, 0.5, 0.1]),
        [1, 1, 1, 0.5, 0.5, 0.1, 0.1, 0.1],
    ),
    "cosine": (
        lambda s: cosine_decay(0.1, s, 20),
        [0.1, 0.09938442, 0.085355341, 0.05, 0.014644662, 0, 0, 0],
    ),
    "cosine, alpha": (
        lambda s: cosine_decay(0.1, s, 20, alpha=0.1),
        [0.1, 0.099445976, 0.086819813, 0.055, 0.023180196, 0.01, 0.01, 0.01],
    ),
    "cosine_restarts": (
        lambda s: cosine_decay_restarts(0.1, s, 10),
        [0.1, 0.097552828, 0.05, 0.1, 0.085355341, 0.05, 0.1, 0.069134168],
    ),
    "cosine_restarts, all arguments": (
        lambda s: cosine_decay_restarts(0.1, s, 10, 2.0, 0.5, 0.1),
        [0.1, 0.097797543, 0.055, 0.055000003, 0.048409905, 0.0325, 0.0325, 0.017777596],
    ),
    "linear_cosine": (
        lambda s: linear_cosine_decay(0.1, s, 20),
        [0.1001, 0.094515197, 0.064116508, 0.0251, 0.003761165, 0.0001, 0.0001, 0.0001],
    ),
}

every_decay = pytest.mark.parametrize(("decay", "expected"), VALUES.values(), ids=VALUES.keys())


@every_decay
class TestValues:
    def test_rate_at_a_step_number(self, decay: Any, expected: list[float]) -> None:
        rates = [decay(step) for step in STEPS]
        assert rates == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert {type(rate) for rate in rates} == {float}

    def test_schedule_of_the_global_step(self, decay: Any, expected: list[float]) -> None:
        for nothing_known in (None, GlobalStep(7)):
            schedule = decay(nothing_known)
            assert isinstance(schedule, LearningRateSchedule)
            assert [schedule(s) for s in STEPS] == pytest.approx(expected, rel=1e-5, abs=1e-9)

    def test_it_travels_as_json(self, decay: Any, expected: list[float]) -> None:
        optimizer = tf.train.AdamOptimizer(decay(None))
        config = json.loads(json.dumps(optimizer.to_config()))
        assert config == optimizer.to_config()
        back = from_config(config)
        assert [back.rate(s) for s in STEPS] == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert back.to_config() == config


def test_restarts_without_longer_periods() -> None:
    rates = [cosine_decay_restarts(0.1, step, 10, t_mul=1.0) for step in (0, 5, 10, 15, 1000)]
    assert rates == pytest.approx([0.1, 0.05, 0.1, 0.05, 0.1])


def test_restarts_begin_at_the_step_and_not_a_rounding_later() -> None:
    # 3 ** 5: the logarithm of TF's formula says 4.999... periods.
    first = sum(3**i for i in range(5))
    assert cosine_decay_restarts(0.1, first, 1, t_mul=3.0) == 0.1


class TestNoise:
    def test_a_step_s_noise_is_the_same_everywhere(self) -> None:
        schedule = noisy_linear_cosine_decay(0.1, None, 20)
        assert [schedule(s) for s in STEPS] == [  # type: ignore[operator]
            noisy_linear_cosine_decay(0.1, s, 20) for s in STEPS
        ]

    def test_its_variance_falls_and_its_mean_is_the_line(self) -> None:
        # At the same place of the cosine, over many lengths: only the noise differs.
        early = [noisy_linear_cosine_decay(1.0, s, 2 * s, 4.0, 1.0) for s in range(1, 400)]
        middle = linear_cosine_decay(1.0, 1, 2)
        noise = (np.array(early) - middle) / 0.5
        expected = np.sqrt(4.0 / (1.0 + np.arange(1, 400)))
        assert abs(np.mean(noise / expected)) < 0.2
        assert np.std(noise / expected) == pytest.approx(1.0, abs=0.15)

    def test_without_variance_it_is_linear_cosine_decay(self) -> None:
        for step in STEPS:
            assert noisy_linear_cosine_decay(0.1, step, 20, 0.0) == (
                linear_cosine_decay(0.1, step, 20)
            )


class TestArguments:
    """Names, order and defaults of tf.compat.v1.train's functions."""

    @pytest.mark.parametrize(
        ("decay", "names"),
        [
            (
                exponential_decay,
                "learning_rate global_step decay_steps decay_rate staircase=False name=None",
            ),
            (
                natural_exp_decay,
                "learning_rate global_step decay_steps decay_rate staircase=False name=None",
            ),
            (
                inverse_time_decay,
                "learning_rate global_step decay_steps decay_rate staircase=False name=None",
            ),
            (
                polynomial_decay,
                (
                    "learning_rate global_step decay_steps end_learning_rate=0.0001 power=1.0 "
                    "cycle=False name=None"
                ),
            ),
            (piecewise_constant, "x boundaries values name=None"),
            (cosine_decay, "learning_rate global_step decay_steps alpha=0.0 name=None"),
            (
                cosine_decay_restarts,
                (
                    "learning_rate global_step first_decay_steps t_mul=2.0 m_mul=1.0 alpha=0.0 "
                    "name=None"
                ),
            ),
            (
                linear_cosine_decay,
                (
                    "learning_rate global_step decay_steps num_periods=0.5 alpha=0.0 beta=0.001 "
                    "name=None"
                ),
            ),
            (
                noisy_linear_cosine_decay,
                (
                    "learning_rate global_step decay_steps initial_variance=1.0 "
                    "variance_decay=0.55 num_periods=0.5 alpha=0.0 beta=0.001 name=None"
                ),
            ),
        ],
    )
    def test_signature(self, decay: Any, names: str) -> None:
        parameters = inspect.signature(decay).parameters.values()
        given = [
            one.name if one.default is inspect.Parameter.empty else f"{one.name}={one.default}"
            for one in parameters
        ]
        assert given == names.split()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: exponential_decay(0.1, None, 0, 0.5), "decay_steps must be greater than 0"),
            (lambda: exponential_decay("0.1", None, 10, 0.5), "learning_rate must be a number"),  # type: ignore[arg-type]
            (lambda: exponential_decay(0.1, -1, 10, 0.5), "global_step must be psys"),
            (lambda: exponential_decay(0.1, 1.5, 10, 0.5), "global_step must be psys"),
            (lambda: cosine_decay_restarts(0.1, None, 10, 0.5), "t_mul must be 1 or more"),
            (lambda: piecewise_constant(None, [5], [1.0]), "should be 1 less than"),
            (lambda: piecewise_constant(None, [5, 5], [1.0, 2.0, 3.0]), "boundaries must grow"),
            (lambda: piecewise_constant(None, 5, [1.0]), "boundaries must be a list"),  # type: ignore[arg-type]
        ],
    )
    def test_refused(self, make: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make()


def test_an_optimizer_follows_its_schedule() -> None:
    optimizer = tf.train.GradientDescentOptimizer(piecewise_constant(None, [5], [0.5, 0.25]))
    value = np.array([1.0, 1.0], np.float32)
    optimizer.apply_dense(value, {}, {}, np.ones(2, np.float32), global_step=5)
    assert value.tolist() == [0.5, 0.5]
    optimizer.apply_sparse(value, {}, {}, np.array([1]), np.ones(1, np.float32), global_step=6)
    assert value.tolist() == [0.5, 0.25]


def test_ftrl_stands_still_where_its_schedule_gives_0() -> None:
    optimizer = tf.train.FtrlOptimizer(cosine_decay(0.5, None, 10))
    value = np.array([1.0], np.float32)
    slots = {"accum": np.array([0.1], np.float32), "linear": np.zeros(1, np.float32)}
    optimizer.apply_dense(value, slots, {}, np.ones(1, np.float32), global_step=10)
    assert (value, slots["accum"], slots["linear"]) == (1.0, np.float32(0.1), 0.0)


@dataclass(frozen=True)
class Warmup(LearningRateSchedule):
    """A schedule of a user's own."""

    kind = "Warmup"
    peak: float
    steps: int

    def __call__(self, step: int) -> float:
        return self.peak * min(1.0, step / self.steps)


@dataclass(frozen=True)
class Divides(LearningRateSchedule):
    """One that is unusable at step 3."""

    kind = "Divides"

    def __call__(self, step: int) -> float:
        return float("inf") if step == 3 else 0.1


class OwnDescent(Optimizer):
    """An optimizer of a user's own, which sees the rate of the step."""

    kind = "OwnDescent"

    def __init__(self, learning_rate: Any) -> None:
        super().__init__(learning_rate, use_locking=False, name=self.kind)

    def update(self, value: Any, slots: Any, scalars: Any, gradient: Any) -> None:
        value -= self.learning_rate * gradient


class TestOnesOwn:
    def test_schedule_and_optimizer_travel(self) -> None:
        config = json.loads(json.dumps(OwnDescent(Warmup(0.5, 4)).to_config()))
        optimizer = from_config(config)
        value = np.ones(2, np.float32)
        for step, expected in ((0, [1.0, 1.0]), (2, [0.75, 0.75]), (9, [0.25, 0.25])):
            optimizer.apply_dense(value, {}, {}, np.ones(2, np.float32), global_step=step)
            assert value.tolist() == expected
        optimizer.apply_sparse(value, {}, {}, np.array([0]), np.ones(1, np.float32), global_step=2)
        assert value.tolist() == [0.0, 0.25]

    def test_unknown_on_a_ps_that_does_not_run_the_script(self) -> None:
        config = {"kind": "SGD", "learning_rate": {"schedule": "Elsewhere", "peak": 1}}
        with pytest.raises(ModelError, match=r"'Elsewhere'; known: .*in the script all of them"):
            from_config(config)

    def test_a_foreign_argument_is_refused(self) -> None:
        with pytest.raises(ModelError, match=r"'cosine_decay'.*peak"):
            from_config({"kind": "SGD", "learning_rate": {"schedule": "cosine_decay", "peak": 1}})

    def test_it_must_be_a_dataclass_with_a_kind(self) -> None:
        class Plain(LearningRateSchedule):
            kind = "Plain"

            def __call__(self, step: int) -> float:
                return 0.1

        with pytest.raises(ConfigError, match="Plain: a schedule must be a dataclass"):
            OwnDescent(Plain())

    def test_a_kind_belongs_to_one_class(self) -> None:
        with pytest.raises(ConfigError, match=r"'Warmup' is .*Warmup already"):
            type("Other", (LearningRateSchedule,), {"kind": "Warmup"})

    def test_a_rate_that_is_no_number_is_an_error_that_says_when(self) -> None:
        optimizer = OwnDescent(Divides())
        assert optimizer.rate(2) == 0.1
        with pytest.raises(ModelError, match="learning rate inf at global step 3"):
            optimizer.rate(3)


def test_get_global_step_is_what_a_decay_follows() -> None:
    with BuildStore(seed=1, global_step=20):
        step = tf.train.get_global_step()
        follows = exponential_decay(0.1, step, 10, 0.5)
        fixed = exponential_decay(0.1, step - 10, 10, 0.5)
    assert step == 20
    assert isinstance(follows, LearningRateSchedule)
    assert fixed == 0.05  # a number somebody computed is a number


@pytest.mark.parametrize(
    "make",
    [
        lambda flag: exponential_decay(0.1, None, 10, 0.5, staircase=flag),
        lambda flag: natural_exp_decay(0.1, None, 10, 0.5, staircase=flag),
        lambda flag: inverse_time_decay(0.1, None, 10, 0.5, staircase=flag),
        lambda flag: polynomial_decay(0.1, None, 10, cycle=flag),
    ],
)
def test_a_flag_is_a_bool_that_json_can_hold(make: Any) -> None:
    assert make(np.bool_(True)) == make(True)
    json.dumps(make(np.bool_(False)).to_config())
    for wrong in ("no", 1, None):
        with pytest.raises(ConfigError, match=r"(staircase|cycle) must be True or False, got"):
            make(wrong)
