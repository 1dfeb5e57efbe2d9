"""Each kernel's twin in plain numpy, written for being read: the oracle of tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Update = Callable[[Any, Sequence[Any], Any, Any], None]
"""Changes value and slots in place by a gradient of the same shape and the kernel's numbers."""


def gradient_descent(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    value -= g * numbers[0]


def momentum(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    rate, mu = numbers
    slots[0][:] = slots[0] * mu + g
    value -= slots[0] * rate


def nesterov(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    rate, mu = numbers
    slots[0][:] = slots[0] * mu + g
    value -= (slots[0] * mu + g) * rate


def adagrad(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    slots[0] += g * g
    value -= g / np.sqrt(slots[0]) * numbers[0]


def adadelta(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    rate, rho, rest, epsilon = numbers
    squares, updates = slots
    squares[:] = squares * rho + g * g * rest
    step = g * (np.sqrt(updates + epsilon) / np.sqrt(squares + epsilon))
    updates[:] = updates * rho + step * step * rest
    value -= step * rate


def adam(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    rate, beta1, rest1, beta2, rest2, epsilon = numbers
    mean, square = slots
    mean[:] = mean * beta1 + g * rest1
    square[:] = square * beta2 + g * g * rest2
    value -= mean / (np.sqrt(square) + epsilon) * rate


def rms_prop(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    rate, rest, mu, epsilon = numbers
    square, velocity = slots
    square += (g * g - square) * rest
    velocity[:] = velocity * mu + g * rate / np.sqrt(square + epsilon)
    value -= velocity


def centered_rms_prop(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    rate, rest, mu, epsilon = numbers
    square, mean, velocity = slots
    square += (g * g - square) * rest
    mean += (g - mean) * rest
    variance = np.maximum(square - mean * mean, 0)
    velocity[:] = velocity * mu + g * rate / np.sqrt(variance + epsilon)
    value -= velocity


def _ftrl(value: Any, slots: Any, g: Any, numbers: Any, power: Callable[[Any], Any]) -> None:
    inverse_rate, twice_shrinkage, l1, added = numbers[:4]
    squares, linear = slots
    before = power(squares)
    squares += g * g
    after = power(squares)
    linear += g
    linear -= ((after - before) * inverse_rate - twice_shrinkage) * value
    curvature = after * inverse_rate + added
    with np.errstate(invalid="ignore"):  # 0 / 0
        solved = (np.clip(linear, -l1, l1) - linear) / curvature
    value[:] = np.where(curvature > 0, solved, 0)


def ftrl(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    _ftrl(value, slots, g, numbers, np.sqrt)


def ftrl_of_any_power(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    _ftrl(value, slots, g, numbers, lambda n: n ** numbers[4])


def _shrink(value: Any, by: Any) -> Any:
    return np.sign(value) * np.maximum(np.abs(value) - by, 0)


def proximal_gradient_descent(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    rate, l1, divisor = numbers
    value[:] = _shrink(value - g * rate, l1) / divisor


def proximal_adagrad(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    rate, l1, l2, one = numbers
    slots[0] += g * g
    eta = rate / np.sqrt(slots[0])
    value[:] = _shrink(value - g * eta, eta * l1) / (one + eta * l2)


def adagrad_da(value: Any, slots: Any, g: Any, numbers: Any) -> None:
    rate, l1, l2 = numbers
    slots[0] += g
    slots[1] += g * g
    value[:] = -rate * _shrink(slots[0], l1) / (l2 + np.sqrt(slots[1]))


TWINS: dict[str, tuple[Update, int, tuple[float, ...]]] = {
    "gradient_descent": (gradient_descent, 0, (0.3,)),
    "momentum": (momentum, 1, (0.3, 0.9)),
    "nesterov": (nesterov, 1, (0.3, 0.9)),
    "adagrad": (adagrad, 1, (0.3,)),
    "adadelta": (adadelta, 2, (0.3, 0.9, 0.1, 1e-3)),
    "adam": (adam, 2, (0.3, 0.9, 0.1, 0.99, 0.01, 1e-4)),
    "lazy_adam": (adam, 2, (0.3, 0.9, 0.1, 0.99, 0.01, 1e-4)),
    "rms_prop": (rms_prop, 2, (0.3, 0.1, 0.5, 1e-4)),
    "centered_rms_prop": (centered_rms_prop, 3, (0.3, 0.1, 0.5, 1e-2)),
    "ftrl": (ftrl, 2, (1 / 0.3, 0.1, 0.05, 0.2)),
    "ftrl_of_any_power": (ftrl_of_any_power, 2, (1 / 0.3, 0.0, 0.05, 0.2, 0.7)),
    "proximal_gradient_descent": (proximal_gradient_descent, 0, (0.3, 0.03, 1.06)),
    "proximal_adagrad": (proximal_adagrad, 1, (0.3, 0.1, 0.2, 1.0)),
    "adagrad_da": (adagrad_da, 2, (0.3, 0.1, 0.2)),
}
"""Kernel → its twin, how many slots it has, and numbers to run both with."""


def update_rows(
    name: str, value: Any, slots: Sequence[Any], indices: Any, rows: Any, numbers: Sequence[float]
) -> None:
    """Do in plain numpy what ``psys.kernels.update_rows`` does."""
    update, typed = TWINS[name][0], np.array(numbers, value.dtype)
    if name == "adam":
        gradient = np.zeros_like(value)
        gradient[indices] = rows
        update(value, slots, gradient, typed)
        return
    taken, taken_slots = value[indices], [slot[indices] for slot in slots]
    update(taken, taken_slots, rows, typed)
    value[indices] = taken
    for slot, there in zip(slots, taken_slots, strict=True):
        slot[indices] = there


def sum_duplicates(ids: Any, values: Any) -> tuple[Any, Any]:
    found, inverse = np.unique(ids, return_inverse=True)
    return found, add_rows(values, inverse.reshape(-1), len(found))


def add_rows(values: Any, index: Any, count: int) -> Any:
    sums = np.zeros((count, *values.shape[1:]), values.dtype)
    np.add.at(sums, index, values)
    return sums


def place_rows(rows: Any, index: Any, parts: Any, out: Any, *, add: bool) -> None:
    for numbers, (first, stop, column) in zip(index, parts, strict=True):
        place = out[:, column : column + rows.shape[1]]
        place[...] = rows[first:stop][numbers] + (place if add else 0)


def sum_placed(values: Any, index: Any, parts: Any, sums: Any) -> None:
    for numbers, (first, stop, column) in zip(index, parts, strict=True):
        np.add.at(sums[first:stop], numbers, values[:, column : column + sums.shape[1]])


def to_bfloat16(numbers: Any) -> Any:
    """Round float32 to the nearest bfloat16, a tie to the even; NaN must not be among them."""
    bits = numbers.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
