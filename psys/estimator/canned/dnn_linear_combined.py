"""Wide and deep models: the logits of a linear and of a deep model added, then a head.

Each part has its own optimizer, which changes its own variables only (Cheng et al., 2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psys import nn
from psys.arrays import Array
from psys.errors import ConfigError
from psys.estimator.canned import dnn, linear
from psys.estimator.canned.arguments import (
    Columns,
    OptimizerLike,
    check_features,
    check_optimizer,
    checked_columns,
    classifier_head,
)
from psys.estimator.canned.dnn import Activation, check_network, dnn_logits
from psys.estimator.canned.head import SUM_OVER_BATCH_SIZE, Head
from psys.estimator.canned.linear import check_combiner, default_learning_rate, linear_logits
from psys.estimator.canned.regression_head import RegressionHead
from psys.estimator.estimator import Estimator
from psys.estimator.model_fn import EstimatorSpec
from psys.feature_column import FeatureColumn
from psys.feature_column.numeric import NumericColumn
from psys.optimizers import TrainOp, get, group


def combined_model_fn(
    features: Mapping[str, Any],
    labels: Any,
    mode: str,
    *,
    head: Head,
    linear_feature_columns: Sequence[FeatureColumn] = (),
    linear_optimizer: OptimizerLike = "Ftrl",
    dnn_feature_columns: Sequence[FeatureColumn] = (),
    dnn_optimizer: OptimizerLike = "Adagrad",
    dnn_hidden_units: Sequence[int] = (),
    dnn_activation_fn: Activation = nn.relu,
    dnn_dropout: float | None = None,
    linear_sparse_combiner: str = "sum",
) -> EstimatorSpec:
    """Return the spec of one batch; a part without columns adds nothing."""
    check_features(features)
    parts: list[Array] = []
    if dnn_feature_columns:
        parts.append(
            dnn_logits(
                features,
                mode,
                head.logits_dimension,
                dnn_hidden_units,
                dnn_feature_columns,
                dnn_activation_fn,
                dnn_dropout,
            )
        )
    if linear_feature_columns:
        parts.append(
            linear_logits(
                features, head.logits_dimension, linear_feature_columns, linear_sparse_combiner
            )
        )

    def train_op(loss: Array) -> TrainOp:
        ops: list[TrainOp] = []
        if dnn_feature_columns:
            chosen = get(dnn_optimizer, dnn.LEARNING_RATE)
            ops.append(chosen.minimize(loss, var_list=("dnn/",)))
        if linear_feature_columns:
            chosen = get(linear_optimizer, default_learning_rate(len(linear_feature_columns)))
            ops.append(chosen.minimize(loss, var_list=("linear/",)))
        return group(*ops)

    return head.create_estimator_spec(
        features, mode, sum(parts[1:], parts[0]), labels, train_op_fn=train_op
    )


class DNNLinearCombinedEstimator(Estimator):
    """A wide and deep model with any head.

    By name, ``dnn_optimizer`` has the learning rate 0.05 and ``linear_optimizer``
    min(0.2, 1 / sqrt(number of linear columns)): the rates of TF 1.x, since with the much
    smaller ones of TF 2 (0.001, 0.005) such a model hardly trains.

    Args:
        head: what the labels are.
        model_dir: where checkpoints and summaries are.
        linear_feature_columns: the columns of the linear part: categorical, crossed, dense.
        linear_optimizer: a name, an optimizer, or a function that returns one.
        dnn_feature_columns: the dense columns of the deep part.
        dnn_optimizer: as ``linear_optimizer``.
        dnn_hidden_units: the size of each hidden layer.
        dnn_activation_fn: a differentiable function of an array.
        dnn_dropout: the probability to drop a hidden unit's output in training, or None.
        config: a RunConfig.
        batch_norm: not supported yet.
        linear_sparse_combiner: "sum", "mean" or "sqrtn".
        warm_start_from: a checkpoint, or WarmStartSettings.

    Raises:
        ConfigError: if there are neither linear nor dnn columns, dnn columns without hidden
            units, or an argument cannot be used.
    """

    def __init__(
        self,
        head: Head,
        model_dir: str | None = None,
        linear_feature_columns: Columns | None = None,
        linear_optimizer: OptimizerLike = "Ftrl",
        dnn_feature_columns: Columns | None = None,
        dnn_optimizer: OptimizerLike = "Adagrad",
        dnn_hidden_units: Sequence[int] | None = None,
        dnn_activation_fn: Activation = nn.relu,
        dnn_dropout: float | None = None,
        config: Any = None,
        batch_norm: bool = False,
        linear_sparse_combiner: str = "sum",
        warm_start_from: Any = None,
    ) -> None:
        wide = checked_columns(linear_feature_columns, "linear_feature_columns")
        deep = checked_columns(dnn_feature_columns, "dnn_feature_columns")
        if not wide and not deep:
            raise ConfigError(
                "Either linear_feature_columns or dnn_feature_columns must be defined."
            )
        if deep and not dnn_hidden_units:
            raise ConfigError(
                "dnn_hidden_units must be defined when dnn_feature_columns is specified."
            )
        units = check_network(dnn_hidden_units or (), dnn_dropout, batch_norm, "dnn_")
        check_combiner(linear_sparse_combiner, "linear_sparse_combiner")
        check_optimizer(dnn_optimizer, dnn.LEARNING_RATE)
        check_optimizer(linear_optimizer, linear.LEARNING_RATE)

        def _model_fn(features: Any, labels: Any, mode: str) -> EstimatorSpec:
            return combined_model_fn(
                features,
                labels,
                mode,
                head=head,
                linear_feature_columns=wide,
                linear_optimizer=linear_optimizer,
                dnn_feature_columns=deep,
                dnn_optimizer=dnn_optimizer,
                dnn_hidden_units=units,
                dnn_activation_fn=dnn_activation_fn,
                dnn_dropout=dnn_dropout,
                linear_sparse_combiner=linear_sparse_combiner,
            )

        super().__init__(
            model_fn=_model_fn, model_dir=model_dir, config=config, warm_start_from=warm_start_from
        )


class DNNLinearCombinedClassifier(DNNLinearCombinedEstimator):
    """A wide and deep classifier; see ``DNNLinearCombinedEstimator`` for the other arguments.

    The loss is averaged over the batch, as in TF 2; learning rates are those of TF 1.x: 0.05
    for the deep part, min(0.2, 1 / sqrt(number of linear columns)) for the linear one.

    Args:
        n_classes: how many; two have one logit.
        weight_column: the key of the feature that weighs examples, or a numeric column.
        label_vocabulary: the classes' names, if labels are strings.
        loss_reduction: "sum_over_batch_size" or "sum".
    """

    def __init__(
        self,
        model_dir: str | None = None,
        linear_feature_columns: Columns | None = None,
        linear_optimizer: OptimizerLike = "Ftrl",
        dnn_feature_columns: Columns | None = None,
        dnn_optimizer: OptimizerLike = "Adagrad",
        dnn_hidden_units: Sequence[int] | None = None,
        dnn_activation_fn: Activation = nn.relu,
        dnn_dropout: float | None = None,
        n_classes: int = 2,
        weight_column: str | NumericColumn | None = None,
        label_vocabulary: Sequence[str] | None = None,
        config: Any = None,
        warm_start_from: Any = None,
        loss_reduction: str = SUM_OVER_BATCH_SIZE,
        batch_norm: bool = False,
        linear_sparse_combiner: str = "sum",
    ) -> None:
        super().__init__(
            classifier_head(n_classes, weight_column, label_vocabulary, loss_reduction),
            model_dir=model_dir,
            linear_feature_columns=linear_feature_columns,
            linear_optimizer=linear_optimizer,
            dnn_feature_columns=dnn_feature_columns,
            dnn_optimizer=dnn_optimizer,
            dnn_hidden_units=dnn_hidden_units,
            dnn_activation_fn=dnn_activation_fn,
            dnn_dropout=dnn_dropout,
            config=config,
            batch_norm=batch_norm,
            linear_sparse_combiner=linear_sparse_combiner,
            warm_start_from=warm_start_from,
        )


class DNNLinearCombinedRegressor(DNNLinearCombinedEstimator):
    """A wide and deep model of numbers; see ``DNNLinearCombinedEstimator``, whose rates it has.

    Args:
        label_dimension: how many numbers a label is.
        weight_column: the key of the feature that weighs examples, or a numeric column.
        loss_reduction: "sum_over_batch_size" or "sum".
    """

    def __init__(
        self,
        model_dir: str | None = None,
        linear_feature_columns: Columns | None = None,
        linear_optimizer: OptimizerLike = "Ftrl",
        dnn_feature_columns: Columns | None = None,
        dnn_optimizer: OptimizerLike = "Adagrad",
        dnn_hidden_units: Sequence[int] | None = None,
        dnn_activation_fn: Activation = nn.relu,
        dnn_dropout: float | None = None,
        label_dimension: int = 1,
        weight_column: str | NumericColumn | None = None,
        config: Any = None,
        warm_start_from: Any = None,
        loss_reduction: str = SUM_OVER_BATCH_SIZE,
        batch_norm: bool = False,
        linear_sparse_combiner: str = "sum",
    ) -> None:
        super().__init__(
            RegressionHead(label_dimension, weight_column, loss_reduction),
            model_dir=model_dir,
            linear_feature_columns=linear_feature_columns,
            linear_optimizer=linear_optimizer,
            dnn_feature_columns=dnn_feature_columns,
            dnn_optimizer=dnn_optimizer,
            dnn_hidden_units=dnn_hidden_units,
            dnn_activation_fn=dnn_activation_fn,
            dnn_dropout=dnn_dropout,
            config=config,
            batch_norm=batch_norm,
            linear_sparse_combiner=linear_sparse_combiner,
            warm_start_from=warm_start_from,
        )
