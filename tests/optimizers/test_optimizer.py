"""What every optimizer promises, and each against a dumb float64 twin, element by element."""

from __future__ import annotations

import doctest
import importlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psys.arrays import IndexedSlices
from psys.errors import ConfigError, ModelError
from psys.optimizers import (
    AdadeltaOptimizer,
    AdagradDAOptimizer,
    AdagradOptimizer,
    AdamOptimizer,
    FtrlOptimizer,
    GradientDescentOptimizer,
    LazyAdamOptimizer,
    MomentumOptimizer,
    Optimizer,
    ProximalAdagradOptimizer,
    ProximalGradientDescentOptimizer,
    RMSPropOptimizer,
    from_config,
    rows,
)
from psys.optimizers.decays import exponential_decay


class ClippedDescentOptimizer(GradientDescentOptimizer):
    """An optimizer of a user's own, in numpy, on top of one of psys's."""

    kind = "ClippedDescent"

    def update(self, value: Any, slots: Any, scalars: Any, gradient: Any) -> None:
        value -= np.clip(gradient, -9, 0.375) * self.learning_rate


OPTIMIZERS = {
    "sgd": GradientDescentOptimizer(0.5),
    "momentum": MomentumOptimizer(0.5, 0.9),
    "nesterov": MomentumOptimizer(0.5, 0.9, use_nesterov=True),
    "adagrad": AdagradOptimizer(0.5, initial_accumulator_value=0.2),
    "adam": AdamOptimizer(0.1, beta1=0.8, beta2=0.99, epsilon=1e-4),
    "lazy adam": LazyAdamOptimizer(0.1, beta1=0.8, beta2=0.99, epsilon=1e-4),
    "adadelta": AdadeltaOptimizer(0.5, rho=0.8, epsilon=1e-3),
    "rmsprop": RMSPropOptimizer(0.1, decay=0.8, momentum=0.5, epsilon=1e-4),
    "rmsprop centered": RMSPropOptimizer(0.1, decay=0.8, epsilon=1e-2, centered=True),
    "proximal": ProximalGradientDescentOptimizer(0.5, 0.01, 0.1),
    "proximal adagrad": ProximalAdagradOptimizer(0.5, 0.2, 0.01, 0.1),
    "adagrad da": AdagradDAOptimizer(0.5, None, 0.2, 0.001, 0.1),
    "ftrl": FtrlOptimizer(0.5),
    "ftrl regularized": FtrlOptimizer(
        0.5,
        learning_rate_power=-0.7,
        initial_accumulator_value=0.0,
        l1_regularization_strength=0.05,
        l2_regularization_strength=0.1,
        l2_shrinkage_regularization_strength=0.02,
        beta=0.5,
    ),
    "one's own": ClippedDescentOptimizer(0.5),
}

NOT_BY_ROW = {"adam", "lazy adam", "one's own"}
"""Those with scalars, and what cannot be looked into."""

every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


class Slice:
    """A value with its slots and scalars, as a shard would hold them."""

    def __init__(self, optimizer: Optimizer, value: Any, dtype: str = "float32") -> None:
        self.optimizer = optimizer
        self.value = np.array(value, dtype)
        self.slots = {
            name: np.full(self.value.shape, fill, dtype) for name, fill in optimizer.slots.items()
        }
        self.scalars = dict(optimizer.scalars)

    def apply_dense(self, gradient: Any) -> None:
        read_only = np.array(gradient, self.value.dtype)
        read_only.flags.writeable = False
        self.optimizer.apply_dense(self.value, self.slots, self.scalars, read_only)

    def apply_sparse(self, indices: Any, gradient: Any, global_step: int = 0) -> None:
        read_only = np.array(gradient, self.value.dtype)
        read_only.flags.writeable = False
        self.optimizer.apply_sparse(
            self.value,
            self.slots,
            self.scalars,
            np.array(indices, np.int64),
            read_only,
            global_step=global_step,
        )

    def arrays(self) -> list[Any]:
        return [self.value, *self.slots.values()]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@every_optimizer
class TestContract:
    def test_config_round_trip_through_json(self, optimizer: Optimizer) -> None:
        config = json.loads(json.dumps(optimizer.to_config()))
        back = from_config(config)
        assert type(back) is type(optimizer)
        assert back.to_config() == optimizer.to_config()
        assert back.slots == optimizer.slots
        assert back.scalars == optimizer.scalars

    def test_arrays_change_in_place_and_keep_their_dtype(self, optimizer: Optimizer) -> None:
        for dtype in ("float32", "float64"):
            held = Slice(optimizer, normal(5, 3), dtype)
            arrays, before = held.arrays(), [array.copy() for array in held.arrays()]
            held.apply_dense(normal(5, 3, seed=1))
            held.apply_sparse([0, 3], normal(2, 3, seed=2))
            for array, same, old in zip(arrays, held.arrays(), before, strict=True):
                assert array is same
                assert array.dtype == dtype
                assert (array != old).all()

    def test_dense_equals_sparse_with_every_row(self, optimizer: Optimizer) -> None:
        dense, sparse = Slice(optimizer, normal(6, 2)), Slice(optimizer, normal(6, 2))
        for step in range(3):
            gradient = normal(6, 2, seed=10 + step)
            dense.apply_dense(gradient)
            sparse.apply_sparse(range(6), gradient)
        for one, other in zip(dense.arrays(), sparse.arrays(), strict=True):
            np.testing.assert_array_equal(one, other)
        assert dense.scalars == sparse.scalars

    def test_rows_apart_equal_rows_side_by_side(self, optimizer: Optimizer) -> None:
        apart, together = Slice(optimizer, normal(5, 2)), Slice(optimizer, normal(5, 2)[[0, 2, 4]])
        for step in range(3):
            gradient = normal(3, 2, seed=20 + step)
            apart.apply_sparse([0, 2, 4], gradient)
            together.apply_dense(gradient)
        for one, other in zip(apart.arrays(), together.arrays(), strict=True):
            np.testing.assert_array_equal(one[[0, 2, 4]], other)

    def test_untouched_rows_stay_but_under_adam(self, optimizer: Optimizer) -> None:
        held = Slice(optimizer, normal(5, 2))
        held.apply_dense(normal(5, 2, seed=1))
        before = [array.copy() for array in held.arrays()]
        held.apply_sparse([1, 3], normal(2, 2, seed=2))
        for array, old in zip(held.arrays(), before, strict=True):
            untouched = array[[0, 2, 4]] == old[[0, 2, 4]]
            assert not untouched.any() if optimizer.kind == "Adam" else untouched.all()

    def test_an_empty_sparse_gradient_counts_as_a_step_of_zeros(self, optimizer: Optimizer) -> None:
        held, zeros = Slice(optimizer, normal(4, 2)), Slice(optimizer, normal(4, 2))
        for one in (held, zeros):
            one.apply_dense(normal(4, 2, seed=1))
        before = [array.copy() for array in held.arrays()]
        held.apply_sparse([], np.zeros((0, 2)))
        zeros.apply_dense(np.zeros((4, 2)))
        assert held.scalars == zeros.scalars
        expected = zeros.arrays() if optimizer.kind == "Adam" else before
        for array, other in zip(held.arrays(), expected, strict=True):
            np.testing.assert_array_equal(array, other)

    def test_a_slice_may_be_empty_flat_or_a_scalar(self, optimizer: Optimizer) -> None:
        empty = Slice(optimizer, np.zeros((0, 3)))
        empty.apply_dense(np.zeros((0, 3)))
        empty.apply_sparse([], np.zeros((0, 3)))
        rows_of_one, flat, scalar = (Slice(optimizer, v) for v in ([[1.0]], [1.0], 1.0))
        for gradient in (0.5, -0.25):
            rows_of_one.apply_dense([[gradient]])
            flat.apply_dense([gradient])
            scalar.apply_dense(gradient)
        assert rows_of_one.value.item() == flat.value.item() == scalar.value.item() != 1.0
        for slot in optimizer.slots:
            assert rows_of_one.slots[slot].item() == scalar.slots[slot].item()

    def test_blocks_make_no_difference(
        self, optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, blocks = Slice(optimizer, normal(23, 3)), Slice(optimizer, normal(23, 3))
        ids = [0, 1, 2, 3, 9, 11, 20, 22]
        for held, elements in ((whole, 1 << 16), (blocks, 7)):
            monkeypatch.setattr(rows, "BLOCK_ELEMENTS", elements)
            held.apply_dense(normal(23, 3, seed=1))
            held.apply_sparse(ids, normal(8, 3, seed=2))
        for one, other in zip(whole.arrays(), blocks.arrays(), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_a_view_of_a_larger_array_changes_only_itself(self, optimizer: Optimizer) -> None:
        inside, alone = Slice(optimizer, normal(6, 2)), Slice(optimizer, normal(6, 2))
        frame = np.full((8, 4), 7.0, np.float32)
        frame[1:7, 1:3] = inside.value
        inside.value = frame[1:7, 1:3]
        for held in (inside, alone):
            held.apply_dense(normal(6, 2, seed=1))
            held.apply_sparse([0, 2, 5], normal(3, 2, seed=2))
        np.testing.assert_array_equal(inside.value, alone.value)
        frame[1:7, 1:3] = 7.0
        assert (frame == 7.0).all()

    @pytest.mark.parametrize("indices", [[2, 1], [1, 1]])
    def test_indices_out_of_order_are_refused(
        self, optimizer: Optimizer, indices: list[int]
    ) -> None:
        held = Slice(optimizer, np.ones((4, 2)))
        with pytest.raises(ModelError, match="must be sorted and unique"):
            held.apply_sparse(indices, np.ones((2, 2)))
        assert (held.value == 1).all()

    @pytest.mark.parametrize("indices", [[-1, 0], [0, 4]])
    def test_an_index_outside_the_slice_is_refused(
        self, optimizer: Optimizer, indices: list[int]
    ) -> None:
        held = Slice(optimizer, np.ones((4, 2)))
        with pytest.raises(ModelError, match=r"must lie in \[0, 4\)"):
            held.apply_sparse(indices, np.ones((2, 2)))
        assert (held.value == 1).all()

    def test_a_gradient_that_would_be_broadcast_is_refused(self, optimizer: Optimizer) -> None:
        held = Slice(optimizer, np.ones((4, 2)))
        with pytest.raises(ModelError, match="shape"):
            held.apply_dense(np.ones((1, 2)))
        with pytest.raises(ModelError, match="shape"):
            held.apply_sparse([0, 1], np.ones((1, 2)))
        assert (held.value == 1).all()

    def test_repr_shows_the_arguments(self, optimizer: Optimizer) -> None:
        assert repr(optimizer).startswith(
            f"{type(optimizer).__name__}(learning_rate={optimizer.learning_rate}"
        )


class TestAdamScalars:
    def test_powers_follow_the_update(self) -> None:
        held = Slice(AdamOptimizer(0.1, beta1=0.5, beta2=0.75), np.ones((2, 2)))
        assert held.scalars == {"beta1_power": 0.5, "beta2_power": 0.75}
        held.apply_dense(np.ones((2, 2)))
        held.apply_sparse([1], np.ones((1, 2)))
        held.apply_sparse([], np.ones((0, 2)))
        assert held.scalars == {"beta1_power": 0.5**4, "beta2_power": 0.75**4}


class TestArguments:
    @pytest.mark.parametrize("given", [-0.1, math.nan, math.inf, "0.1", None, True, [0.1]])
    @pytest.mark.parametrize(
        "make",
        [
            GradientDescentOptimizer,
            lambda rate: MomentumOptimizer(rate, 0.9),
            AdagradOptimizer,
            AdamOptimizer,
            FtrlOptimizer,
        ],
    )
    def test_learning_rate_is_a_number_of_0_or_more(
        self, make: Callable[[Any], Optimizer], given: Any
    ) -> None:
        with pytest.raises(ConfigError, match=r"Optimizer: learning_rate must be .*, got"):
            make(given)

    def test_zero_learning_rate(self) -> None:
        assert GradientDescentOptimizer(0).learning_rate == 0.0
        for rate in (0.0, 1e-39):
            with pytest.raises(ConfigError, match="1e-30 or more"):
                FtrlOptimizer(rate)  # it divides by it

    def test_a_function_is_refused_and_told_what_to_use(self) -> None:
        function: Any = lambda step: 0.1 / step  # noqa: E731
        with pytest.raises(ConfigError, match=r"cannot be sent .* use psys\.train\.exponential_"):
            AdamOptimizer(function)

    def test_numpy_numbers_become_json(self) -> None:
        config = AdagradOptimizer(np.float32(0.5), np.float64(0.25)).to_config()  # type: ignore[arg-type]
        assert json.loads(json.dumps(config)) == {
            "kind": "Adagrad",
            "learning_rate": 0.5,
            "initial_accumulator_value": 0.25,
        }

    @pytest.mark.parametrize(
        "arguments", [{"beta1": 1.0}, {"beta2": 1.5}, {"beta1": -0.1}, {"epsilon": -1e-8}]
    )
    def test_adam_limits(self, arguments: dict[str, float]) -> None:
        (name,) = arguments
        with pytest.raises(ConfigError, match=f"AdamOptimizer: {name} must be"):
            AdamOptimizer(0.1, **arguments)  # type: ignore[arg-type]


class TestRegistry:
    @pytest.mark.parametrize("kind", ["Nadam", None, "psys.optimizers.adam.AdamOptimizer"])
    def test_unknown_kind(self, kind: Any) -> None:
        with pytest.raises(ModelError, match=r"Unknown optimizer .*known: .*'Adagrad'"):
            from_config({"kind": kind, "learning_rate": 0.1})

    def test_foreign_argument(self) -> None:
        with pytest.raises(ModelError, match="'SGD' has no argument momentum"):
            from_config({"kind": "SGD", "learning_rate": 0.1, "momentum": 0.9})

    def test_missing_argument(self) -> None:
        with pytest.raises(ModelError, match=r"'Momentum': .*momentum"):
            from_config({"kind": "Momentum", "learning_rate": 0.1})

    def test_a_kind_belongs_to_one_class(self) -> None:
        with pytest.raises(ConfigError, match=r"'Adam' is psys\.optimizers\.adam\.AdamOptimizer"):
            type("MyAdam", (AdamOptimizer,), {"kind": "Adam"})
        assert type(from_config({"kind": "Adam", "learning_rate": 0.1})) is AdamOptimizer

    def test_an_optimizer_of_ones_own(self) -> None:
        optimizer = from_config(ClippedDescentOptimizer(0.5).to_config())
        held = Slice(optimizer, [1.0, 1.0, 1.0])
        held.apply_sparse([0, 2], [9.0, -1.0])
        assert held.value.tolist() == [0.8125, 1.0, 1.5]


def dumb_step(
    optimizer: Optimizer, v: float, slots: dict[str, float], step: int, g: float
) -> float:
    """Return one element's next value by the published formula, in float64; change ``slots``."""
    rate = optimizer.learning_rate
    if isinstance(optimizer, MomentumOptimizer):
        mu = optimizer.momentum
        a = slots["momentum"] = mu * slots["momentum"] + g
        return v - rate * (g + mu * a) if optimizer.use_nesterov else v - rate * a
    if isinstance(optimizer, AdagradOptimizer):
        slots["accumulator"] += g**2
        return v - rate * g / math.sqrt(slots["accumulator"])
    if isinstance(optimizer, AdamOptimizer):
        slots["m"] += (g - slots["m"]) * (1 - optimizer.beta1)
        slots["v"] += (g**2 - slots["v"]) * (1 - optimizer.beta2)
        rate *= math.sqrt(1 - optimizer.beta2**step) / (1 - optimizer.beta1**step)
        return v - rate * slots["m"] / (math.sqrt(slots["v"]) + optimizer.epsilon)
    if isinstance(optimizer, AdadeltaOptimizer):
        rho, epsilon = optimizer.rho, optimizer.epsilon
        slots["accum"] = rho * slots["accum"] + (1 - rho) * g**2
        d = g * math.sqrt(slots["accum_update"] + epsilon) / math.sqrt(slots["accum"] + epsilon)
        slots["accum_update"] = rho * slots["accum_update"] + (1 - rho) * d**2
        return v - rate * d
    if isinstance(optimizer, RMSPropOptimizer):
        slots["rms"] += (g**2 - slots["rms"]) * (1 - optimizer.decay)
        variance = slots["rms"]
        if optimizer.centered:
            slots["mg"] += (g - slots["mg"]) * (1 - optimizer.decay)
            variance -= slots["mg"] ** 2
        root = math.sqrt(variance + optimizer.epsilon)
        slots["momentum"] = optimizer.momentum * slots["momentum"] + rate * g / root
        return v - slots["momentum"]
    if isinstance(optimizer, ProximalGradientDescentOptimizer):
        return proximal(optimizer, v - rate * g, rate)
    if isinstance(optimizer, ProximalAdagradOptimizer):
        slots["accumulator"] += g**2
        rate /= math.sqrt(slots["accumulator"])
        return proximal(optimizer, v - rate * g, rate)
    if isinstance(optimizer, AdagradDAOptimizer):
        total = slots["gradient_accumulator"] = slots["gradient_accumulator"] + g
        slots["gradient_squared_accumulator"] += g**2
        root = math.sqrt(slots["gradient_squared_accumulator"])
        left = max(abs(total) - optimizer.l1_regularization_strength * step, 0.0)
        l2 = optimizer.l2_regularization_strength * step * rate
        return -rate * math.copysign(left, total) / (l2 + root)
    if isinstance(optimizer, ClippedDescentOptimizer):
        return v - rate * min(g, 0.375)
    if isinstance(optimizer, FtrlOptimizer):
        old, p = slots["accum"], optimizer.learning_rate_power
        new = slots["accum"] = old + g**2
        shrunk = g + 2 * optimizer.l2_shrinkage_regularization_strength * v
        slots["linear"] += shrunk - (new**-p - old**-p) / rate * v
        l2 = optimizer.l2_regularization_strength + optimizer.beta / (2 * rate)
        z, l1 = slots["linear"], optimizer.l1_regularization_strength
        return (math.copysign(l1, z) - z) / (new**-p / rate + 2 * l2) if abs(z) > l1 else 0.0
    return v - rate * g


def proximal(optimizer: Any, p: float, rate: float) -> float:
    left = max(abs(p) - rate * optimizer.l1_regularization_strength, 0.0)
    return math.copysign(left, p) / (1 + rate * optimizer.l2_regularization_strength)


TABLE_ROWS, WIDTH = 4, 2
numbers = st.floats(-2, 2, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
table_rows = st.lists(numbers, min_size=WIDTH, max_size=WIDTH)
pushes = st.lists(
    st.lists(st.tuples(st.integers(0, TABLE_ROWS - 1), table_rows), max_size=6), max_size=5
)


@every_optimizer
@settings(max_examples=60)
@given(table=st.lists(table_rows, min_size=TABLE_ROWS, max_size=TABLE_ROWS), pushes=pushes)
def test_sparse_pushes_agree_with_the_dumb_twin(
    optimizer: Optimizer, table: list[list[float]], pushes: list[list[tuple[int, list[float]]]]
) -> None:
    held = Slice(optimizer, table)
    value = [list(row) for row in table]
    slots = [[dict(optimizer.slots) for _ in row] for row in table]
    for step, push in enumerate(pushes, start=1):
        ids = np.array([row for row, _ in push], np.int64)
        gradient = np.array([numbers for _, numbers in push], np.float32).reshape(-1, WIDTH)
        summed = IndexedSlices(ids, gradient).summed()
        held.apply_sparse(summed.indices, summed.values, global_step=step - 1)
        touched = range(TABLE_ROWS) if optimizer.kind == "Adam" else {row for row, _ in push}
        for row in touched:
            for column in range(WIDTH):
                g = sum(numbers[column] for there, numbers in push if there == row)
                value[row][column] = dumb_step(
                    optimizer, value[row][column], slots[row][column], step, float(np.float32(g))
                )
    np.testing.assert_allclose(held.value, value, rtol=2e-4, atol=2e-4)
    for name, slot in held.slots.items():
        expected = [[element[name] for element in row] for row in slots]
        np.testing.assert_allclose(slot, expected, rtol=2e-4, atol=2e-4)


def test_ftrl_without_a_start_stays_finite_where_no_gradient_came() -> None:
    held = Slice(FtrlOptimizer(0.5, initial_accumulator_value=0.0), [1.0, 1.0])
    held.apply_dense([0.0, 2.0])
    # From n = 0: z = 2 - (2 - 0) / 0.5 * 1 = -2, v = 2 / (2 / 0.5) = 0.5.
    assert held.value.tolist() == [0.0, 0.5]


@pytest.mark.parametrize(
    "module",
    [
        "adadelta",
        "adagrad",
        "adagrad_da",
        "adam",
        "decays",
        "ftrl",
        "gradient_descent",
        "momentum",
        "proximal",
        "rms_prop",
        "rows",
        "schedules",
    ],
)
def test_examples_in_the_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"psys.optimizers.{module}"))
    assert result.attempted
    assert not result.failed


def test_ftrl_does_not_move_at_a_rate_whose_inverse_is_infinite_in_float32() -> None:
    optimizer = FtrlOptimizer(exponential_decay(0.1, None, 100, 0.9))
    value = np.ones(2, np.float32)
    slots = {name: np.full(2, first, np.float32) for name, first in optimizer.slots.items()}
    before = {name: slot.copy() for name, slot in slots.items()}
    assert 0 < optimizer.rate(90_000) < 1e-40
    gradient = np.array([0, 0.1], np.float32)
    optimizer.apply_dense(value, slots, {}, gradient, global_step=90_000)
    assert value.tolist() == [1, 1]
    for name, slot in slots.items():
        assert slot.tolist() == before[name].tolist()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tables_may_be_updated_as_one_if_rows_go_their_own_way(name: str) -> None:
    optimizer = OPTIMIZERS[name]
    assert optimizer.by_row == (name not in NOT_BY_ROW)
    first, second = Slice(optimizer, normal(4, 2)), Slice(optimizer, normal(5, 2, seed=1))
    both = Slice(optimizer, np.concatenate([first.value, second.value]))
    for step in range(3):
        one, other = normal(2, 2, seed=2 + step), normal(1, 2, seed=9 + step)
        first.apply_sparse([0, 2], one, step)
        if step != 1:
            second.apply_sparse([3], other, step)
            both.apply_sparse([0, 2, 7], np.concatenate([one, other]), step)
        else:
            both.apply_sparse([0, 2], one, step)
    same = all(
        np.array_equal(np.concatenate([left, right]), whole)
        for left, right, whole in zip(first.arrays(), second.arrays(), both.arrays(), strict=True)
    )
    assert same or not optimizer.by_row
    if optimizer.scalars:
        assert not same
