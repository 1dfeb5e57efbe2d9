"""The area under the ROC or precision-recall curve, by counting at fixed thresholds.

As in tf.estimator, thresholds are ``-1e-7, 1/(n-1), 2/(n-1), ..., 1 + 1e-7`` and an example is
predicted positive where its prediction is greater. The counts of two batches add up, so the
area over many batches is that of all their examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from psys.arrays import Array
from psys.errors import ModelError
from psys.metrics.metric import Metric, paired, ratio, weights_for

_EPSILON = 1e-6
"""What the trapezoidal method of TF 1.x adds so that nothing is divided by zero."""


@dataclass(frozen=True, eq=False)
class Area(Metric):
    """The area under a curve; totals are ``[2, thresholds]``: false and true positives.

    Attributes:
        curve: "ROC" or "PR".
        summation_method: "interpolation" or "trapezoidal", see ``auc``.
    """

    curve: str = "ROC"
    summation_method: str = "interpolation"

    def result(self) -> float:
        """Return the area."""
        if self.curve == "PR" and self.summation_method == "interpolation":
            return self._interpolated_precision_recall()
        epsilon = _EPSILON if self.summation_method == "trapezoidal" else 0.0
        fp, tp = self.totals
        # Every example is above the first threshold.
        rec = ratio(tp + epsilon, tp[0] + epsilon)
        if self.curve == "PR":
            prec = ratio(tp + epsilon, tp + fp + epsilon)
            return _trapezoids(rec, prec)
        return _trapezoids(ratio(fp, fp[0] + epsilon), rec)

    def _interpolated_precision_recall(self) -> float:
        """Return the area with true positives linear between thresholds (Davis, Goadrich 2006).

        Precision is not linear in recall there: between two thresholds it is
        ``slope * tp / (tp - intercept)``, whose integral is the logarithm below.
        """
        fp, tp = self.totals
        predicted = tp + fp
        gained = tp[:-1] - tp[1:]
        slope = ratio(gained, np.maximum(predicted[:-1] - predicted[1:], 0))
        intercept = tp[1:] - slope * predicted[1:]
        both = (predicted[:-1] > 0) & (predicted[1:] > 0)
        growth = np.where(both, ratio(predicted[:-1], predicted[1:]), 1.0)
        return float(ratio(slope * (gained + intercept * np.log(growth)), tp[0]).sum())


def auc(
    labels: Any,
    predictions: Any,
    weights: Any = None,
    num_thresholds: int = 200,
    curve: str = "ROC",
    summation_method: str = "interpolation",
) -> Metric:
    """Return the area under the curve of one batch.

    Args:
        labels: zero or not zero.
        predictions: in [0, 1], of the shape of ``labels``.
        weights: of each example; None for ones.
        num_thresholds: how finely predictions are told apart.
        curve: "ROC" or "PR" (precision and recall).
        summation_method: "interpolation" is what tf.estimator reports in TF 2;
            "trapezoidal" is that of TF 1.x.

    Raises:
        ModelError: if an argument is none of these, or a prediction is outside [0, 1].
    """
    if curve not in ("ROC", "PR"):
        raise ModelError(f"auc: curve must be 'ROC' or 'PR', got {curve!r}.")
    if summation_method not in ("interpolation", "trapezoidal"):
        raise ModelError(
            "auc: summation_method must be 'interpolation' or 'trapezoidal', got "
            f"{summation_method!r}."
        )
    if num_thresholds < 2:
        raise ModelError(f"auc: num_thresholds must be at least 2, got {num_thresholds}.")
    expected, given = paired(labels, predictions)
    given = given.astype(np.float32, copy=False)
    if given.size and not (given.min() >= 0 and given.max() <= 1):
        raise ModelError(f"auc: predictions must be in [0, 1], got {given.min()} to {given.max()}.")
    return Area(
        _positives_above(expected, given, weights_for(expected, weights), num_thresholds),
        curve,
        summation_method,
    )


@lru_cache(maxsize=8)
def _thresholds(count: int) -> Array:
    inner = np.arange(1, count - 1) / (count - 1)
    return np.array([-1e-7, *inner, 1 + 1e-7], np.float32)


def _positives_above(labels: Array, predictions: Array, weights: Array, count: int) -> Array:
    """Return ``[2, count]``: the weight of labels 0 and 1 predicted above each threshold."""
    thresholds = _thresholds(count)
    # How many thresholds a prediction is above: those before its place.
    above = np.searchsorted(thresholds, predictions.reshape(-1), side="left")
    positive = labels.reshape(-1).astype(bool)
    flat = weights.reshape(-1)
    counts = np.empty((2, count))
    for row, chosen in enumerate((~positive, positive)):
        exactly = np.bincount(above[chosen], flat[chosen], count + 1)
        counts[row] = exactly[::-1].cumsum()[::-1][1:]
    return counts


def _trapezoids(x: Array, y: Array) -> float:
    """Return the area under y over x, where x falls."""
    return float(((x[:-1] - x[1:]) * (y[:-1] + y[1:])).sum() / 2)
