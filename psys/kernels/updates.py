"""The optimizers' updates: one pass over value, slots and gradient for each.

Every kernel takes the value ``[n, width]`` and the slots of its optimizer in the same shape, all
changed in place; the gradient ``[m, width]`` of the rows ``indices`` ``[m]``, sorted and unique;
and the optimizer's numbers, in the value's dtype so that float32 stays float32. A dense gradient
comes as that of a table of one row. What the numbers mean, with the formula and its source, is
said by the optimizer of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from psys.kernels.compiling import Kernel, changes, inner, kernel, reads
from psys.kernels.memory import ask_for, later

if TYPE_CHECKING:
    from psys.arrays import Array

UPDATES: dict[str, Kernel] = {}
"""Every update, by the name of its function."""


NUMBERS: dict[str, int] = {}
"""How many numbers each update reads; it does not look whether they are there."""


def _update(slots: int, numbers: int) -> Callable[[Callable[..., None]], Kernel]:
    """Return a decorator that makes a function an update with so many slots and numbers."""

    def register(function: Callable[..., None]) -> Kernel:
        arrays = [changes(2)] * (1 + slots)
        made = kernel(*arrays, reads(2), reads(1, "int64"), reads(1))(function)
        UPDATES[made.name] = made
        NUMBERS[made.name] = numbers
        return made

    return register


@_update(slots=0, numbers=1)
def gradient_descent(value: Array, gradient: Array, indices: Array, numbers: Array) -> None:
    """Numbers: learning rate."""
    rate = numbers[0]
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        for j in range(value.shape[1]):
            value[row, j] -= gradient[i, j] * rate


@_update(slots=1, numbers=2)
def momentum(
    value: Array, velocity: Array, gradient: Array, indices: Array, numbers: Array
) -> None:
    """Numbers: learning rate, momentum."""
    rate, mu = numbers[0], numbers[1]
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        ask_for(velocity, soon)
        for j in range(value.shape[1]):
            a = velocity[row, j] * mu + gradient[i, j]
            velocity[row, j] = a
            value[row, j] -= a * rate


@_update(slots=1, numbers=2)
def nesterov(
    value: Array, velocity: Array, gradient: Array, indices: Array, numbers: Array
) -> None:
    """Numbers: learning rate, momentum."""
    rate, mu = numbers[0], numbers[1]
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        ask_for(velocity, soon)
        for j in range(value.shape[1]):
            g = gradient[i, j]
            a = velocity[row, j] * mu + g
            velocity[row, j] = a
            value[row, j] -= (a * mu + g) * rate


@_update(slots=1, numbers=1)
def adagrad(
    value: Array, accumulator: Array, gradient: Array, indices: Array, numbers: Array
) -> None:
    """Numbers: learning rate."""
    rate = numbers[0]
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        ask_for(accumulator, soon)
        for j in range(value.shape[1]):
            g = gradient[i, j]
            a = accumulator[row, j] + g * g
            accumulator[row, j] = a
            value[row, j] -= g / np.sqrt(a) * rate


@_update(slots=2, numbers=4)
def adadelta(
    value: Array,
    squares: Array,
    updates: Array,
    gradient: Array,
    indices: Array,
    numbers: Array,
) -> None:
    """Numbers: learning rate, ρ, 1 − ρ, ε."""
    rate, rho, rest, epsilon = numbers[0], numbers[1], numbers[2], numbers[3]
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        ask_for(squares, soon)
        ask_for(updates, soon)
        for j in range(value.shape[1]):
            g = gradient[i, j]
            a = squares[row, j] * rho + g * g * rest
            u = updates[row, j]
            step = g * (np.sqrt(u + epsilon) / np.sqrt(a + epsilon))
            squares[row, j] = a
            updates[row, j] = u * rho + step * step * rest
            value[row, j] -= step * rate


@_update(slots=2, numbers=6)
def adam(
    value: Array, mean: Array, square: Array, gradient: Array, indices: Array, numbers: Array
) -> None:
    """Numbers: corrected learning rate, β₁, 1 − β₁, β₂, 1 − β₂, ε̂. Every row moves."""
    rate, epsilon = numbers[0], numbers[5]
    beta1, rest1, beta2, rest2 = numbers[1], numbers[2], numbers[3], numbers[4]
    i = 0
    for row in range(len(value)):
        if i < len(indices) and indices[i] == row:
            for j in range(value.shape[1]):
                g = gradient[i, j]
                m = mean[row, j] * beta1 + g * rest1
                s = square[row, j] * beta2 + g * g * rest2
                mean[row, j] = m
                square[row, j] = s
                value[row, j] -= m / (np.sqrt(s) + epsilon) * rate
            i += 1
        else:
            for j in range(value.shape[1]):
                m = mean[row, j] * beta1
                s = square[row, j] * beta2
                mean[row, j] = m
                square[row, j] = s
                value[row, j] -= m / (np.sqrt(s) + epsilon) * rate


@_update(slots=2, numbers=6)
def lazy_adam(
    value: Array, mean: Array, square: Array, gradient: Array, indices: Array, numbers: Array
) -> None:
    """Numbers: those of ``adam``. Rows without a gradient stay as they are."""
    rate, epsilon = numbers[0], numbers[5]
    beta1, rest1, beta2, rest2 = numbers[1], numbers[2], numbers[3], numbers[4]
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        ask_for(mean, soon)
        ask_for(square, soon)
        for j in range(value.shape[1]):
            g = gradient[i, j]
            m = mean[row, j] * beta1 + g * rest1
            s = square[row, j] * beta2 + g * g * rest2
            mean[row, j] = m
            square[row, j] = s
            value[row, j] -= m / (np.sqrt(s) + epsilon) * rate


@_update(slots=2, numbers=4)
def rms_prop(
    value: Array, square: Array, velocity: Array, gradient: Array, indices: Array, numbers: Array
) -> None:
    """Numbers: learning rate, 1 − ρ, momentum, ε."""
    rate, rest, mu, epsilon = numbers[0], numbers[1], numbers[2], numbers[3]
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        ask_for(square, soon)
        ask_for(velocity, soon)
        for j in range(value.shape[1]):
            g = gradient[i, j]
            s = square[row, j]
            s += (g * g - s) * rest
            a = velocity[row, j] * mu + g * rate / np.sqrt(s + epsilon)
            square[row, j] = s
            velocity[row, j] = a
            value[row, j] -= a


@_update(slots=3, numbers=4)
def centered_rms_prop(
    value: Array,
    square: Array,
    mean: Array,
    velocity: Array,
    gradient: Array,
    indices: Array,
    numbers: Array,
) -> None:
    """Numbers: those of ``rms_prop``."""
    rate, rest, mu, epsilon = numbers[0], numbers[1], numbers[2], numbers[3]
    zero = value.dtype.type(0)
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        ask_for(square, soon)
        ask_for(mean, soon)
        ask_for(velocity, soon)
        for j in range(value.shape[1]):
            g = gradient[i, j]
            s = square[row, j]
            s += (g * g - s) * rest
            m = mean[row, j]
            m += (g - m) * rest
            variance = max(s - m * m, zero)
            a = velocity[row, j] * mu + g * rate / np.sqrt(variance + epsilon)
            square[row, j] = s
            mean[row, j] = m
            velocity[row, j] = a
            value[row, j] -= a


@inner
def _follow(value: Any, linear: Any, g: Any, before: Any, after: Any, numbers: Any) -> Any:
    """Return the next value and z of one element, from n to the power before and after."""
    inverse_rate, twice_shrinkage, l1, added = numbers[0], numbers[1], numbers[2], numbers[3]
    z = linear + g - ((after - before) * inverse_rate - twice_shrinkage) * value
    curvature = after * inverse_rate + added
    numerator = min(max(z, -l1), l1) - z
    # No gradient yet and nothing to start from (initial_accumulator_value 0): stay at 0.
    return (numerator / curvature if curvature > 0 else curvature), z


@_update(slots=2, numbers=4)
def ftrl(
    value: Array, squares: Array, linear: Array, gradient: Array, indices: Array, numbers: Array
) -> None:
    """Numbers: 1 / η, 2 λₛ, λ₁, 2 λ₂ + β / η. For the power −½."""
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        ask_for(squares, soon)
        ask_for(linear, soon)
        for j in range(value.shape[1]):
            g = gradient[i, j]
            n = squares[row, j]
            grown = n + g * g
            squares[row, j] = grown
            value[row, j], linear[row, j] = _follow(
                value[row, j], linear[row, j], g, np.sqrt(n), np.sqrt(grown), numbers
            )


@_update(slots=2, numbers=5)
def ftrl_of_any_power(
    value: Array, squares: Array, linear: Array, gradient: Array, indices: Array, numbers: Array
) -> None:
    """Numbers: those of ``ftrl``, and minus the power."""
    power = numbers[4]
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        ask_for(squares, soon)
        ask_for(linear, soon)
        for j in range(value.shape[1]):
            g = gradient[i, j]
            n = squares[row, j]
            grown = n + g * g
            squares[row, j] = grown
            value[row, j], linear[row, j] = _follow(
                value[row, j], linear[row, j], g, n**power, grown**power, numbers
            )


@inner
def _shrink(value: Any, by: Any) -> Any:
    """Return the value moved towards 0 by ``by``, and not beyond."""
    return value - min(max(value, -by), by)


@_update(slots=0, numbers=3)
def proximal_gradient_descent(
    value: Array, gradient: Array, indices: Array, numbers: Array
) -> None:
    """Numbers: learning rate, η·λ₁, 1 + η·λ₂."""
    rate, l1, divisor = numbers[0], numbers[1], numbers[2]
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        for j in range(value.shape[1]):
            moved = value[row, j] - gradient[i, j] * rate
            value[row, j] = _shrink(moved, l1) / divisor


@_update(slots=1, numbers=4)
def proximal_adagrad(
    value: Array, accumulator: Array, gradient: Array, indices: Array, numbers: Array
) -> None:
    """Numbers: learning rate, λ₁, λ₂, 1."""
    rate, l1, l2, one = numbers[0], numbers[1], numbers[2], numbers[3]
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        ask_for(accumulator, soon)
        for j in range(value.shape[1]):
            g = gradient[i, j]
            a = accumulator[row, j] + g * g
            accumulator[row, j] = a
            eta = rate / np.sqrt(a)
            moved = value[row, j] - g * eta
            value[row, j] = _shrink(moved, eta * l1) / (one + eta * l2)


@_update(slots=2, numbers=3)
def adagrad_da(
    value: Array, total: Array, squares: Array, gradient: Array, indices: Array, numbers: Array
) -> None:
    """Numbers: learning rate, λ₁·T, η·λ₂·T."""
    rate, l1, l2 = numbers[0], numbers[1], numbers[2]
    for i in range(len(indices)):
        row, soon = indices[i], later(indices, i)
        ask_for(value, soon)
        ask_for(total, soon)
        ask_for(squares, soon)
        for j in range(value.shape[1]):
            g = gradient[i, j]
            summed = total[row, j] + g
            grown = squares[row, j] + g * g
            total[row, j] = summed
            squares[row, j] = grown
            value[row, j] = -rate * _shrink(summed, l1) / (l2 + np.sqrt(grown))
