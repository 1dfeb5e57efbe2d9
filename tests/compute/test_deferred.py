"""Gradients made by two threads are those of one, whoever comes to which first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

from psys.compute.backward import backward, new_root
from psys.compute.deferred import Deferred
from psys.compute.primitives import LEAST_PRODUCT, dense, relu

BATCH, WIDTH = 64, 256
assert BATCH * WIDTH * WIDTH >= LEAST_PRODUCT
RNG = np.random.default_rng(11)
X = RNG.normal(size=(BATCH, WIDTH)).astype(np.float32)
KERNELS = [RNG.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 16 for _ in range(3)]
BIAS = RNG.normal(size=WIDTH).astype(np.float32)


class Counting(ThreadPoolExecutor):
    """One thread that counts what it was given."""

    given = 0

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        self.given += 1
        return super().submit(*args, **kwargs)


@pytest.fixture
def second() -> Iterator[Counting]:
    with Counting(1) as executor:
        yield executor


def layers(x: Any, kernels: list[Any], bias: Any) -> Any:
    for kernel in kernels:
        x = relu(dense(x, kernel, bias))
    return anp.sum(x)


def shared(x: Any, kernels: list[Any], bias: Any) -> Any:
    """One kernel in two layers: its gradient is a sum."""
    return layers(x, [kernels[0], kernels[1], kernels[0]], bias)


def computed(x: Any, kernels: list[Any], bias: Any) -> Any:
    """A kernel that is no variable: what depends on it needs its gradient at once."""
    return layers(x, [kernels[0], kernels[1] * kernels[1], 2 * kernels[2]], bias)


def nested(x: Any, kernels: list[Any], bias: Any) -> Any:
    """A gradient within the model."""
    slope = autograd.grad(lambda scale: layers(scale * x, kernels[:1], bias))(2.0)
    return layers(x, kernels, bias) + slope


def gradients(model: Callable[..., Any], executor: Executor | None) -> list[Any]:
    kernels, kernel_nodes = zip(*map(new_root, KERNELS), strict=True)
    (x, x_node), (bias, bias_node) = new_root(X), new_root(BIAS)
    loss = model(x, list(kernels), bias)
    nodes = [x_node, bias_node, *kernel_nodes]
    found = backward(loss, np.float32(1.0), nodes, executor)
    return [found[node].tobytes() if node in found else None for node in nodes]


@pytest.mark.parametrize(
    ("model", "handed"), [(layers, 3), (shared, 3), (computed, 3), (nested, 3)]
)
def test_they_are_the_same_to_the_last_bit(
    model: Callable[..., Any], handed: int, second: Counting
) -> None:
    assert gradients(model, second) == gradients(model, None)
    assert second.given >= handed


def test_what_the_second_thread_has_not_begun_is_computed_here(second: Counting) -> None:
    free = threading.Event()
    busy = second.submit(free.wait)
    assert gradients(layers, second) == gradients(layers, None)
    free.set()
    assert busy.result()


def test_with_nothing_to_do_meanwhile_nothing_is_handed_over(second: Counting) -> None:
    kernel, node = new_root(KERNELS[0])
    found = backward(anp.sum(dense(X, kernel)), np.float32(1.0), [node], second)
    assert found[node].tobytes() == (X.T @ np.ones((BATCH, WIDTH), np.float32)).tobytes()
    assert second.given == 0


def test_small_products_are_not_worth_it(second: Counting) -> None:
    (x, x_node), (kernel, node) = new_root(X[:2]), new_root(KERNELS[0])
    backward(anp.sum(dense(x, kernel)), np.float32(1.0), [x_node, node], second)
    assert second.given == 0


def test_an_error_is_raised_where_the_gradient_is_wanted(second: Counting) -> None:
    def fails() -> Any:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        Deferred(second, fails).value()


def test_numpys_errors_are_taken_as_where_it_was_deferred(second: Counting) -> None:
    large = np.full((2, 2), 3e38, np.float32)
    with np.errstate(over="ignore"):
        deferred = Deferred(second, lambda: large + large)
        while not deferred._future.done():
            threading.Event().wait(0.001)
        assert np.isinf(deferred.value()).all()
