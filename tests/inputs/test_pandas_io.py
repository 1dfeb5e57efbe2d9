from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from psys.errors import ConfigError
from psys.feature_column import categorical_column_with_vocabulary_list, numeric_column
from psys.inputs import pandas_input_fn


def test_pandas_is_not_imported_with_psys_inputs() -> None:
    program = "import sys, psys.inputs; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_pandas_the_call_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is Python's own way to make an import fail.
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(TypeError, match="without pandas installed"):
        pandas_input_fn(object(), shuffle=False)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ({"a": [1]}, None, TypeError, "x must be a pandas.DataFrame, got dict"),
        (pd.DataFrame({"a": [1]}), [1], TypeError, "y must be a pandas.Series or DataFrame"),
        (pd.DataFrame({"a": []}), None, ConfigError, "x must have rows and columns"),
    ],
)
def test_what_is_not_a_frame_is_an_error(
    x: Any, y: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pandas_input_fn(x, y, shuffle=False)


def test_columns_of_every_pandas_kind_reach_feature_columns() -> None:
    frame = pd.DataFrame(
        {
            "float": [1.5, 2.5, 3.5],
            "nullable": pd.array([1, None, 2], dtype="Int64"),
            "text": pd.array(["a", None, "b"], dtype="str"),
            "category": pd.Categorical(["b", "a", "b"]),
            "object": pd.Series(["b", None, "a"], dtype=object),
        }
    )
    (batch,) = pandas_input_fn(frame, shuffle=False)()
    assert numeric_column("float").dense(batch).tolist() == [[1.5], [2.5], [3.5]]
    integers = categorical_column_with_vocabulary_list("nullable", [1, 2]).transform(batch)
    assert integers.ids.tolist() == [0, 1]
    assert integers.segments.tolist() == [0, 2]
    expected = {"text": ([0, 1], [0, 2]), "category": ([1, 0, 1], [0, 1, 2])}
    expected["object"] = ([1, 0], [0, 2])
    for key, (ids, segments) in expected.items():
        found = categorical_column_with_vocabulary_list(key, ["a", "b"]).transform(batch)
        assert found.ids.tolist() == ids
        assert found.segments.tolist() == segments


def test_labels_of_a_series_keep_their_dtype() -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    ((_, labels),) = pandas_input_fn(frame, pd.Series([0.5, 1.5]), shuffle=False)()
    assert labels.dtype == np.float64
    assert labels.tolist() == [0.5, 1.5]
