"""What a head is: everything about a model that depends on the kind of its labels.

A head turns logits and labels into a loss, predictions and metrics. It holds no variable, and
it does not know where the logits come from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from psys import metrics
from psys.arrays import Array
from psys.compute import primitives
from psys.compute.variables import untraced
from psys.errors import ConfigError, ModelError
from psys.estimator.model_fn import EstimatorSpec, ModeKeys
from psys.feature_column.numeric import NumericColumn
from psys.optimizers import TrainOp

SUM = "sum"
SUM_OVER_BATCH_SIZE = "sum_over_batch_size"
_REDUCTIONS = {
    SUM: SUM,
    SUM_OVER_BATCH_SIZE: SUM_OVER_BATCH_SIZE,
    # The names of tf.losses.Reduction.
    "weighted_sum": SUM,
    "weighted_sum_over_batch_size": SUM_OVER_BATCH_SIZE,
}


class Head(ABC):
    """Makes the EstimatorSpec of a batch from its logits.

    Attributes:
        logits_dimension: the size of the last axis of the logits.
        weight_column: the feature that weighs examples: its key, a numeric column, or None.
        loss_reduction: "sum_over_batch_size" (the weighted sum over the number of elements,
            not over the sum of weights), or "sum".
        name: the head's name, or None.
    """

    def __init__(
        self,
        logits_dimension: int,
        weight_column: str | NumericColumn | None,
        loss_reduction: str,
        name: str | None,
    ) -> None:
        if loss_reduction not in _REDUCTIONS:
            raise ConfigError(
                f"loss_reduction must be one of {sorted(_REDUCTIONS)}, given {loss_reduction!r}."
            )
        if not isinstance(weight_column, (str, NumericColumn, type(None))):
            raise ConfigError(
                f"weight_column must be a feature's key or a numeric column, given "
                f"{weight_column!r}."
            )
        self.logits_dimension = logits_dimension
        self.weight_column = weight_column
        self.loss_reduction = _REDUCTIONS[loss_reduction]
        self.name = name

    def create_estimator_spec(
        self,
        features: Mapping[str, Any],
        mode: str,
        logits: Array,
        labels: Any = None,
        train_op_fn: Callable[[Array], TrainOp] | None = None,
        regularization_losses: Sequence[Array] | None = None,
    ) -> EstimatorSpec:
        """Return the spec of one batch.

        Args:
            features: the batch's features; only ``weight_column`` is read.
            mode: a ``ModeKeys``. To train, predictions are not made: nothing reads them.
            logits: ``[batch, ..., logits_dimension]``.
            labels: of that shape, or without the last axis where that is 1.
            train_op_fn: the loss -> the train op; required to train.
            regularization_losses: scalars that are added to the loss.

        Raises:
            ModelError: if logits, labels or weights do not fit each other or this head.
        """
        shape = untraced(logits).shape
        if len(shape) < 2 or shape[-1] != self.logits_dimension:
            raise ModelError(
                f"logits shape must be [batch, ..., {self.logits_dimension}], given {shape}."
            )
        if mode == ModeKeys.PREDICT:
            return EstimatorSpec(mode, predictions=self.predictions(logits))
        if labels is None:
            raise ModelError(
                "You must provide a labels Tensor. Given: None. Check that input_fn returns "
                "(features, labels)."
            )
        labels = self._processed_labels(np.asarray(untraced(labels)), shape)
        losses = self._losses(labels, logits)
        weights = self._weights(features, shape)
        loss = self._reduced(losses, weights)
        if regularization_losses:
            penalty = primitives.add_n(list(regularization_losses))
            loss = loss + penalty
        if mode == ModeKeys.TRAIN:
            if train_op_fn is None:
                raise ModelError("train_op_fn cannot be None in mode 'train'.")
            return EstimatorSpec(mode, loss=loss, train_op=train_op_fn(loss))
        predictions = self.predictions(logits)
        found = {
            "average_loss": metrics.mean(losses, weights),
            **self._metrics(labels, predictions, weights),
        }
        if regularization_losses:
            found["regularization_loss"] = metrics.mean(penalty)
        return EstimatorSpec(mode, predictions, loss, eval_metric_ops=found)

    @abstractmethod
    def predictions(self, logits: Array) -> dict[str, Array]:
        """Return the predictions of a batch by name, each ``[batch, ...]``."""

    @abstractmethod
    def _processed_labels(self, labels: Array, logits_shape: tuple[int, ...]) -> Array:
        """Return checked labels, as ``_losses`` and ``_metrics`` want them."""

    @abstractmethod
    def _losses(self, labels: Array, logits: Array) -> Array:
        """Return the loss of each element, ``[batch, ..., 1 or label dimension]``."""

    @abstractmethod
    def _metrics(
        self, labels: Array, predictions: Mapping[str, Array], weights: Array | None
    ) -> dict[str, metrics.Metric]:
        """Return the metrics of this kind of label, besides ``average_loss``."""

    def _weights(self, features: Mapping[str, Any], logits_shape: tuple[int, ...]) -> Array | None:
        """Return the weights with as many axes as the logits, or None for ones."""
        if self.weight_column is None:
            return None
        if isinstance(self.weight_column, str):
            if self.weight_column not in features:
                raise ModelError(
                    f"weight_column {self.weight_column!r} is not among the features: "
                    f"{sorted(features)}."
                )
            weights = np.asarray(features[self.weight_column])
        else:
            weights = self.weight_column.dense(features)
        if weights.dtype.kind not in "iufb":
            raise ModelError(f"weights must be numbers, given {weights.dtype}.")
        batch = logits_shape[:-1]
        if weights.shape == batch:
            weights = weights[..., None]
        if weights.shape not in ((*batch, 1), logits_shape):
            raise ModelError(
                f"weights shape must be {batch}, {(*batch, 1)} or {logits_shape}, given "
                f"{weights.shape}."
            )
        return weights.astype(np.float32, copy=False)

    def _reduced(self, losses: Array, weights: Array | None) -> Array:
        divisor = 1.0 if self.loss_reduction == SUM else float(untraced(losses).size)
        return primitives.weighted_sum(losses, weights, max(divisor, 1.0))


def labels_like(labels: Array, expected: tuple[int, ...]) -> Array:
    """Return the labels in the shape ``expected``; a missing last axis of 1 is put there.

    Raises:
        ModelError: if they have another shape.
    """
    if labels.ndim == len(expected) - 1 and expected[-1] == 1:
        labels = labels[..., None]
    if labels.shape != expected:
        raise ModelError(f"labels shape must be {expected}, given {labels.shape}.")
    return labels


def check_label_range(labels: Array, highest: int, called: str) -> None:
    """Raise a ModelError unless all labels are between 0 and ``highest``, ``called`` so."""
    if labels.size == 0:
        return
    # Asked this way round, a label that is not a number fails too.
    if not labels.min() >= 0:
        raise ModelError(f"Labels must be >= 0, given {labels.min()}.")
    if not labels.max() <= highest:
        raise ModelError(f"Labels must be <= {called}, given {labels.max()}.")
