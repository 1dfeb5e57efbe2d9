from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from psys.errors import ConfigError
from psys.inputs import numpy_input_fn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_epochs": -1}, "num_epochs must be at least 0 or None, got -1"),
    ],
)
def test_sizes_out_of_range_are_errors_at_once(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        numpy_input_fn(np.arange(2), shuffle=False, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ({"a": 5}, None, r"x\['a'\] must be an array of rows, got the scalar 5"),
        (np.arange(2), np.float32(1.0), "y must be an array of rows"),
        ({"a": np.empty((0, 3))}, None, r"x\['a'\] cannot be an empty array"),
    ],
)
def test_data_without_rows_is_an_error(x: Any, y: Any, message: str) -> None:
    input_fn = numpy_input_fn(x, y, shuffle=False)
    with pytest.raises(ConfigError, match=message):
        input_fn()


def test_a_mismatch_names_the_rows_of_each_array() -> None:
    input_fn = numpy_input_fn({"a": np.arange(2)}, np.arange(3), shuffle=False)
    with pytest.raises(ConfigError, match=r"\{\"x\['a'\]\": 2, 'y': 3\}"):
        input_fn()


def test_dtypes_are_kept() -> None:
    x = {
        "float": np.arange(2, dtype=np.float32),
        "bytes": np.array([b"a", b"bc"]),
        "text": np.array(["a", "日本"]),
        "object": np.array(["a", None], object),
    }
    (batch,) = numpy_input_fn(x, shuffle=False)()
    for key, array in x.items():
        assert batch[key].dtype == array.dtype
        assert batch[key].tolist() == array.tolist()
