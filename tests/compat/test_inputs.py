"""The promises of ``tf.estimator.inputs.numpy_input_fn`` and ``pandas_input_fn``.

Expected batches are those of TF without shuffling; of its queue only the promise is kept that
each row comes once an epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from psys.inputs import numpy_input_fn, pandas_input_fn


def columns(rows: int) -> tuple[dict[str, Any], Any]:
    return {"a": np.arange(rows) * 1.0, "b": np.arange(32, 32 + rows)}, np.arange(-32, rows - 32)


def frames(rows: int) -> tuple[pd.DataFrame, pd.Series]:
    x, y = columns(rows)
    index = [f"row{number}" for number in range(rows)]
    return pd.DataFrame(x, index=index), pd.Series(y, index=index)


@pytest.mark.parametrize(
    ("rows", "batch_size", "num_epochs", "expected"),
    [
        (4, 2, 1, [[0, 1], [2, 3]]),
        (4, 2, 0, []),
        (5, 2, 1, [[0, 1], [2, 3], [4]]),
        (3, 2, 3, [[0, 1], [2, 0], [1, 2], [0, 1], [2]]),
        (2, 128, 2, [[0, 1, 0, 1]]),
        (4, 10, 1, [[0, 1, 2, 3]]),
    ],
)
@pytest.mark.parametrize(
    ("make", "data"),
    [(numpy_input_fn, columns), (pandas_input_fn, frames)],
    ids=["numpy", "pandas"],
)
def test_batches_in_order(
    make: Callable[..., Any],
    data: Callable[[int], Any],
    rows: int,
    batch_size: int,
    num_epochs: int,
    expected: list[list[int]],
) -> None:
    x, y = data(rows)
    input_fn = make(x, y, batch_size=batch_size, num_epochs=num_epochs, shuffle=False)
    for _ in range(2):  # each call starts anew
        batches = list(input_fn())
        assert [features["a"].tolist() for features, _ in batches] == expected
        assert [features["b"].tolist() for features, _ in batches] == [
            [row + 32 for row in batch] for batch in expected
        ]
        assert [labels.tolist() for _, labels in batches] == [
            [row - 32 for row in batch] for batch in expected
        ]
        assert all(set(features) == {"a", "b"} for features, _ in batches)


def test_numpy_endless_input() -> None:
    x, _ = columns(3)
    batches = numpy_input_fn(x, batch_size=2, num_epochs=None, shuffle=False)()
    taken = [next(batches)["a"].tolist() for _ in range(7)]
    assert taken == [[0, 1], [2, 0], [1, 2]] * 2 + [[0, 1]]


def test_numpy_features_of_different_ranks() -> None:
    x = {"a": np.array([[1, 2], [3, 4]]), "b": np.array([5, 6])}
    (batch,) = numpy_input_fn(x, shuffle=False)()
    assert batch["a"].tolist() == [[1, 2], [3, 4]]
    assert batch["b"].tolist() == [5, 6]


def test_numpy_labels_by_name() -> None:
    x, y = columns(2)
    (batch,) = numpy_input_fn(x, {"y1": y, "y2": -y}, shuffle=False)()
    assert batch[1]["y1"].tolist() == [-32, -31]
    assert batch[1]["y2"].tolist() == [32, 31]


def test_numpy_one_array_of_features() -> None:
    x, y = columns(4)
    of_dict = list(numpy_input_fn(x, y, 2, shuffle=False)())
    of_array = list(numpy_input_fn(x["a"], {"y": y}, 2, shuffle=False)())
    for (array, labels), (by_name, label_array) in zip(of_array, of_dict, strict=True):
        assert array.tolist() == by_name["a"].tolist()
        assert labels["y"].tolist() == label_array.tolist()


def test_numpy_features_alone_without_labels() -> None:
    x, _ = columns(2)
    (batch,) = numpy_input_fn(x, shuffle=False)()
    assert isinstance(batch, dict)
    assert batch["a"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ([1, 2], None, TypeError, "x must be a dict or array"),
        ({}, None, ValueError, "x cannot be an empty dict"),
        (np.array([]), None, ValueError, "cannot be an empty array"),
        ({"a": np.arange(2)}, {}, ValueError, "y cannot be empty dict, use None instead."),
        ({"a": np.arange(2)}, np.arange(3), ValueError, "in x and y is mismatched"),
        ({"a": np.arange(2), "b": np.arange(3)}, None, ValueError, "in x and y is mismatched"),
        (
            dict.fromkeys("abc", np.arange(2)),
            dict.fromkeys("bcd", np.arange(2)),
            ValueError,
            "2 duplicate keys are found in both x and y",
        ),
    ],
)
def test_numpy_errors_when_the_input_fn_is_called(
    x: Any, y: Any, error: type[Exception], message: str
) -> None:
    input_fn = numpy_input_fn(x, y, shuffle=False)
    with pytest.raises(error, match=message):
        input_fn()


@pytest.mark.parametrize("shuffle", [None, 1, "True"])
def test_shuffle_must_be_a_bool_at_once(shuffle: Any) -> None:
    with pytest.raises(ValueError, match="shuffle must be provided and explicitly set as boolean"):
        numpy_input_fn({"a": np.arange(2)}, shuffle=shuffle)
    with pytest.raises(ValueError, match="shuffle must be provided and explicitly set as boolean"):
        pandas_input_fn(pd.DataFrame({"a": [1]}), shuffle=shuffle)


def test_numpy_a_feature_may_have_any_name_and_the_callers_dict_is_left_alone() -> None:
    x = {"b": np.arange(2), "__target_key__": np.arange(2), "a": np.arange(2)}
    (batch,) = numpy_input_fn(x, np.arange(2), shuffle=False)()
    assert list(batch[0]) == ["__target_key__", "a", "b"]
    assert list(x) == ["b", "__target_key__", "a"]


@pytest.mark.parametrize(
    ("batch_size", "num_epochs", "sizes"), [(4, 1, [4]), (2, 2, [2] * 4), (3, 1, [3, 1])]
)
def test_pandas_shuffled(batch_size: int, num_epochs: int, sizes: list[int]) -> None:
    x, y = frames(4)
    input_fn = pandas_input_fn(
        x, y, batch_size, num_epochs, shuffle=True, queue_capacity=None, num_threads=4
    )
    batches = list(input_fn())
    assert [len(labels) for _, labels in batches] == sizes
    seen = np.concatenate([features["a"] for features, _ in batches])
    assert np.bincount(seen.astype(int)).tolist() == [num_epochs] * 4
    for features, labels in batches:
        np.testing.assert_array_equal(features["a"], labels + 32)


def test_pandas_label_frame_may_share_column_names_with_the_features() -> None:
    x, y = frames(2)
    labels = pd.DataFrame({"a": y, "b": -y})
    (batch,) = pandas_input_fn(x, labels, shuffle=False)()
    assert batch[0]["a"].tolist() == [0, 1]
    assert batch[1]["a"].tolist() == [-32, -31]
    assert batch[1]["b"].tolist() == [32, 31]


def test_pandas_index_of_labels_must_be_that_of_the_features() -> None:
    x, y = frames(3)
    with pytest.raises(ValueError, match="Index for x and y are mismatched"):
        pandas_input_fn(x, y[::-1], shuffle=False)


def test_pandas_target_column() -> None:
    x, y = frames(2)
    with pytest.raises(TypeError, match="target_column must be a string"):
        pandas_input_fn(x, y, shuffle=False, target_column=["a"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Cannot use name 'a' for the target column"):
        pandas_input_fn(x, y, shuffle=False, target_column="a")


def test_pandas_frame_is_not_changed() -> None:
    x, y = frames(3)
    before = x.copy()
    list(pandas_input_fn(x, y, shuffle=True)())
    pd.testing.assert_frame_equal(x, before)
