"""tf's partitioners: the numbers that TensorFlow's own tests and runs give, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import psys as tf
from psys.arrays import VariableSpec
from psys.errors import ConfigError
from psys.initializers import Constant
from psys.sharding.partitioner import Partitioner, parts_of

KIB = 1024


def spec(*shape: int) -> VariableSpec:
    return VariableSpec("w", shape, "float32", Constant())


def asked(partitioner: Partitioner, shape: tuple[int, ...], dtype: str) -> list[int]:
    return list(partitioner(shape=shape, dtype=np.dtype(dtype)))


@pytest.mark.parametrize(
    ("num_shards", "shape", "dtype", "parts"),
    [
        (3, (2, 4), "float32", [2, 1]),
        (3, (3,), "float32", [3]),
        (3, (10, 2), "float32", [3, 1]),
        (3, (1,), "float32", [1]),
        (5, (10, 10), "float32", [5, 1]),
        (4, (20,), "int64", [4]),
    ],
)
def test_fixed_size(num_shards: int, shape: tuple[int, ...], dtype: str, parts: list[int]) -> None:
    assert asked(tf.fixed_size_partitioner(num_shards), shape, dtype) == parts


@pytest.mark.parametrize(
    ("max_shard_bytes", "max_shards", "shape", "parts"),
    [
        (131072, None, (4, 8, 16, 32), [1, 1, 1, 1]),
        # TensorFlow's cases along axes 1, 2 and 3, turned so that the axis is the first.
        (65536, None, (8, 4, 16, 32), [1, 1, 1, 1]),
        (32768, None, (16, 8, 4, 32), [2, 1, 1, 1]),
        (2048, None, (32, 16, 8, 4), [32, 1, 1, 1]),
        (1024, None, (32, 16, 8, 4), [32, 1, 1, 1]),
        (1024, 33, (32, 16, 8, 4), [32, 1, 1, 1]),
        (1024, 2, (32, 16, 8, 4), [2, 1, 1, 1]),
        (64, None, (10, 0), [1, 1]),
    ],
)
def test_variable_axis_size(
    max_shard_bytes: int, max_shards: int | None, shape: tuple[int, ...], parts: list[int]
) -> None:
    partitioner = tf.variable_axis_size_partitioner(max_shard_bytes, max_shards=max_shards)
    assert asked(partitioner, shape, "float32") == parts


@pytest.mark.parametrize(
    ("max_partitions", "min_slice_size", "shape", "parts"),
    [
        (100, 2 * KIB, (2048,), [4]),
        (100, 256 * KIB, (2048, 1024), [32, 1]),
        (16, 256 * KIB, (2048, 1024), [16, 1]),
        (100, 128 * KIB, (2048, 1024), [64, 1]),
        (100, 512 * KIB, (2048, 1024), [16, 1]),
        (100, 256 * KIB, (1024, 64, 1, 3), [3, 1, 1, 1]),
        (1000, 256 * KIB, (100, 10), [1, 1]),
        (1000, 256 * KIB, (1000, 100), [2, 1]),
        (100, 256 * KIB, (5, 0), [1, 1]),
    ],
)
def test_min_max(
    max_partitions: int, min_slice_size: int, shape: tuple[int, ...], parts: list[int]
) -> None:
    partitioner = tf.min_max_variable_partitioner(max_partitions, min_slice_size=min_slice_size)
    assert asked(partitioner, shape, "float32") == parts


def test_the_default_of_min_max_cuts_nothing() -> None:
    assert asked(tf.min_max_variable_partitioner(), (4096, 4096), "float32") == [1, 1]


def test_the_first_parts_have_the_rows_that_are_left_over() -> None:
    assert parts_of(spec(10, 2), tf.fixed_size_partitioner(3)) == (4, 3, 3)


def test_what_cannot_be_cut_is_not_asked_about() -> None:
    def never(**_: Any) -> list[int]:
        raise AssertionError

    for shape, rows in (((), 1), ((1, 5), 1), ((0, 5), 0)):
        assert parts_of(spec(*shape), never) == (rows,)


def test_equal_arguments_make_equal_partitioners_that_say_what_they_are() -> None:
    one, other = tf.fixed_size_partitioner(2), tf.fixed_size_partitioner(2)
    assert one == other != tf.fixed_size_partitioner(3)
    assert "num_shards=2" in repr(one)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tf.fixed_size_partitioner(2, axis=1), "axis must be 0, as variables are cut"),
        (lambda: tf.fixed_size_partitioner(0), "num_shards must be an integer of 1 or more, got 0"),
        (lambda: tf.variable_axis_size_partitioner(-1), "max_shard_bytes must be an integer"),
        (lambda: tf.variable_axis_size_partitioner(8, max_shards=0), "max_shards must be"),
        (lambda: tf.min_max_variable_partitioner(True), "max_partitions must be an integer"),
        (lambda: tf.min_max_variable_partitioner(2, 0, 0), "min_slice_size must be an integer"),
    ],
)
def test_arguments_that_cannot_be_used(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "answer", [[3], [0, 1], [11, 1], [2, 2], [1, 2], [2.0, 1], [True, 1], 2, None, "21", []]
)
def test_an_answer_that_is_no_way_to_cut_rows_is_refused_with_the_variable(answer: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"each axis of 'w' \(10, 4\): 1 to 10 for the first"
    ) as e:
        parts_of(spec(10, 4), lambda **_: answer)
    assert str(e.value).endswith(f"got {answer!r}.")
