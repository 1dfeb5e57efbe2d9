"""Metrics of the confusion of two classes; a label or prediction that is not zero is positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from psys.metrics.means import Mean, mean
from psys.metrics.metric import Metric, paired, ratio, weights_for


@dataclass(frozen=True, eq=False)
class Count(Metric):
    """A weighted number of examples."""

    def result(self) -> float:
        """Return the number."""
        return float(self.totals[0])


@dataclass(frozen=True, eq=False)
class Share(Metric):
    """The share of what was right: totals are the weights of right and of wrong examples."""

    def result(self) -> float:
        """Return right / (right + wrong)."""
        return float(ratio(self.totals[0], self.totals.sum()))


@dataclass(frozen=True, eq=False)
class AccuracyBaseline(Mean):
    """The accuracy of always predicting the more frequent of two labels."""

    def result(self) -> float:
        """Return max(mean label, 1 - mean label)."""
        positive = super().result()
        return max(positive, 1 - positive)


def _weight_where(labels: Any, predictions: Any, weights: Any, *cells: tuple[bool, bool]) -> Any:
    """Return the weight of the examples in each cell ``(label, prediction)``."""
    expected, given = paired(labels, predictions)
    every = weights_for(expected, weights)
    expected, given = expected.astype(bool), given.astype(bool)
    return np.array([every[(expected == z) & (given == p)].sum() for z, p in cells])


def precision(labels: Any, predictions: Any, weights: Any = None) -> Metric:
    """Return true positives / (true + false positives)."""
    return Share(_weight_where(labels, predictions, weights, (True, True), (False, True)))


def recall(labels: Any, predictions: Any, weights: Any = None) -> Metric:
    """Return true positives / (true positives + false negatives)."""
    return Share(_weight_where(labels, predictions, weights, (True, True), (True, False)))


def true_positives(labels: Any, predictions: Any, weights: Any = None) -> Metric:
    """Return the weight of positive examples that were predicted so."""
    return Count(_weight_where(labels, predictions, weights, (True, True)))


def false_positives(labels: Any, predictions: Any, weights: Any = None) -> Metric:
    """Return the weight of negative examples that were predicted positive."""
    return Count(_weight_where(labels, predictions, weights, (False, True)))


def true_negatives(labels: Any, predictions: Any, weights: Any = None) -> Metric:
    """Return the weight of negative examples that were predicted so."""
    return Count(_weight_where(labels, predictions, weights, (False, False)))


def false_negatives(labels: Any, predictions: Any, weights: Any = None) -> Metric:
    """Return the weight of positive examples that were predicted negative."""
    return Count(_weight_where(labels, predictions, weights, (True, False)))


def accuracy_baseline(labels: Any, weights: Any = None) -> Metric:
    """Return the accuracy of the best constant prediction of labels in [0, 1]."""
    return AccuracyBaseline(mean(labels, weights).totals)
