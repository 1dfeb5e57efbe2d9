"""tf.train's optimizers: constructor arguments, update rules and errors.

The traces were made by running TF 1.x's optimizers (``tf.compat.v1.train``) for three steps
in float32, dense on a vector and sparse, with repeated indices, on a [4, 2] table. The
numbers of ``TestKnownResults`` are those of TF's own optimizer tests.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

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
    "GradientDescent(0.5)": Trace(
        GradientDescentOptimizer(0.5),
        dense=[
            [0.949999988, 2.0999999, -0.649999976],
            [0.75, 2.0999999, -0.599999964],
            [0.850000024, 2.07499981, -0.899999976],
        ],
        dense_slots={},
        sparse=[
            [1, 2, 2.70000005, 3.60000014, 5, 6, -1.14999998, -1.79999995],
            [0.875, 1.875, 2.6500001, 3.6500001, 5, 6, -1.14999998, -1.79999995],
            [0.875, 1.875, 2.6500001, 3.6500001, 5, 6, -1.17499995, -2.42499995],
        ],
        sparse_slots={},
    ),
    "Momentum(0.5,0.9)": Trace(
        MomentumOptimizer(0.5, 0.9),
        dense=[
            [0.949999988, 2.0999999, -0.649999976],
            [0.704999983, 2.18999982, -0.735000014],
            [0.584500015, 2.24599981, -1.11150002],
        ],
        dense_slots={"momentum": [0.240999982, -0.111999989, 0.753000021]},
        sparse=[
            [1, 2, 2.70000005, 3.5999999, 5, 6, -1.14999998, -1.79999995],
            [0.875, 1.875, 2.38000011, 3.28999996, 5, 6, -1.14999998, -1.79999995],
            [0.875, 1.875, 2.38000011, 3.28999996, 5, 6, -1.30999994, -2.24499989],
        ],
        sparse_slots={
            "momentum": [0.25, 0.25, 0.640000045, 0.619999945, 0, 0, 0.319999993, 0.889999986]
        },
    ),
    "Momentum(0.5,0.9,nesterov)": Trace(
        MomentumOptimizer(0.5, 0.9, use_nesterov=True),
        dense=[
            [0.904999971, 2.19000006, -0.785000026],
            [0.484499991, 2.27100015, -0.811500013],
            [0.476050019, 2.29640007, -1.45035005],
        ],
        dense_slots={"momentum": [0.240999982, -0.111999989, 0.753000021]},
        sparse=[
            [1, 2, 2.42999983, 3.24000001, 5, 6, -1.28500009, -1.62],
            [0.762499988, 1.76250005, 2.09199977, 3.01100016, 5, 6, -1.28500009, -1.62],
            [0.762499988, 1.76250005, 2.09199977, 3.01100016, 5, 6, -1.45400012, -2.64549994],
        ],
        sparse_slots={
            "momentum": [0.25, 0.25, 0.640000045, 0.619999945, 0, 0, 0.319999993, 0.889999986]
        },
    ),
    "Adagrad(0.5)": Trace(
        AdagradOptimizer(0.5),
        dense=[
            [0.849244356, 2.26726127, -0.844123602],
            [0.464344174, 2.26726127, -0.732320189],
            [0.643949449, 2.20103455, -1.13321209],
        ],
        dense_slots={"accumulator": [0.310000002, 0.142499998, 0.560000002]},
        sparse=[
            [1, 2, 2.55767417, 3.53500938, 5, 6, -1.3441236, -1.60776782],
            [0.689913154, 1.68991315, 2.48474169, 3.59274435, 5, 6, -1.3441236, -1.60776782],
            [0.689913154, 1.68991315, 2.48474169, 3.59274435, 5, 6, -1.40110385, -2.07073069],
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
    "Adam(0.1)": Trace(
        AdamOptimizer(0.1),
        dense=[
            [0.900000334, 2.0999999, -0.599999905],
            [0.811563075, 2.1670053, -0.640021563],
            [0.777953386, 2.20174313, -0.710959196],
        ],
        dense_slots={
            "m": [0.0241000056, -0.0112000033, 0.075300023],
            "v": [0.000209817314, 4.2419495e-05, 0.0004598042],
        },
        sparse=[
            [1, 2, 2.9000001, 3.9000001, 5, 6, -1.0999999, -1.9000001],
            [0.925586641, 1.9255867, 2.82166767, 3.84274673, 5, 6, -1.16700542, -1.83299458],
            [0.868065119, 1.86806524, 2.76111674, 3.79849005, 5, 6, -1.22860682, -1.87807035],
        ],
        sparse_slots={
            "m": [
                0.0225000046,
                0.0225000046,
                0.0576000139,
                0.0558000132,
                0,
                0,
                0.0293000061,
                0.0926000178,
            ],
            "v": [
                6.24366949e-05,
                6.24366949e-05,
                0.000369265646,
                0.000648702262,
                0,
                0,
                9.23189073e-05,
                0.00172215793,
            ],
        },
    ),
    "Ftrl(0.5)": Trace(
        FtrlOptimizer(0.5),
        dense=[
            [-0.104218267, 0.576952755, -0.481385499],
            [-0.489118457, 0.576952755, -0.369582087],
            [-0.309513152, 0.510726094, -0.770473957],
        ],
        dense_slots={
            "accum": [0.310000002, 0.142499998, 0.560000002],
            "linear": [0.344659269, -0.385589749, 1.15313983],
        },
        sparse=[
            [1, 2, 1.15891707, 2.0645802, 5, 6, -0.618647397, -0.367420554],
            [-0.0945513695, 0.1209841, 1.08598459, 2.12231541, 5, 6, -0.618647397, -0.367420554],
            [-0.0945513695, 0.1209841, 1.08598459, 2.12231541, 5, 6, -0.675627649, -0.83038348],
        ],
        sparse_slots={
            "accum": [
                0.162499994,
                0.162499994,
                0.469999999,
                0.75000006,
                0.100000001,
                0.100000001,
                0.192499995,
                1.82249999,
            ],
            "linear": [
                0.0762297511,
                -0.0975404978,
                -1.48902702,
                -3.67595816,
                0,
                0,
                0.592860818,
                2.24203539,
            ],
        },
    ),
    "Ftrl(0.5,l1=.01,l2=.1)": Trace(
        FtrlOptimizer(0.5, l1_regularization_strength=0.01, l2_regularization_strength=0.1),
        dense=[
            [-0.0684916824, 0.44473049, -0.38222602],
            [-0.391272634, 0.44473049, -0.290854037],
            [-0.239013836, 0.392373562, -0.644489408],
        ],
        dense_slots={
            "accum": [0.310000002, 0.142499998, 0.560000002],
            "linear": [0.323957324, -0.384710222, 1.10348129],
        },
        sparse=[
            [1, 2, 1.0035758, 1.84436476, 5, 6, -0.493874073, -0.298979938],
            [-0.0658199713, 0.0869988576, 0.93992734, 1.89612317, 5, 6, -0.493874073, -0.298979938],
            [-0.0658199713, 0.0869988576, 0.93992734, 1.89612317, 5, 6, -0.540278018, -0.730014384],
        ],
        sparse_slots={
            "accum": [
                0.162499994,
                0.162499994,
                0.469999999,
                0.75000006,
                0.100000001,
                0.100000001,
                0.192499995,
                1.82249999,
            ],
            "linear": [
                0.0762297511,
                -0.0975404978,
                -1.48674893,
                -3.6734066,
                0,
                0,
                0.592147589,
                2.12704182,
            ],
        },
    ),
    "Ftrl(0.5,l1=.01,l2=.1,shr=.05)": Trace(
        FtrlOptimizer(
            0.5,
            l1_regularization_strength=0.01,
            l2_regularization_strength=0.1,
            l2_shrinkage_regularization_strength=0.05,
        ),
        dense=[
            [-0.184322923, 0.23383376, -0.335574657],
            [-0.492229909, 0.209176362, -0.213540509],
            [-0.302497923, 0.134915769, -0.554589927],
        ],
        dense_slots={
            "accum": [0.310000002, 0.142499998, 0.560000002],
            "linear": [0.407347023, -0.138842329, 0.950952232],
        },
        sparse=[
            [1, 2, 0.810831368, 1.63608181, 5, 6, -0.400571346, -0.135019153],
            [-0.165201232, -0.0918874145, 0.69557482, 1.60315931, 5, 6, -0.400571346, -0.135019153],
            [-0.165201232, -0.0918874145, 0.69557482, 1.60315931, 5, 6, -0.409799129, -0.561397791],
        ],
        sparse_slots={
            "accum": [
                0.162499994,
                0.162499994,
                0.469999999,
                0.75000006,
                0.100000001,
                0.100000001,
                0.192499995,
                1.82249999,
            ],
            "linear": [
                0.176229745,
                0.10245949,
                -1.10283911,
                -3.1073854,
                0,
                0,
                0.45155707,
                1.63805366,
            ],
        },
    ),
    "Ftrl(0.5,beta=1)": Trace(
        FtrlOptimizer(0.5, beta=1.0),
        dense=[
            [-0.0259564947, 0.157095999, -0.14613311],
            [-0.157568768, 0.157095999, -0.111583963],
            [-0.0933334529, 0.13894707, -0.283176124],
        ],
        dense_slots={
            "accum": [0.310000002, 0.142499998, 0.560000002],
            "linear": [0.290598661, -0.382796884, 0.990171552],
        },
        sparse=[
            [1, 2, 0.468359172, 0.954729676, 5, 6, -0.187801391, -0.124079891],
            [
                -0.0271645114,
                0.0347586051,
                0.43869552,
                0.981524587,
                5,
                6,
                -0.187801391,
                -0.124079891,
            ],
            [
                -0.0271645114,
                0.0347586051,
                0.43869552,
                0.981524587,
                5,
                6,
                -0.205177605,
                -0.390037358,
            ],
        ],
        sparse_slots={
            "accum": [
                0.162499994,
                0.162499994,
                0.469999999,
                0.75000006,
                0.100000001,
                0.100000001,
                0.192499995,
                1.82249999,
            ],
            "linear": [
                0.0762297511,
                -0.0975404978,
                -1.47890007,
                -3.66309977,
                0,
                0,
                0.590397835,
                1.83317554,
            ],
        },
    ),
    "Ftrl(0.5,p=-0.7)": Trace(
        FtrlOptimizer(0.5, learning_rate_power=-0.7),
        dense=[
            [-0.169880062, 0.815710783, -0.66065532],
            [-0.670001328, 0.815710783, -0.50639683],
            [-0.442990392, 0.717926383, -0.9565804],
        ],
        dense_slots={
            "accum": [0.310000002, 0.142499998, 0.560000002],
            "linear": [0.390281081, -0.367096573, 1.27492046],
        },
        sparse=[
            [1, 2, 1.45251787, 2.52078032, 5, 6, -0.841617346, -0.461903811],
            [-0.1578504, 0.130276397, 1.36769724, 2.58193445, 5, 6, -0.841617346, -0.461903811],
            [-0.1578504, 0.130276397, 1.36769724, 2.58193445, 5, 6, -0.920837939, -0.872497976],
        ],
        sparse_slots={
            "accum": [
                0.162499994,
                0.162499994,
                0.469999999,
                0.75000006,
                0.100000001,
                0.100000001,
                0.192499995,
                1.82249999,
            ],
            "linear": [
                0.088485688,
                -0.0730286241,
                -1.61245811,
                -4.22199917,
                0,
                0,
                0.58118546,
                2.65620565,
            ],
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
