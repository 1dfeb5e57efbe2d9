"""What the constructors and model functions of the canned estimators check and share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from psys.errors import ConfigError, ModelError
from psys.estimator.canned.binary_class_head import BinaryClassHead
from psys.estimator.canned.head import Head
from psys.estimator.canned.multi_class_head import MultiClassHead
from psys.feature_column import FeatureColumn
from psys.feature_column.numeric import NumericColumn
from psys.optimizers import Optimizer, get

OptimizerLike = str | Optimizer | Callable[[], Optimizer]
"""An optimizer as a canned estimator takes it: a name, an instance, or what returns one."""

Columns = FeatureColumn | Iterable[FeatureColumn]


def classifier_head(
    n_classes: int,
    weight_column: str | NumericColumn | None,
    label_vocabulary: Sequence[str] | None,
    loss_reduction: str,
) -> Head:
    """Return the head of ``n_classes`` classes.

    Raises:
        ConfigError: if there are fewer than two.
    """
    if not isinstance(n_classes, int) or n_classes < 2:
        raise ConfigError(f"n_classes must be an integer of 2 or more, given {n_classes!r}.")
    if n_classes == 2:
        return BinaryClassHead(
            weight_column, label_vocabulary=label_vocabulary, loss_reduction=loss_reduction
        )
    return MultiClassHead(n_classes, weight_column, label_vocabulary, loss_reduction)


def checked_columns(columns: Columns | None, argument: str) -> tuple[FeatureColumn, ...]:
    """Return the columns as a tuple, which a model_fn can go through on every step.

    Raises:
        ConfigError: if there is a dictionary of them, or something else than a column.
    """
    if columns is None:
        return ()
    if isinstance(columns, FeatureColumn):
        return (columns,)
    if isinstance(columns, Mapping):
        raise ConfigError(f"{argument} should be a list of columns, given a dictionary.")
    given = tuple(columns)
    for column in given:
        if not isinstance(column, FeatureColumn):
            raise ConfigError(f"{argument} must hold feature columns only, given {column!r}.")
    return given


def required_columns(columns: Columns | None, argument: str) -> tuple[FeatureColumn, ...]:
    """Return the columns as a tuple.

    Raises:
        ConfigError: if there are none, or something else than columns.
    """
    given = checked_columns(columns, argument)
    if not given:
        raise ConfigError(f"{argument} must not be empty.")
    return given


def check_optimizer(optimizer: Any, learning_rate: float) -> None:
    """Raise a ConfigError if ``optimizer`` can be told now to be none.

    What a callable returns is only known in the model_fn: it may ask for the global step.
    """
    if isinstance(optimizer, Optimizer) or not callable(optimizer):
        get(optimizer, learning_rate)


def check_features(features: Any) -> None:
    """Raise a ModelError unless ``features`` is a dict."""
    if not isinstance(features, Mapping):
        raise ModelError(
            f"features should be a dictionary of `Tensor`s. Given type: {type(features).__name__}."
        )
