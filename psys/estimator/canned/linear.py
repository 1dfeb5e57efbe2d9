"""Linear models: one weight for each category or number, a bias, a head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from psys.arrays import Array
from psys.compute.variables import variable_scope
from psys.errors import ConfigError
from psys.estimator.canned.arguments import (
    Columns,
    OptimizerLike,
    check_features,
    check_optimizer,
    classifier_head,
    required_columns,
)
from psys.estimator.canned.head import SUM_OVER_BATCH_SIZE, Head
from psys.estimator.canned.regression_head import RegressionHead
from psys.estimator.estimator import Estimator
from psys.estimator.model_fn import EstimatorSpec
from psys.feature_column import FeatureColumn, linear_model
from psys.feature_column.numeric import NumericColumn
from psys.optimizers import FtrlOptimizer, get

LEARNING_RATE = 0.2
"""Of an optimizer given by name."""


def default_learning_rate(num_columns: int) -> float:
    """Return min(0.2, 1 / sqrt(number of columns)), the rate where no optimizer is named."""
    return min(LEARNING_RATE, 1 / math.sqrt(max(num_columns, 1)))


def check_combiner(sparse_combiner: str, argument: str = "sparse_combiner") -> None:
    """Raise a ConfigError if the combiner is unknown."""
    if sparse_combiner not in ("sum", "mean", "sqrtn"):
        raise ConfigError(
            f"{argument} must be 'sum', 'mean' or 'sqrtn', given {sparse_combiner!r}."
        )


def linear_logits(
    features: Mapping[str, Any],
    units: int,
    columns: Sequence[FeatureColumn],
    sparse_combiner: str,
) -> Array:
    """Return ``[batch, units]``, with the variables ``linear/linear_model/...``."""
    with variable_scope("linear"):
        logits: Array = linear_model(features, columns, units, sparse_combiner)
    return logits


def linear_model_fn(
    features: Mapping[str, Any],
    labels: Any,
    mode: str,
    *,
    head: Head,
    feature_columns: Sequence[FeatureColumn],
    optimizer: OptimizerLike = "Ftrl",
    sparse_combiner: str = "sum",
) -> EstimatorSpec:
    """Return the spec of one batch of a linear model."""
    check_features(features)
    logits = linear_logits(features, head.logits_dimension, feature_columns, sparse_combiner)
    return head.create_estimator_spec(
        features,
        mode,
        logits,
        labels,
        train_op_fn=lambda loss: get(optimizer, LEARNING_RATE).minimize(loss),
    )


class LinearEstimator(Estimator):
    """A linear model with any head. All weights start at zero.

    Args:
        head: what the labels are.
        feature_columns: categorical and dense columns.
        model_dir: where checkpoints and summaries are.
        optimizer: "Ftrl", "Adagrad", "Adam", "RMSProp" or "SGD" with the learning rate 0.2, an
            optimizer, or a function that returns one. None is Ftrl with the learning rate
            min(0.2, 1 / sqrt(number of columns)).
        config: a RunConfig.
        sparse_combiner: how the weights of an example's categories become one: "sum", "mean"
            or "sqrtn".
        warm_start_from: a checkpoint, or WarmStartSettings.

    Raises:
        ConfigError: if an argument cannot be used.
    """

    def __init__(
        self,
        head: Head,
        feature_columns: Columns,
        model_dir: str | None = None,
        optimizer: OptimizerLike | None = "Ftrl",
        config: Any = None,
        sparse_combiner: str = "sum",
        warm_start_from: Any = None,
    ) -> None:
        columns = required_columns(feature_columns, "feature_columns")
        check_combiner(sparse_combiner)
        if optimizer is None:
            optimizer = FtrlOptimizer(default_learning_rate(len(columns)))
        chosen: OptimizerLike = optimizer
        check_optimizer(chosen, LEARNING_RATE)

        def _model_fn(features: Any, labels: Any, mode: str) -> EstimatorSpec:
            return linear_model_fn(
                features,
                labels,
                mode,
                head=head,
                feature_columns=columns,
                optimizer=chosen,
                sparse_combiner=sparse_combiner,
            )

        super().__init__(
            model_fn=_model_fn, model_dir=model_dir, config=config, warm_start_from=warm_start_from
        )


class LinearClassifier(LinearEstimator):
    """A linear classifier; see ``LinearEstimator`` for arguments not explained here.

    The loss is averaged over the batch, as in TF 2.

    Args:
        n_classes: how many; two have one logit.
        weight_column: the key of the feature that weighs examples, or a numeric column.
        label_vocabulary: the classes' names, if labels are strings.
        loss_reduction: "sum_over_batch_size" or "sum".
    """

    def __init__(
        self,
        feature_columns: Columns,
        model_dir: str | None = None,
        n_classes: int = 2,
        weight_column: str | NumericColumn | None = None,
        label_vocabulary: Sequence[str] | None = None,
        optimizer: OptimizerLike | None = "Ftrl",
        config: Any = None,
        warm_start_from: Any = None,
        loss_reduction: str = SUM_OVER_BATCH_SIZE,
        sparse_combiner: str = "sum",
    ) -> None:
        super().__init__(
            classifier_head(n_classes, weight_column, label_vocabulary, loss_reduction),
            feature_columns,
            model_dir=model_dir,
            optimizer=optimizer,
            config=config,
            sparse_combiner=sparse_combiner,
            warm_start_from=warm_start_from,
        )


class LinearRegressor(LinearEstimator):
    """A linear model of numbers; see ``LinearEstimator`` and ``LinearClassifier``.

    Args:
        label_dimension: how many numbers a label is.
    """

    def __init__(
        self,
        feature_columns: Columns,
        model_dir: str | None = None,
        label_dimension: int = 1,
        weight_column: str | NumericColumn | None = None,
        optimizer: OptimizerLike | None = "Ftrl",
        config: Any = None,
        warm_start_from: Any = None,
        loss_reduction: str = SUM_OVER_BATCH_SIZE,
        sparse_combiner: str = "sum",
    ) -> None:
        super().__init__(
            RegressionHead(label_dimension, weight_column, loss_reduction),
            feature_columns,
            model_dir=model_dir,
            optimizer=optimizer,
            config=config,
            sparse_combiner=sparse_combiner,
            warm_start_from=warm_start_from,
        )
