"""Columns hashed together give what each gives alone."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys.compute.features import InputFeatures
from psys.feature_column import (
    SparseFeature,
    bucketized_column,
    categorical_column_with_hash_bucket,
    categorical_column_with_identity,
    crossed_column,
    numeric_column,
)
from psys.feature_column.ahead import hash_together
from psys.kernels import unique

COLUMNS = [categorical_column_with_hash_bucket(f"c{i}", 10 + i) for i in range(4)]


def batch_of(values: list[list[bytes]], width: int) -> dict[str, Any]:
    array = np.array(values, f"S{width}").reshape(-1, len(COLUMNS))
    return {column.key: array[:, i] for i, column in enumerate(COLUMNS)}


@given(
    values=st.lists(st.lists(st.binary(max_size=70), min_size=4, max_size=4), max_size=12),
    width=st.integers(1, 70),
)
def test_together_as_alone(values: list[list[bytes]], width: int) -> None:
    given = batch_of(values, width)
    together = InputFeatures(given)
    hash_together(together, COLUMNS)
    for column in COLUMNS:
        alone = column.transform(given)
        noted = column.transform(together)
        for name in ("ids", "segments"):
            np.testing.assert_array_equal(getattr(noted, name), getattr(alone, name))
        assert (noted.batch, noted.weights) == (alone.batch, None)
        if column in together.uniques:
            ids, found, inverse = together.uniques[column]
            assert ids is noted.ids
            for one, other in zip((found, inverse), unique(alone.ids), strict=True):
                np.testing.assert_array_equal(one, other)


def test_columns_without_missing_values_are_noted_and_others_are_not() -> None:
    features = InputFeatures(batch_of([[b"a", b"b", b"", b"d"], [b"e", b"f", b"g", b"h"]], 3))
    hash_together(features, COLUMNS)
    assert list(features.transformed) == [COLUMNS[0], COLUMNS[1], COLUMNS[3]]
    assert list(features.uniques) == list(features.transformed)


@pytest.mark.parametrize(
    "value",
    [
        np.array([["a", "b"], ["c", "d"]], "S1"),  # two values a row
        np.array(["a", "b"]),  # str
        np.array([3, 4]),
        np.array(["a", None], object),
        SparseFeature(np.array([b"a"]), np.array([1]), 2),
        ["a", "b"],
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_features_are_left_to_their_columns(value: Any) -> None:
    features = InputFeatures({"c0": value, "c1": np.array([b"a", b"b"]), "id": np.array([1, 2])})
    hash_together(features, [*COLUMNS[:2], categorical_column_with_identity("id", 5)])
    assert not features.transformed


def test_a_feature_that_is_not_there_is_the_columns_own_to_complain_of() -> None:
    features = InputFeatures({"c1": np.array([b"a", b"b"])})
    hash_together(features, COLUMNS)
    assert not features.transformed


def test_what_is_noted_is_not_hashed_again() -> None:
    features = InputFeatures(batch_of([[b"a", b"b", b"c", b"d"]], 1))
    hash_together(features, COLUMNS)
    before = dict(features.transformed)
    hash_together(features, COLUMNS)
    assert all(features.transformed[column] is ids for column, ids in before.items())


def test_a_pickled_column_is_found_by_the_process_that_reads_it(tmp_path: Path) -> None:
    crossed = crossed_column(["a", "b"], 10)
    bucketized = bucketized_column(numeric_column("x"), [0.0, 1.0])
    columns = [COLUMNS[0], categorical_column_with_identity("id", 5), crossed, bucketized]
    assert len({*columns}) == 4  # their hashes are known before they are pickled
    (tmp_path / "columns").write_bytes(pickle.dumps(columns))
    program = f"""
import pickle
from pathlib import Path
from psys.feature_column import *
ours = [
    categorical_column_with_hash_bucket("c0", 10), categorical_column_with_identity("id", 5),
    crossed_column(["a", "b"], 10), bucketized_column(numeric_column("x"), [0.0, 1.0]),
]
given = pickle.loads(Path({str(tmp_path / "columns")!r}).read_bytes())
assert set(given) == set(ours), (given, ours)
"""
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, check=True
        )
