"""The head of more than two classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from psys import metrics
from psys.arrays import Array
from psys.compute import primitives
from psys.errors import ConfigError, ModelError
from psys.estimator.canned.head import SUM_OVER_BATCH_SIZE, Head, check_label_range, labels_like
from psys.estimator.canned.label_vocabulary import LabelVocabulary
from psys.feature_column.numeric import NumericColumn


class MultiClassHead(Head):
    """Softmax cross entropy of ``n_classes`` logits; labels are class numbers or words.

    Args:
        n_classes: how many, more than two.
        weight_column: the key of the feature that weighs examples, or a numeric column.
        label_vocabulary: ``n_classes`` words, if labels are strings.
        loss_reduction: "sum_over_batch_size" or "sum".
        name: the head's name.

    Raises:
        ConfigError: if an argument is none of these.
    """

    def __init__(
        self,
        n_classes: int,
        weight_column: str | NumericColumn | None = None,
        label_vocabulary: Sequence[str] | None = None,
        loss_reduction: str = SUM_OVER_BATCH_SIZE,
        name: str | None = None,
    ) -> None:
        if n_classes is None:
            raise ConfigError("n_classes cannot be None.")
        if n_classes <= 2:
            raise ConfigError(f"n_classes must be > 2, given {n_classes}.")
        super().__init__(n_classes, weight_column, loss_reduction, name)
        self._vocabulary = LabelVocabulary(label_vocabulary, n_classes)

    def predictions(self, logits: Array) -> dict[str, Array]:
        """Return scores, class numbers and class names; of equal logits the first class."""
        class_ids = logits.argmax(axis=-1)[..., None].astype(np.int64)
        return {
            "logits": logits,
            "probabilities": primitives.softmax(logits),
            **self._vocabulary.predictions(class_ids),
        }

    def _processed_labels(self, labels: Array, logits_shape: tuple[int, ...]) -> Array:
        labels = self._vocabulary.ids(labels)
        if labels.dtype.kind not in "iu":
            raise ModelError(f"Labels dtype should be integer. Instead got {labels.dtype}.")
        labels = labels_like(labels, (*logits_shape[:-1], 1)).astype(np.int64, copy=False)
        n_classes = self.logits_dimension
        check_label_range(labels, n_classes - 1, f"{n_classes} - 1")
        return labels

    def _losses(self, labels: Array, logits: Array) -> Array:
        losses = primitives.sparse_softmax_cross_entropy(labels[..., 0], logits)
        return losses.reshape(labels.shape)

    def _metrics(
        self, labels: Array, predictions: Mapping[str, Array], weights: Array | None
    ) -> dict[str, metrics.Metric]:
        return {"accuracy": metrics.accuracy(labels, predictions["class_ids"], weights)}

    def _weights(
        self, features: Mapping[str, object], logits_shape: tuple[int, ...]
    ) -> Array | None:
        # An example has one loss here, not one a logit.
        return super()._weights(features, (*logits_shape[:-1], 1))
