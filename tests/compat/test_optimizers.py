"""tf.train's optimizers: constructor arguments, update rules and errors.

``TestTraces`` goes through what was recorded of TF: ``optimizer_traces.py``. The numbers of
``TestKnownResults`` are those of TF's own optimizer tests.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from optimizer_traces import DENSE_GRADIENTS, DENSE_VALUE, SPARSE_GRADIENTS, SPARSE_VALUE, TRACES

from psys.arrays import IndexedSlices
from psys.optimizers import (
    AdagradOptimizer,
    AdamOptimizer,
    FtrlOptimizer,
    GradientDescentOptimizer,
    MomentumOptimizer,
    Optimizer,
    get,
)

TOLERANCE = 2e-6
"""Single steps of TF in float32 differ from ours by rounding, at most 1e-6 of values near 3."""


def start(optimizer: Optimizer, value: Any) -> tuple[Any, dict[str, Any], dict[str, float]]:
    """Return float32 value, slots and scalars before the first step."""
    value = np.array(value, np.float32)
    slots = {name: np.full_like(value, fill) for name, fill in optimizer.slots.items()}
    return value, slots, dict(optimizer.scalars)


def near(expected: Any, tolerance: float = TOLERANCE) -> Any:
    return pytest.approx(np.array(expected), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("name", TRACES)
class TestTraces:
    def test_dense(self, name: str) -> None:
        trace = TRACES[name]
        value, slots, scalars = start(trace.optimizer, DENSE_VALUE)
        for gradient, expected in zip(DENSE_GRADIENTS, trace.dense, strict=True):
            trace.optimizer.apply_dense(value, slots, scalars, np.array(gradient, np.float32))
            assert value == near(expected)
        assert set(slots) == set(trace.dense_slots)
        for slot, expected in trace.dense_slots.items():
            assert slots[slot] == near(expected)

    def test_sparse_with_repeated_indices(self, name: str) -> None:
        trace = TRACES[name]
        value, slots, scalars = start(trace.optimizer, SPARSE_VALUE)
        for (ids, rows), expected in zip(SPARSE_GRADIENTS, trace.sparse, strict=True):
            summed = IndexedSlices(np.array(ids), np.array(rows, np.float32)).summed()
            trace.optimizer.apply_sparse(value, slots, scalars, summed.indices, summed.values)
            assert value.reshape(-1) == near(expected)
        for slot, expected in trace.sparse_slots.items():
            assert slots[slot].reshape(-1) == near(expected)


def after(optimizer: Optimizer, value: list[float], gradient: list[float], steps: int) -> Any:
    """Return the value after ``steps`` times the same dense gradient."""
    array, slots, scalars = start(optimizer, value)
    for _ in range(steps):
        optimizer.apply_dense(array, slots, scalars, np.array(gradient, np.float32))
    return array


def ftrl(l1: float = 0.0, l2: float = 0.0, shrinkage: float = 0.0) -> FtrlOptimizer:
    return FtrlOptimizer(
        3.0,
        initial_accumulator_value=0.1,
        l1_regularization_strength=l1,
        l2_regularization_strength=l2,
        l2_shrinkage_regularization_strength=shrinkage,
    )


class TestKnownResults:
    @pytest.mark.parametrize(
        ("optimizer", "steps", "value", "gradient", "expected"),
        [
            (AdagradOptimizer(3.0), 3, [1, 2], [0.1, 0.1], [-1.6026098728, -0.6026098728]),
            (AdagradOptimizer(3.0), 3, [3, 4], [0.01, 0.01], [2.715679168, 3.715679168]),
            (ftrl(), 3, [0, 0], [0.1, 0.2], [-2.60260963, -4.29698515]),
            (ftrl(), 3, [0, 0], [0.01, 0.02], [-0.28432083, -0.56694895]),
            (ftrl(), 3, [1, 2], [0.1, 0.2], [-2.55607247, -3.98729396]),
            (ftrl(), 3, [4, 3], [0.01, 0.02], [-0.28232238, -0.56096673]),
            (ftrl(0.001), 10, [1, 2], [0.1, 0.2], [-7.66718769, -10.91273689]),
            (ftrl(0.001), 10, [4, 3], [0.01, 0.02], [-0.93460727, -1.86147261]),
            (ftrl(0.001, 2.0), 10, [1, 2], [0.1, 0.2], [-0.24059935, -0.46829352]),
            (ftrl(0.001, 2.0), 10, [4, 3], [0.01, 0.02], [-0.02406147, -0.04830509]),
            (ftrl(0.001, 2.0, 0.1), 10, [1, 2], [0.1, 0.2], [-0.22578995, -0.44345796]),
            (ftrl(0.001, 2.0, 0.1), 10, [4, 3], [0.01, 0.02], [-0.14378493, -0.13229476]),
            (MomentumOptimizer(2.0, 0.9), 1, [1, 2], [0.1, 0.1], [0.8, 1.8]),
            (MomentumOptimizer(2.0, 0.9), 2, [1, 2], [0.1, 0.1], [0.42, 1.42]),
        ],
    )
    def test_dense(
        self,
        optimizer: Optimizer,
        steps: int,
        value: list[float],
        gradient: list[float],
        expected: list[float],
    ) -> None:
        assert after(optimizer, value, gradient, steps) == near(expected, 1e-5)

    def test_momentum_slot(self) -> None:
        optimizer = MomentumOptimizer(2.0, 0.9)
        value, slots, scalars = start(optimizer, [1.0, 2.0])
        for expected in (0.1, 0.19):
            optimizer.apply_dense(value, slots, scalars, np.array([0.1, 0.1], np.float32))
            assert slots["momentum"] == near([expected, expected])

    def test_adagrad_on_one_row_of_a_table(self) -> None:
        optimizer = AdagradOptimizer(3.0)
        value, slots, scalars = start(optimizer, [[9.0, 9.0], [1.0, 2.0]])
        for _ in range(3):
            optimizer.apply_sparse(
                value, slots, scalars, np.array([1]), np.array([[0.1, 0.1]], np.float32)
            )
        assert value == near([[9.0, 9.0], [-1.6026098728, -0.6026098728]])

    def test_ftrl_from_zero_is_adagrad(self) -> None:
        by_ftrl = after(ftrl(), [0, 0], [0.1, 0.2], 5)
        assert by_ftrl == near(after(AdagradOptimizer(3.0), [0, 0], [0.1, 0.2], 5), 1e-5)

    def test_ftrl_with_power_zero_from_zero_is_gradient_descent(self) -> None:
        constant_rate = FtrlOptimizer(3.0, learning_rate_power=0.0)
        by_ftrl = after(constant_rate, [0, 0], [0.1, 0.2], 5)
        assert by_ftrl == near(after(GradientDescentOptimizer(3.0), [0, 0], [0.1, 0.2], 5))

    def test_ftrl_forgets_the_first_value_where_the_first_gradient_is_zero(self) -> None:
        assert after(FtrlOptimizer(0.5), [1.0], [0.0], 1).tolist() == [0.0]


def parameters(optimizer: type[Optimizer]) -> list[tuple[str, Any]]:
    """Return argument names with defaults, in order; ``...`` where there is none."""
    return [
        (one.name, ... if one.default is inspect.Parameter.empty else one.default)
        for one in inspect.signature(optimizer).parameters.values()
    ]


class TestConstructors:
    """The arguments of tf.compat.v1.train's optimizers: names, order, defaults."""

    @pytest.mark.parametrize(
        ("optimizer", "expected"),
        [
            (
                GradientDescentOptimizer,
                [("learning_rate", ...), ("use_locking", False), ("name", "GradientDescent")],
            ),
            (
                MomentumOptimizer,
                [
                    ("learning_rate", ...),
                    ("momentum", ...),
                    ("use_locking", False),
                    ("name", "Momentum"),
                    ("use_nesterov", False),
                ],
            ),
            (
                AdagradOptimizer,
                [
                    ("learning_rate", ...),
                    ("initial_accumulator_value", 0.1),
                    ("use_locking", False),
                    ("name", "Adagrad"),
                ],
            ),
            (
                AdamOptimizer,
                [
                    ("learning_rate", 0.001),
                    ("beta1", 0.9),
                    ("beta2", 0.999),
                    ("epsilon", 1e-8),
                    ("use_locking", False),
                    ("name", "Adam"),
                ],
            ),
            (
                FtrlOptimizer,
                [
                    ("learning_rate", ...),
                    ("learning_rate_power", -0.5),
                    ("initial_accumulator_value", 0.1),
                    ("l1_regularization_strength", 0.0),
                    ("l2_regularization_strength", 0.0),
                    ("use_locking", False),
                    ("name", "Ftrl"),
                    ("accum_name", None),
                    ("linear_name", None),
                    ("l2_shrinkage_regularization_strength", 0.0),
                    ("beta", None),
                ],
            ),
        ],
    )
    def test_signature(self, optimizer: type[Optimizer], expected: list[tuple[str, Any]]) -> None:
        assert parameters(optimizer) == expected

    @pytest.mark.parametrize("value", [0.0, -0.1])
    def test_adagrad_needs_a_positive_accumulator(self, value: float) -> None:
        with pytest.raises(ValueError, match="initial_accumulator_value must be greater than 0"):
            AdagradOptimizer(0.1, initial_accumulator_value=value)

    @pytest.mark.parametrize(
        "argument",
        [
            "initial_accumulator_value",
            "l1_regularization_strength",
            "l2_regularization_strength",
            "l2_shrinkage_regularization_strength",
        ],
    )
    def test_ftrl_refuses_negative_strengths_and_takes_zero(self, argument: str) -> None:
        with pytest.raises(ValueError, match=rf"{argument} must be 0 or more, got -0\.1"):
            FtrlOptimizer(0.1, **{argument: -0.1})  # type: ignore[arg-type]
        assert FtrlOptimizer(0.1, **{argument: 0.0}).to_config()[argument] == 0.0  # type: ignore[arg-type]

    def test_ftrl_refuses_a_positive_power(self) -> None:
        with pytest.raises(ValueError, match=r"learning_rate_power must be 0 or less, got 0\.1"):
            FtrlOptimizer(0.1, learning_rate_power=0.1)


class TestOptimizerOfACannedEstimator:
    """The forms a canned estimator takes its optimizer in."""

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("Adagrad", AdagradOptimizer),
            ("Adam", AdamOptimizer),
            ("Ftrl", FtrlOptimizer),
            ("SGD", GradientDescentOptimizer),
        ],
    )
    def test_string(self, name: str, expected: type[Optimizer]) -> None:
        optimizer = get(name, learning_rate=0.25)
        assert type(optimizer) is expected
        assert optimizer.learning_rate == 0.25

    @pytest.mark.parametrize("name", ["Momentum", "adam", "unknown"])
    def test_unknown_string(self, name: str) -> None:
        with pytest.raises(ValueError, match="Unsupported optimizer name"):
            get(name, learning_rate=0.1)

    def test_string_without_learning_rate(self) -> None:
        with pytest.raises(ValueError, match="needs a learning_rate"):
            get("Adam")

    def test_instance(self) -> None:
        optimizer = MomentumOptimizer(0.1, 0.9)
        assert get(optimizer, learning_rate=7.0) is optimizer

    def test_callable(self) -> None:
        made = get(lambda: AdamOptimizer(0.5))
        assert made.to_config() == AdamOptimizer(0.5).to_config()

    @pytest.mark.parametrize("given", [None, 0.1, lambda: "Adam", AdamOptimizer.__mro__])
    def test_anything_else(self, given: Any) -> None:
        with pytest.raises(ValueError, match="not an Optimizer instance"):
            get(given, learning_rate=0.1)
