"""The head of numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from psys import metrics
from psys.arrays import Array
from psys.errors import ConfigError, ModelError
from psys.estimator.canned.head import SUM_OVER_BATCH_SIZE, Head, labels_like
from psys.feature_column.numeric import NumericColumn


class RegressionHead(Head):
    """Squared error of ``label_dimension`` logits.

    Args:
        label_dimension: how many numbers a label is.
        weight_column: the key of the feature that weighs examples, or a numeric column.
        loss_reduction: "sum_over_batch_size" or "sum".
        name: the head's name.

    Raises:
        ConfigError: if an argument is none of these.
    """

    def __init__(
        self,
        label_dimension: int = 1,
        weight_column: str | NumericColumn | None = None,
        loss_reduction: str = SUM_OVER_BATCH_SIZE,
        name: str | None = None,
    ) -> None:
        if label_dimension < 1:
            raise ConfigError(f"label_dimension must be >= 1, given {label_dimension}.")
        super().__init__(label_dimension, weight_column, loss_reduction, name)

    def predictions(self, logits: Array) -> dict[str, Array]:
        """Return the logits: they are the predictions."""
        return {"predictions": logits}

    def _processed_labels(self, labels: Array, logits_shape: tuple[int, ...]) -> Array:
        if labels.dtype.kind not in "iufb":
            raise ModelError(f"Labels dtype should be a number. Instead got {labels.dtype}.")
        return labels_like(labels, logits_shape).astype(np.float32, copy=False)

    def _losses(self, labels: Array, logits: Array) -> Array:
        difference = logits - labels
        squared: Array = difference * difference
        return squared

    def _metrics(
        self, labels: Array, predictions: Mapping[str, Array], weights: Array | None
    ) -> dict[str, metrics.Metric]:
        return {
            "prediction/mean": metrics.mean(predictions["predictions"], weights),
            "label/mean": metrics.mean(labels, weights),
        }
