"""Weighted means over examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from psys.arrays import Array
from psys.metrics.metric import Metric, paired, plain, ratio, weights_for


@dataclass(frozen=True, eq=False)
class Mean(Metric):
    """``Σ w v / Σ w``; totals are the two sums."""

    def result(self) -> float:
        """Return the mean."""
        return float(ratio(self.totals[0], self.totals[1]))


@dataclass(frozen=True, eq=False)
class RootMean(Mean):
    """The square root of a mean."""

    def result(self) -> float:
        """Return the root of the mean."""
        return float(np.sqrt(super().result()))


def _sums(values: Array, weights: Any) -> Array:
    every = weights_for(values, weights)
    return np.array([(values * every).sum(), every.sum()])


def mean(values: Any, weights: Any = None) -> Metric:
    """Return the weighted mean of ``values``."""
    return Mean(_sums(plain(values), weights))


def accuracy(labels: Any, predictions: Any, weights: Any = None) -> Metric:
    """Return how often predictions equal labels."""
    expected, given = paired(labels, predictions)
    return Mean(_sums(np.asarray(expected == given), weights))


def mean_squared_error(labels: Any, predictions: Any, weights: Any = None) -> Metric:
    """Return the mean of squared differences."""
    expected, given = paired(labels, predictions)
    return Mean(_sums(np.square(given - expected, dtype=np.float64), weights))


def root_mean_squared_error(labels: Any, predictions: Any, weights: Any = None) -> Metric:
    """Return the square root of the mean of squared differences."""
    expected, given = paired(labels, predictions)
    return RootMean(_sums(np.square(given - expected, dtype=np.float64), weights))


def mean_absolute_error(labels: Any, predictions: Any, weights: Any = None) -> Metric:
    """Return the mean of absolute differences."""
    expected, given = paired(labels, predictions)
    return Mean(_sums(np.abs(given - expected), weights))
