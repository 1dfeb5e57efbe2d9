"""Deep models: feature columns, fully connected layers, a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from psys import layers, nn
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
from psys.estimator.model_fn import EstimatorSpec, ModeKeys
from psys.feature_column import FeatureColumn, input_layer
from psys.feature_column.numeric import NumericColumn
from psys.optimizers import get

LEARNING_RATE = 0.05
"""Of an optimizer given by name, as in TF 1.x."""

Activation = Callable[[Array], Array]


def check_network(
    hidden_units: Sequence[int], dropout: float | None, batch_norm: bool, prefix: str = ""
) -> tuple[int, ...]:
    """Return the hidden units as a tuple.

    Raises:
        ConfigError: if they are not positive integers, ``dropout`` is not in [0, 1), or
            ``batch_norm`` is asked for.
    """
    if not isinstance(hidden_units, Sequence):
        raise ConfigError(
            f"{prefix}hidden_units must be a list such as [64, 32], given {hidden_units!r}."
        )
    units = tuple(hidden_units)
    if not all(isinstance(size, int) and size > 0 for size in units):
        raise ConfigError(f"{prefix}hidden_units must be positive integers, given {units}.")
    if dropout is not None and not 0 <= dropout < 1:
        raise ConfigError(f"{prefix}dropout must be in [0, 1), given {dropout}.")
    if batch_norm:
        raise ConfigError("batch_norm is not supported yet; it must be False.")
    return units


def dnn_logits(
    features: Mapping[str, Any],
    mode: str,
    units: int,
    hidden_units: Sequence[int],
    columns: Sequence[FeatureColumn],
    activation_fn: Activation,
    dropout: float | None,
) -> Array:
    """Return ``[batch, units]``, with the variables ``dnn/...`` of tf.estimator's names."""
    with variable_scope("dnn"):
        with variable_scope("input_from_feature_columns"):
            net = input_layer(features, columns)
        for i, size in enumerate(hidden_units):
            net = layers.dense(net, size, activation_fn, name=f"hiddenlayer_{i}")
            if dropout is not None:
                net = layers.dropout(net, dropout, training=mode == ModeKeys.TRAIN)
        return layers.dense(net, units, name="logits")


def dnn_model_fn(
    features: Mapping[str, Any],
    labels: Any,
    mode: str,
    *,
    head: Head,
    hidden_units: Sequence[int],
    feature_columns: Sequence[FeatureColumn],
    optimizer: OptimizerLike = "Adagrad",
    activation_fn: Activation = nn.relu,
    dropout: float | None = None,
) -> EstimatorSpec:
    """Return the spec of one batch of a deep model."""
    check_features(features)
    logits = dnn_logits(
        features, mode, head.logits_dimension, hidden_units, feature_columns, activation_fn, dropout
    )
    return head.create_estimator_spec(
        features,
        mode,
        logits,
        labels,
        train_op_fn=lambda loss: get(optimizer, LEARNING_RATE).minimize(loss),
    )


class DNNEstimator(Estimator):
    """A deep model with any head.

    Args:
        head: what the labels are.
        hidden_units: the size of each hidden layer, e.g. ``[100, 50]``.
        feature_columns: dense columns.
        model_dir: where checkpoints and summaries are.
        optimizer: "Adagrad", "Adam", "Ftrl", "RMSProp" or "SGD" with the learning rate 0.05, an
            optimizer, or a function that returns one.
        activation_fn: a differentiable function of an array.
        dropout: the probability to drop a hidden unit's output in training, or None.
        config: a RunConfig.
        warm_start_from: a checkpoint, or WarmStartSettings.
        batch_norm: not supported yet.

    Raises:
        ConfigError: if an argument cannot be used.
    """

    def __init__(
        self,
        head: Head,
        hidden_units: Sequence[int],
        feature_columns: Columns,
        model_dir: str | None = None,
        optimizer: OptimizerLike = "Adagrad",
        activation_fn: Activation = nn.relu,
        dropout: float | None = None,
        config: Any = None,
        warm_start_from: Any = None,
        batch_norm: bool = False,
    ) -> None:
        units = check_network(hidden_units, dropout, batch_norm)
        columns = required_columns(feature_columns, "feature_columns")
        check_optimizer(optimizer, LEARNING_RATE)

        def _model_fn(features: Any, labels: Any, mode: str) -> EstimatorSpec:
            return dnn_model_fn(
                features,
                labels,
                mode,
                head=head,
                hidden_units=units,
                feature_columns=columns,
                optimizer=optimizer,
                activation_fn=activation_fn,
                dropout=dropout,
            )

        super().__init__(
            model_fn=_model_fn, model_dir=model_dir, config=config, warm_start_from=warm_start_from
        )


class DNNClassifier(DNNEstimator):
    """A deep classifier; see ``DNNEstimator`` for arguments not explained here.

    The loss is averaged over the batch, as in TF 2; learning rates are those of TF 1.x.

    Args:
        n_classes: how many; two have one logit.
        weight_column: the key of the feature that weighs examples, or a numeric column.
        label_vocabulary: the classes' names, if labels are strings.
        loss_reduction: "sum_over_batch_size" or "sum".
    """

    def __init__(
        self,
        hidden_units: Sequence[int],
        feature_columns: Columns,
        model_dir: str | None = None,
        n_classes: int = 2,
        weight_column: str | NumericColumn | None = None,
        label_vocabulary: Sequence[str] | None = None,
        optimizer: OptimizerLike = "Adagrad",
        activation_fn: Activation = nn.relu,
        dropout: float | None = None,
        config: Any = None,
        warm_start_from: Any = None,
        loss_reduction: str = SUM_OVER_BATCH_SIZE,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(
            classifier_head(n_classes, weight_column, label_vocabulary, loss_reduction),
            hidden_units,
            feature_columns,
            model_dir=model_dir,
            optimizer=optimizer,
            activation_fn=activation_fn,
            dropout=dropout,
            config=config,
            warm_start_from=warm_start_from,
            batch_norm=batch_norm,
        )


class DNNRegressor(DNNEstimator):
    """A deep model of numbers; see ``DNNEstimator`` and ``DNNClassifier``.

    Args:
        label_dimension: how many numbers a label is.
    """

    def __init__(
        self,
        hidden_units: Sequence[int],
        feature_columns: Columns,
        model_dir: str | None = None,
        label_dimension: int = 1,
        weight_column: str | NumericColumn | None = None,
        optimizer: OptimizerLike = "Adagrad",
        activation_fn: Activation = nn.relu,
        dropout: float | None = None,
        config: Any = None,
        warm_start_from: Any = None,
        loss_reduction: str = SUM_OVER_BATCH_SIZE,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(
            RegressionHead(label_dimension, weight_column, loss_reduction),
            hidden_units,
            feature_columns,
            model_dir=model_dir,
            optimizer=optimizer,
            activation_fn=activation_fn,
            dropout=dropout,
            config=config,
            warm_start_from=warm_start_from,
            batch_norm=batch_norm,
        )
