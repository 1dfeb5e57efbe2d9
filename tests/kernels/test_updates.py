"""Every update kernel against its plain numpy twin, bit for bit where no power is involved."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psys import kernels
from psys.errors import ModelError
from psys.kernels.updates import UPDATES


def load_twins() -> Any:
    spec = importlib.util.spec_from_file_location("twins", Path(__file__).with_name("twins.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


twins = load_twins()
every_update = pytest.mark.parametrize("name", twins.TWINS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def arrays(name: str, shape: tuple[int, ...], dtype: str, seed: int) -> list[Any]:
    """Return a value and slots as they are in training: squares and the like are positive."""
    generator = np.random.default_rng(seed)
    value = generator.standard_normal(shape).astype(dtype)
    slots = [generator.uniform(0.1, 2.0, shape).astype(dtype) for _ in range(twins.TWINS[name][1])]
    return [value, *slots]


def same(name: str, given: list[Any], expected: list[Any]) -> None:
    for one, other in zip(given, expected, strict=True):
        assert one.dtype == other.dtype
        if name == "ftrl_of_any_power":
            rtol = 2e-4 if one.dtype == np.float32 else 1e-11
            np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)
        else:
            np.testing.assert_array_equal(one, other)


def test_every_kernel_has_a_twin() -> None:
    assert set(twins.TWINS) == set(UPDATES)


@every_update
@every_dtype
@settings(max_examples=25)
@given(
    rows=st.integers(0, 40),
    row_shape=st.sampled_from([(), (1,), (3,), (16,), (17,), (2, 5)]),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 1000),
)
def test_sparse(
    name: str, dtype: str, rows: int, row_shape: tuple[int, ...], share: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    numbers = twins.TWINS[name][2]
    value, *slots = arrays(name, (rows, *row_shape), dtype, seed)
    expected = [one.copy() for one in (value, *slots)]
    for _ in range(2):
        indices = np.flatnonzero(generator.random(rows) <= share)
        gradient = generator.standard_normal((len(indices), *row_shape)).astype(dtype)
        gradient.flags.writeable = False
        kernels.update_rows(name, value, slots, indices, gradient, numbers)
        twins.update_rows(name, expected[0], expected[1:], indices, gradient, numbers)
    same(name, [value, *slots], expected)


@every_update
@every_dtype
@pytest.mark.parametrize("shape", [(), (0,), (1,), (1001,), (33, 7), (3, 4, 5), (0, 3)])
def test_dense(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    numbers = twins.TWINS[name][2]
    value, *slots = arrays(name, shape, dtype, seed=3)
    expected = [np.atleast_1d(one.copy()) for one in (value, *slots)]
    for seed in range(3):
        gradient = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
        kernels.update_dense(name, value, slots, np.asarray(gradient), numbers)
        typed = np.array(numbers, dtype)
        twins.TWINS[name][0](expected[0], expected[1:], np.atleast_1d(gradient), typed)
    same(name, [np.atleast_1d(one) for one in (value, *slots)], expected)


@every_update
def test_views_and_foreign_memory(name: str) -> None:
    numbers = twins.TWINS[name][2]
    value, *slots = arrays(name, (6, 3), "float32", seed=1)
    expected = [one.copy() for one in (value, *slots)]
    indices = np.array([1, 4])
    # A gradient off the wire is read-only and may begin at an odd address.
    raw = bytearray(1 + 2 * 3 * 4)
    gradient = np.frombuffer(raw, np.float32, offset=1).reshape(2, 3)
    gradient[:] = np.arange(6).reshape(2, 3)
    gradient.flags.writeable = False
    assert not gradient.flags.aligned
    frames = [np.full((8, 5), 7.0, np.float32) for _ in expected]
    for frame, one in zip(frames, (value, *slots), strict=True):
        frame[1:7, 1:4] = one
    inside = [frame[1:7, 1:4] for frame in frames]
    kernels.update_rows(name, inside[0], inside[1:], indices, gradient, numbers)
    twins.update_rows(name, expected[0], expected[1:], indices, gradient, numbers)
    same(name, inside, expected)
    for frame in frames:
        frame[1:7, 1:4] = 7.0
        assert (frame == 7.0).all()


class TestRefused:
    @pytest.mark.parametrize("indices", [[-1, 0], [0, 4], [1, 1], [2, 1]])
    def test_rows_that_are_not_there_or_out_of_order(self, indices: list[int]) -> None:
        value = np.ones((4, 2), np.float32)
        with pytest.raises(ModelError, match=r"sorted and unique, and must lie in \[0, 4\)"):
            kernels.update_rows(
                "gradient_descent",
                value,
                [],
                np.array(indices),
                np.ones((2, 2), np.float32),
                (0.1,),
            )
        assert (value == 1).all()

    def test_shapes_that_do_not_fit(self) -> None:
        value = np.ones((4, 2), np.float32)
        with pytest.raises(ModelError, match=r"gradient must have the shape \(2, 2\)"):
            kernels.update_rows(
                "gradient_descent", value, [], np.array([0, 1]), np.ones((2, 3)), (0.1,)
            )
        with pytest.raises(ModelError, match="Slots must be float32"):
            kernels.update_dense(
                "adagrad", value, [np.ones((4, 3), np.float32)], np.ones((4, 2)), (0.1,)
            )
        with pytest.raises(ModelError, match="Slots must be float32"):
            kernels.update_dense("adagrad", value, [np.ones((4, 2))], np.ones((4, 2)), (0.1,))

    def test_a_gradient_of_another_shape_with_as_many_elements(self) -> None:
        value = np.ones((2, 3), np.float32)
        turned = np.ones((3, 2), np.float32)
        with pytest.raises(ModelError, match=r"the shape \(2, 3\), got \(3, 2\)"):
            kernels.update_dense("gradient_descent", value, [], turned, (0.1,))
        with pytest.raises(ModelError, match=r"the shape \(2, 3\), got \(3, 2\)"):
            kernels.update_rows("gradient_descent", value, [], np.arange(2), turned, (0.1,))
        assert (value == 1).all()

    @every_update
    def test_too_few_numbers(self, name: str) -> None:
        value, *slots = arrays(name, (3,), "float32", seed=1)
        before = value.copy()
        numbers = twins.TWINS[name][2]
        with pytest.raises(ModelError, match=f"'{name}' takes {len(numbers)} numbers, got"):
            kernels.update_dense(name, value, slots, np.ones(3, np.float32), numbers[:-1])
        assert value.tolist() == before.tolist()

    def test_integers(self) -> None:
        with pytest.raises(ModelError, match="Only float32 and float64 variables"):
            kernels.update_dense("gradient_descent", np.ones(2, int), [], np.ones(2), (1,))


def test_two_threads_update_two_slices_at_once() -> None:
    """Python code runs while a kernel does, and neither slice sees the other's update."""
    numbers = twins.TWINS["adam"][2]
    begin = threading.Barrier(3)
    results: list[list[Any]] = [arrays("adam", (300_000, 16), "float32", s) for s in (1, 2)]
    expected = [[one[:1000].copy() for one in result] for result in results]
    indices = np.array([0, 999])
    rows = np.ones((2, 16), np.float32)
    done: list[int] = []

    def work(mine: list[Any]) -> None:
        begin.wait()
        for _ in range(10):
            kernels.update_rows("adam", mine[0], mine[1:], indices, rows, numbers)
        done.append(1)

    threads = [threading.Thread(target=work, args=(result,)) for result in results]
    for one in threads:
        one.start()
    begin.wait()
    counted = 0
    while len(done) < 2:
        counted += 1
    for one in threads:
        one.join()
    # Ten milliseconds and more a kernel: a held lock would let this loop run between two only.
    assert counted > 10_000
    for result, mine in zip(results, expected, strict=True):
        for _ in range(10):
            twins.update_rows("adam", mine[0], mine[1:], indices, rows, numbers)
        same("adam", [one[:1000] for one in result], mine)
