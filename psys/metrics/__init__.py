"""Metrics under the names that ``tf.metrics`` gives them, one batch at a time.

Each function returns a ``Metric`` of one batch; the evaluation merges those of all batches.
"""

from psys.metrics.area import auc
from psys.metrics.counts import (
    accuracy_baseline,
    false_negatives,
    false_positives,
    precision,
    recall,
    true_negatives,
    true_positives,
)
from psys.metrics.means import (
    accuracy,
    mean,
    mean_absolute_error,
    mean_squared_error,
    root_mean_squared_error,
)
from psys.metrics.metric import Metric
from psys.names import missing_in as _missing_in

__getattr__ = _missing_in(__name__)

__all__ = [
    "Metric",
    "accuracy",
    "accuracy_baseline",
    "auc",
    "false_negatives",
    "false_positives",
    "mean",
    "mean_absolute_error",
    "mean_squared_error",
    "precision",
    "recall",
    "root_mean_squared_error",
    "true_negatives",
    "true_positives",
]
