"""The head of two classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from psys import metrics
from psys.arrays import Array
from psys.compute import primitives
from psys.errors import ConfigError
from psys.estimator.canned.head import SUM_OVER_BATCH_SIZE, Head, check_label_range, labels_like
from psys.estimator.canned.label_vocabulary import LabelVocabulary
from psys.feature_column.numeric import NumericColumn


class BinaryClassHead(Head):
    """Sigmoid cross entropy of one logit; labels are 0 or 1, or a probability in between.

    Args:
        weight_column: the key of the feature that weighs examples, or a numeric column.
        thresholds: probabilities in (0, 1) at which accuracy, precision and recall are
            reported besides those at 0.5.
        label_vocabulary: two words, if labels are strings.
        loss_reduction: "sum_over_batch_size" or "sum".
        name: the head's name.

    Raises:
        ConfigError: if an argument is none of these.
    """

    def __init__(
        self,
        weight_column: str | NumericColumn | None = None,
        thresholds: Sequence[float] | None = None,
        label_vocabulary: Sequence[str] | None = None,
        loss_reduction: str = SUM_OVER_BATCH_SIZE,
        name: str | None = None,
    ) -> None:
        super().__init__(1, weight_column, loss_reduction, name)
        self._thresholds = tuple(thresholds or ())
        if not all(0 < threshold < 1 for threshold in self._thresholds):
            raise ConfigError(f"thresholds not in (0, 1): {self._thresholds}.")
        self._vocabulary = LabelVocabulary(label_vocabulary, 2)

    def predictions(self, logits: Array) -> dict[str, Array]:
        """Return scores, class numbers and class names; a logit of 0 is class 0."""
        logistic = primitives.sigmoid(logits)
        return {
            "logits": logits,
            "logistic": logistic,
            "probabilities": np.concatenate([1 - logistic, logistic], axis=-1),
            **self._vocabulary.predictions((logits > 0).astype(np.int64)),
        }

    def _processed_labels(self, labels: Array, logits_shape: tuple[int, ...]) -> Array:
        labels = labels_like(self._vocabulary.ids(labels), logits_shape)
        labels = labels.astype(np.float32, copy=False)
        check_label_range(labels, 1, "n_classes - 1")
        return labels

    def _losses(self, labels: Array, logits: Array) -> Array:
        return primitives.sigmoid_cross_entropy(labels, logits)

    def _metrics(
        self, labels: Array, predictions: Mapping[str, Array], weights: Array | None
    ) -> dict[str, metrics.Metric]:
        logistic, class_ids = predictions["logistic"], predictions["class_ids"]
        found = {
            "accuracy": metrics.accuracy(labels, class_ids, weights),
            "precision": metrics.precision(labels, class_ids, weights),
            "recall": metrics.recall(labels, class_ids, weights),
            "prediction/mean": metrics.mean(logistic, weights),
            "label/mean": metrics.mean(labels, weights),
            "accuracy_baseline": metrics.accuracy_baseline(labels, weights),
            "auc": metrics.auc(labels, logistic, weights),
            "auc_precision_recall": metrics.auc(labels, logistic, weights, curve="PR"),
        }
        for threshold in self._thresholds:
            above = logistic > threshold
            suffix = f"positive_threshold_{threshold:g}"
            found[f"accuracy/{suffix}"] = metrics.accuracy(labels, above, weights)
            found[f"precision/{suffix}"] = metrics.precision(labels, above, weights)
            found[f"recall/{suffix}"] = metrics.recall(labels, above, weights)
        return found
