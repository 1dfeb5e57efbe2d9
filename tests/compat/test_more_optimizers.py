"""tf.train's optimizers beyond the five most used: update rules, arguments and errors.

The traces were made by running TF 1.x's optimizers (``tf.compat.v1.train``) for three steps in
float32, dense on a vector and sparse, with repeated indices, on a [4, 2] table; the numbers of
``TestKnownResults`` are those of TF's own optimizer tests.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import psys as tf
from psys.arrays import GlobalStep, IndexedSlices
from psys.optimizers import Optimizer, get
from psys.train import (
    AdadeltaOptimizer,
    AdagradDAOptimizer,
    AdamOptimizer,
    LazyAdamOptimizer,
    ProximalAdagradOptimizer,
    ProximalGradientDescentOptimizer,
    RMSPropOptimizer,
)

TOLERANCE = 2e-6
"""Single steps of TF in float32 differ from ours by rounding, at most 1e-6 of values near 3."""

DENSE_VALUE = [1.0, 2.0, -0.5]
DENSE_GRADIENTS = [[0.1, -0.2, 0.3], [0.4, 0.0, -0.1], [-0.2, 0.05, 0.6]]
SPARSE_VALUE = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [-1.0, -2.0]]
SPARSE_GRADIENTS = [
    ([1, 3, 1], [[0.1, 0.2], [0.3, -0.4], [0.5, 0.6]]),
    ([0, 1, 0], [[0.2, 0.2], [0.1, -0.1], [0.05, 0.05]]),
    ([3, 3, 3], [[-0.3, 0.4], [0.25, 0.75], [0.1, 0.1]]),
]


@dataclass
class Trace:
    """Values after each step, row by row, and slots after the last."""

    optimizer: Optimizer
    dense: list[list[float]]
    dense_slots: dict[str, list[float]]
    sparse: list[list[float]]
    sparse_slots: dict[str, list[float]]


TRACES = {
    "Adadelta(1.0)": Trace(
        AdadeltaOptimizer(1.0),
        dense=[
            [0.999552786, 2.00044727, -0.500447214],
            [0.998938322, 2.00044727, -0.500242531],
            [0.99932915, 2.00028825, -0.500829875],
        ],
        dense_slots={
            "accum": [0.0100512523, 0.00193000049, 0.0225362554],
            "accum_update": [3.45963116e-08, 1.02878968e-08, 2.82620789e-08],
        },
        sparse=[
            [1, 2, 2.99955273, 3.99955273, 5, 6, -1.00044715, -1.99955285],
            [0.999552786, 1.99955285, 2.99944615, 3.99963307, 5, 6, -1.00044715, -1.99955285],
            [0.999552786, 1.99955285, 2.99944615, 3.99963307, 5, 6, -1.00055373, -2.00015664],
        ],
        sparse_slots={
            "accum": [
                0.00312500075,
                0.00312500075,
                0.0176000055,
                0.030900009,
                0,
                0,
                0.00440000091,
                0.0857250169,
            ],
            "accum_update": [
                9.99996796e-09,
                9.99996796e-09,
                1.00681765e-08,
                9.82362103e-09,
                0,
                0,
                1.00681579e-08,
                2.77268661e-08,
            ],
        },
    ),
    "RMSProp(0.1)": Trace(
        RMSPropOptimizer(0.1),
        dense=[
            [0.989464939, 2.02103519, -0.531465828],
            [0.945477009, 2.02103519, -0.520416617],
            [0.968598604, 2.01519299, -0.588651776],
        ],
        dense_slots={
            "momentum": [-0.0231216215, 0.00584210316, 0.0682351515],
            "rms": [0.748209953, 0.732489944, 0.773189962],
        },
        sparse=[
            [1, 2, 2.93798256, 3.91851997, 5, 6, -1.03146589, -1.95820618],
            [0.97373873, 1.97373867, 2.92709374, 3.92924976, 5, 6, -1.03146589, -1.95820618],
            [0.97373873, 1.97373867, 2.92709374, 3.92924976, 5, 6, -1.03699303, -2.08443332],
        ],
        sparse_slots={
            "momentum": [
                0.0262612849,
                0.0262612849,
                0.0108888811,
                -0.0107297627,
                0,
                0,
                0.00552713871,
                0.126227215,
            ],
            "rms": [0.90625, 0.90625, 0.843399942, 0.868599951, 1, 1, 0.818349957, 0.980650067],
        },
    ),
    "RMSProp(0.1,mom.9)": Trace(
        RMSPropOptimizer(0.1, momentum=0.9),
        dense=[
            [0.989464939, 2.02103519, -0.531465828],
            [0.93599546, 2.03996682, -0.548735857],
            [0.91099453, 2.0511632, -0.63251406],
        ],
        dense_slots={
            "momentum": [0.0250009298, -0.0111963749, 0.0837781876],
            "rms": [0.748209953, 0.732489944, 0.773189962],
        },
        sparse=[
            [1, 2, 2.93798256, 3.91851997, 5, 6, -1.03146589, -1.95820618],
            [0.97373873, 1.97373867, 2.87127805, 3.85591769, 5, 6, -1.03146589, -1.95820618],
            [0.97373873, 1.97373867, 2.87127805, 3.85591769, 5, 6, -1.06531227, -2.04681897],
        ],
        sparse_slots={
            "momentum": [
                0.0262612849,
                0.0262612849,
                0.0667045116,
                0.0626023188,
                0,
                0,
                0.0338463932,
                0.0886127651,
            ],
            "rms": [0.90625, 0.90625, 0.843399942, 0.868599951, 1, 1, 0.818349957, 0.980650067],
        },
    ),
    "RMSProp(0.1,centered,eps=.001)": Trace(
        RMSPropOptimizer(0.1, epsilon=1e-3, centered=True),
        dense=[
            [0.989470184, 2.02102828, -0.5314641],
            [0.945444942, 2.02102828, -0.520419657],
            [0.9685601, 2.01518965, -0.588861823],
        ],
        dense_slots={
            "mg": [0.0241000056, -0.0112000033, 0.075300023],
            "momentum": [-0.0231151469, 0.00583861861, 0.0684421584],
            "rms": [0.748209953, 0.732489944, 0.773189962],
        },
        sparse=[
            [1, 2, 2.93789625, 3.91829085, 5, 6, -1.0314641, -1.95819247],
            [0.973744154, 1.97374415, 2.92698741, 3.92903829, 5, 6, -1.0314641, -1.95819247],
            [0.973744154, 1.97374415, 2.92698741, 3.92903829, 5, 6, -1.03699136, -2.08486748],
        ],
        sparse_slots={
            "mg": [
                0.025000006,
                0.025000006,
                0.0640000179,
                0.0620000176,
                0,
                0,
                0.0320000052,
                0.0890000165,
            ],
            "momentum": [
                0.0262558553,
                0.0262558553,
                0.0109089212,
                -0.0107473722,
                0,
                0,
                0.00552722067,
                0.12667501,
            ],
            "rms": [0.90625, 0.90625, 0.843399942, 0.868599951, 1, 1, 0.818349957, 0.980650067],
        },
    ),
    "ProximalGD(0.5,.01,.1)": Trace(
        ProximalGradientDescentOptimizer(0.5, 0.01, 0.1),
        dense=[
            [0.900000036, 1.99523795, -0.614285707],
            [0.661904871, 1.89546478, -0.532653093],
            [0.720861852, 1.77663326, -0.788241088],
        ],
        dense_slots={},
        sparse=[
            [1, 2, 2.5666666, 3.42380953, 5, 6, -1.09047627, -1.7095238],
            [0.828571498, 1.78095245, 2.39206338, 3.30362821, 5, 6, -1.09047627, -1.7095238],
            [0.828571498, 1.78095245, 2.39206338, 3.30362821, 5, 6, -1.05759645, -2.21859407],
        ],
        sparse_slots={},
    ),
    "ProximalAdagrad(0.5,.1,.01,.1)": Trace(
        ProximalAdagradOptimizer(0.5, 0.1, 0.01, 0.1),
        dense=[
            [0.724887848, 1.98821211, -0.746969581],
            [0.30136618, 1.74205697, -0.561237574],
            [0.433097869, 1.46812689, -0.89560771],
        ],
        dense_slots={"accumulator": [0.310000002, 0.142499998, 0.560000002]},
        sparse=[
            [1, 2, 2.37520003, 3.33533454, 5, 6, -1.19551754, -1.45526183],
            [0.602747977, 1.49240017, 2.13897371, 3.20240521, 5, 6, -1.19551754, -1.45526183],
            [0.602747977, 1.49240017, 2.13897371, 3.20240521, 5, 6, -1.11413431, -1.84614539],
        ],
        sparse_slots={
            "accumulator": [
                0.162499994,
                0.162499994,
                0.469999999,
                0.75000006,
                0.100000001,
                0.100000001,
                0.192499995,
                1.82249999,
            ]
        },
    ),
}


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
    """Return the value after ``steps`` times the same dense gradient, global steps from 0."""
    array, slots, scalars = start(optimizer, value)
    for step in range(steps):
        gradient_array = np.array(gradient, np.float32)
        optimizer.apply_dense(array, slots, scalars, gradient_array, global_step=step)
    return array


BIG, SMALL = [0.1, 0.2], [0.01, 0.02]


class TestKnownResults:
    @pytest.mark.parametrize(
        ("optimizer", "steps", "value", "gradient", "expected"),
        [
            (ProximalAdagradOptimizer(3.0), 3, [0, 0], BIG, [-2.60260963, -4.29698515]),
            (ProximalAdagradOptimizer(3.0, 0.1, 0.001), 10, [1, 2], BIG, [-6.663634, -9.190331]),
            (ProximalAdagradOptimizer(3.0, 0.1, 0.001, 2), 10, [1, 2], BIG, [-0.0495, -0.0995]),
            (ProximalGradientDescentOptimizer(3.0), 3, [0, 0], BIG, [-0.9, -1.8]),
            (
                ProximalGradientDescentOptimizer(3.0, 0.001, 2.0),
                10,
                [1, 2],
                BIG,
                [-0.0495, -0.0995],
            ),
            (AdagradDAOptimizer(3.0), 1, [0, 0], BIG, [-0.904534, -1.603567]),
            (AdagradDAOptimizer(3.0), 1, [1, 2], BIG, [-0.904534, -1.603567]),
            (AdagradDAOptimizer(3.0), 1, [4, 3], SMALL, [-0.094821, -0.189358]),
            (AdagradDAOptimizer(3.0, None, 0.1, 0.001), 1, [1, 2], BIG, [-0.895489, -1.59555]),
            (AdagradDAOptimizer(3.0, None, 0.1, 0.001, 2), 1, [1, 2], BIG, [-0.046907, -0.093659]),
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

    def test_adagrad_da_counts_the_penalty_of_every_global_step(self) -> None:
        optimizer = AdagradDAOptimizer(3.0, l1_regularization_strength=0.04)
        value, slots, scalars = start(optimizer, [1.0])
        gradient = np.array([0.1], np.float32)
        optimizer.apply_dense(value, slots, scalars, gradient, global_step=1)
        # |0.1| - 0.04 * 2 = 0.02, over the root of 0.1 + 0.01.
        assert value == near([-3 * 0.02 / np.sqrt(0.11)], 1e-5)
        optimizer.apply_dense(value, slots, scalars, gradient, global_step=6)
        assert value.tolist() == [0.0]  # |0.2| < 0.04 * 7

    def test_centered_rms_prop_stays_finite_where_every_gradient_is_the_same(self) -> None:
        # The variance is 0, and by rounding a little less: TF computes NaN.
        optimizer = RMSPropOptimizer(1e-4, centered=True)
        assert np.isfinite(after(optimizer, [1.0] * 50, list(np.linspace(0.01, 9, 50)), 400)).all()


class TestLazyAdam:
    def test_a_dense_gradient_is_adam_s(self) -> None:
        for steps in (1, 5):
            lazy, adam = (after(make(0.1), DENSE_VALUE, [0.1, -0.2, 0.0], steps) for make in BOTH)
            np.testing.assert_array_equal(lazy, adam)

    def test_rows_without_a_gradient_stay(self) -> None:
        lazy, adam = (start(make(0.1), SPARSE_VALUE) for make in BOTH)
        for value, slots, scalars in (lazy, adam):
            make = LazyAdamOptimizer if value is lazy[0] else AdamOptimizer
            for ids, rows in SPARSE_GRADIENTS:
                summed = IndexedSlices(np.array(ids), np.array(rows, np.float32)).summed()
                make(0.1).apply_sparse(value, slots, scalars, summed.indices, summed.values)
        assert lazy[0][2].tolist() == [5.0, 6.0]
        assert lazy[2] == adam[2]
        # Row 3 missed the second step: neither its average decayed nor did it move.
        m = lazy[1]["m"][3]
        assert m == near([0.9 * 0.03 + 0.1 * 0.05, 0.9 * -0.04 + 0.1 * 1.25])
        assert (lazy[0][:2] != adam[0][:2]).any()


BOTH = (LazyAdamOptimizer, AdamOptimizer)


def parameters(optimizer: type[Optimizer]) -> list[tuple[str, Any]]:
    """Return argument names with defaults, in order; ``...`` where there is none."""
    return [
        (one.name, ... if one.default is inspect.Parameter.empty else one.default)
        for one in inspect.signature(optimizer).parameters.values()
    ]


STRENGTHS = [("l1_regularization_strength", 0.0), ("l2_regularization_strength", 0.0)]


class TestConstructors:
    """The arguments of tf.compat.v1.train's optimizers: names, order, defaults."""

    @pytest.mark.parametrize(
        ("optimizer", "expected"),
        [
            (
                AdadeltaOptimizer,
                [
                    ("learning_rate", 0.001),
                    ("rho", 0.95),
                    ("epsilon", 1e-8),
                    ("use_locking", False),
                    ("name", "Adadelta"),
                ],
            ),
            (
                RMSPropOptimizer,
                [
                    ("learning_rate", ...),
                    ("decay", 0.9),
                    ("momentum", 0.0),
                    ("epsilon", 1e-10),
                    ("use_locking", False),
                    ("centered", False),
                    ("name", "RMSProp"),
                ],
            ),
            (
                ProximalGradientDescentOptimizer,
                [
                    ("learning_rate", ...),
                    *STRENGTHS,
                    ("use_locking", False),
                    ("name", "ProximalGradientDescent"),
                ],
            ),
            (
                ProximalAdagradOptimizer,
                [
                    ("learning_rate", ...),
                    ("initial_accumulator_value", 0.1),
                    *STRENGTHS,
                    ("use_locking", False),
                    ("name", "ProximalAdagrad"),
                ],
            ),
            (
                AdagradDAOptimizer,
                [
                    ("learning_rate", ...),
                    ("global_step", None),  # TF has no default; here the push carries it
                    ("initial_gradient_squared_accumulator_value", 0.1),
                    *STRENGTHS,
                    ("use_locking", False),
                    ("name", "AdagradDA"),
                ],
            ),
            (LazyAdamOptimizer, parameters(AdamOptimizer)),
        ],
    )
    def test_signature(self, optimizer: type[Optimizer], expected: list[tuple[str, Any]]) -> None:
        assert parameters(optimizer) == expected

    @pytest.mark.parametrize(
        "strength", ["l1_regularization_strength", "l2_regularization_strength"]
    )
    @pytest.mark.parametrize(
        "make", [ProximalGradientDescentOptimizer, ProximalAdagradOptimizer, AdagradDAOptimizer]
    )
    def test_strengths_are_0_or_more(self, make: Any, strength: str) -> None:
        with pytest.raises(ValueError, match=rf"{strength} must be 0 or more, got -0\.1"):
            make(0.1, **{strength: -0.1})

    @pytest.mark.parametrize(
        ("make", "argument"),
        [
            (ProximalAdagradOptimizer, "initial_accumulator_value"),
            (AdagradDAOptimizer, "initial_gradient_squared_accumulator_value"),
        ],
    )
    def test_accumulators_start_above_0(self, make: Any, argument: str) -> None:
        with pytest.raises(ValueError, match=f"{argument} must be greater than 0"):
            make(0.1, **{argument: 0.0})

    def test_adagrad_da_takes_the_global_step_and_no_other_number(self) -> None:
        assert AdagradDAOptimizer(0.1, GlobalStep(7)).to_config() == (
            AdagradDAOptimizer(0.1).to_config()
        )
        with pytest.raises(ValueError, match=r"global_step must be psys\.train\.get_global_step"):
            AdagradDAOptimizer(0.1, 7)


def test_rmsprop_by_name() -> None:
    optimizer = get("RMSProp", learning_rate=0.25)
    assert optimizer.to_config() == RMSPropOptimizer(0.25).to_config()
    tf.estimator.LinearRegressor([tf.feature_column.numeric_column("x")], optimizer="RMSProp")
