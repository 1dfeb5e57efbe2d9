from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys import metrics
from psys.compute.backward import new_root
from psys.errors import ModelError

FUNCTIONS: dict[str, Callable[..., metrics.Metric]] = {
    "accuracy": lambda z, p, w: metrics.accuracy(z, p > 0.5, w),
    "auc": metrics.auc,
    "auc_pr": lambda z, p, w: metrics.auc(z, p, w, curve="PR"),
    "precision": lambda z, p, w: metrics.precision(z, p > 0.5, w),
    "recall": lambda z, p, w: metrics.recall(z, p > 0.5, w),
    "true_positives": lambda z, p, w: metrics.true_positives(z, p > 0.5, w),
    "false_positives": lambda z, p, w: metrics.false_positives(z, p > 0.5, w),
    "true_negatives": lambda z, p, w: metrics.true_negatives(z, p > 0.5, w),
    "false_negatives": lambda z, p, w: metrics.false_negatives(z, p > 0.5, w),
    "mean": lambda _, p, w: metrics.mean(p, w),
    "mean_squared_error": metrics.mean_squared_error,
    "root_mean_squared_error": metrics.root_mean_squared_error,
    "mean_absolute_error": metrics.mean_absolute_error,
    "accuracy_baseline": lambda z, _, w: metrics.accuracy_baseline(z, w),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_merging_batches_is_one_big_batch(name: str, weighted: bool) -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 60)
    predictions = random.random(60, np.float32)
    weights = random.random(60) if weighted else None
    function = FUNCTIONS[name]
    merged = None
    for part in np.split(np.arange(60), [7, 7, 30]):
        batch = function(
            labels[part], predictions[part], None if weights is None else weights[part]
        )
        merged = batch if merged is None else merged.merge(batch)
    assert merged is not None
    whole = function(labels, predictions, weights).result()
    assert merged.result() == pytest.approx(whole, rel=1e-9)
    assert isinstance(merged.result(), float)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_examples_give_a_number(name: str) -> None:
    empty = np.zeros(0)
    expected = 1.0 if name == "accuracy_baseline" else 0.0
    assert FUNCTIONS[name](empty, empty, None).result() == expected


def test_means() -> None:
    assert metrics.mean([1, 2, 6]).result() == 3
    assert metrics.mean([1, 2, 6], [1, 1, 0]).result() == 1.5
    assert metrics.mean_squared_error([1, 2], [2, 5]).result() == 5
    assert metrics.root_mean_squared_error([0, 0], [3, 3]).result() == 3
    assert metrics.mean_absolute_error([1, 2], [2, 5]).result() == 2


def test_an_accuracy_of_strings() -> None:
    assert metrics.accuracy(np.array([b"a", b"b"]), np.array([b"a", b"c"])).result() == 0.5


def test_a_last_axis_of_one_is_dropped() -> None:
    labels, predictions = np.array([[1], [0], [1]]), np.array([1, 1, 1])
    assert metrics.accuracy(labels, predictions).result() == pytest.approx(2 / 3)
    assert metrics.accuracy(labels, predictions, np.array([[1], [2], [1]])).result() == 0.5
    assert metrics.mean(np.array([[1.0], [4.0]]), np.array([1, 2])).result() == 3


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match=r"labels of shape \(2,\).*predictions of shape \(3,\)"):
        metrics.accuracy(np.ones(2), np.ones(3))
    with pytest.raises(ModelError, match=r"weights shape \(2,\).*\(3,\)"):
        metrics.mean(np.ones(3), np.ones(2))


def test_metrics_of_two_kinds_do_not_merge() -> None:
    with pytest.raises(ModelError, match="cannot be merged"):
        metrics.mean([1]).merge(metrics.precision([1], [1]))
    with pytest.raises(ModelError, match="cannot be merged"):
        metrics.auc([1], [0.5]).merge(metrics.auc([1], [0.5], curve="PR"))
    with pytest.raises(ModelError, match="cannot be merged"):
        metrics.auc([1], [0.5]).merge(metrics.auc([1], [0.5], num_thresholds=10))


def test_bad_arguments_of_auc_are_refused() -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"curve": "XY"}, "curve must be"),
        ({"summation_method": "careful"}, "summation_method must be"),
        ({"num_thresholds": 1}, "at least 2"),
    ]
    for arguments, message in bad:
        with pytest.raises(ModelError, match=message):
            metrics.auc([1], [0.5], **arguments)
    with pytest.raises(ModelError, match=r"in \[0, 1\], got .*1.5"):
        metrics.auc([1, 0], [0.5, 1.5])


def test_traced_values_are_read() -> None:
    box, _ = new_root(np.array([1.0, 3.0]))
    assert metrics.mean(box).result() == 2


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 198), st.integers(1, 4)), min_size=1, max_size=30
    )
)
def test_roc_area_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int, int]]) -> None:
    """With every prediction between two thresholds of its own, the area is exact."""
    labels = np.array([label for label, _, _ in rows])
    scores = np.array([(place + 0.5) / 199 for _, place, _ in rows])
    weights = np.array([weight for _, _, weight in rows])
    above = (scores[:, None] > scores[None]) + 0.5 * (scores[:, None] == scores[None])
    pairs = (labels[:, None] & ~labels[None]) * weights[:, None] * weights[None]
    expected = (pairs * above).sum() / pairs.sum() if pairs.any() else 0.0
    area = metrics.auc(labels, scores, weights).result()
    # Without labels of one kind TF's area is 0 as well.
    assert area == pytest.approx(expected, abs=1e-9)
