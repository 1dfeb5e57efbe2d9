"""What a model_fn is told and what it answers: ModeKeys and EstimatorSpec.

A spec checks itself when it is built, so that an error points into the model_fn that built it.
It computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from psys.compute.variables import untraced
from psys.errors import ModelError
from psys.metrics import Metric
from psys.optimizers import TrainOp
from psys.train.hooks import SessionRunHook

DEFAULT_SERVING_KEY = "serving_default"


class ModelTypeError(ModelError, TypeError):
    """A field of an EstimatorSpec has the wrong type, where tf.estimator raises a TypeError."""


class ModeKeys:
    """What a model_fn is called for.

    Attributes:
        TRAIN: one training step.
        EVAL: the metrics of one batch.
        PREDICT: the predictions of one batch.
    """

    TRAIN = "train"
    EVAL = "eval"
    PREDICT = "infer"


_MODES = (ModeKeys.TRAIN, ModeKeys.EVAL, ModeKeys.PREDICT)


class _Fields(NamedTuple):
    mode: str
    predictions: Any
    loss: Any
    train_op: TrainOp | None
    eval_metric_ops: Mapping[str, Metric]
    export_outputs: Mapping[str, Any] | None
    training_chief_hooks: tuple[SessionRunHook, ...]
    training_hooks: tuple[SessionRunHook, ...]
    scaffold: None
    evaluation_hooks: tuple[SessionRunHook, ...]
    prediction_hooks: tuple[SessionRunHook, ...]


class EstimatorSpec(_Fields):
    """What a model_fn returns; the fields are those of ``tf.estimator.EstimatorSpec``.

    Args:
        mode: a ``ModeKeys``.
        predictions: an array or a dict of arrays ``[batch, ...]``; required to predict.
        loss: a scalar array, or one of shape ``[1]``; required to train and to evaluate.
        train_op: what ``Optimizer.minimize`` or ``group`` returned; required to train.
        eval_metric_ops: name -> ``psys.metrics`` metric of this batch.
        export_outputs: signature name -> what it serves; made of ``predictions`` if None. It
            is only looked at to predict, and must have the key "serving_default" unless
            there is but one.
        training_chief_hooks: run on the chief while training.
        training_hooks: run on every trainer.
        scaffold: there is none in psys; must be None.
        evaluation_hooks: run while evaluating.
        prediction_hooks: run while predicting.

    Raises:
        ModelError: if something the mode requires is missing, or a value cannot be used.
        ModelTypeError: (a TypeError) if a value has the wrong type.
    """

    __slots__ = ()

    def __new__(
        cls,
        mode: str,
        predictions: Any = None,
        loss: Any = None,
        train_op: TrainOp | None = None,
        eval_metric_ops: Mapping[str, Metric] | None = None,
        export_outputs: Mapping[str, Any] | None = None,
        training_chief_hooks: Iterable[SessionRunHook] | None = None,
        training_hooks: Iterable[SessionRunHook] | None = None,
        scaffold: None = None,
        evaluation_hooks: Iterable[SessionRunHook] | None = None,
        prediction_hooks: Iterable[SessionRunHook] | None = None,
    ) -> EstimatorSpec:
        """Check every field."""
        if mode not in _MODES:
            raise ModelError(f"mode must be one of {_MODES}, given {mode!r}.")
        if scaffold is not None:
            raise ModelTypeError(f"scaffold must be None: psys has none, given {scaffold!r}.")
        predictions = _checked_predictions(predictions, mode)
        return super().__new__(
            cls,
            mode,
            predictions,
            _checked_loss(loss, mode),
            _checked_train_op(train_op, mode),
            _checked_metrics(eval_metric_ops),
            _checked_export_outputs(export_outputs, predictions, mode),
            _checked_hooks("training_chief_hooks", training_chief_hooks),
            _checked_hooks("training_hooks", training_hooks),
            None,
            _checked_hooks("evaluation_hooks", evaluation_hooks),
            _checked_hooks("prediction_hooks", prediction_hooks),
        )

    def _replace(self, **changes: Any) -> EstimatorSpec:
        """Return a spec with some fields changed and all of them checked again.

        Raises:
            ModelError: if ``mode`` is to change, or a field is not a spec's.
        """
        if changes.get("mode", self.mode) != self.mode:
            raise ModelError(f"mode of EstimatorSpec cannot be changed from {self.mode!r}.")
        unknown = sorted(set(changes) - set(self._fields))
        if unknown:
            raise ModelError(f"EstimatorSpec has no field {', '.join(unknown)}.")
        return EstimatorSpec(**{**self._asdict(), **changes})


def _checked_predictions(predictions: Any, mode: str) -> Any:
    if predictions is None:
        if mode == ModeKeys.PREDICT:
            raise ModelError("Missing predictions. model_fn must return some to predict.")
        return {}
    values = predictions.values() if isinstance(predictions, Mapping) else [predictions]
    for value in values:
        if not isinstance(untraced(value), (np.ndarray, np.generic)):
            raise ModelTypeError(f"predictions must be arrays, given {value!r}.")
    return predictions


def _checked_loss(loss: Any, mode: str) -> Any:
    if loss is None:
        if mode in (ModeKeys.TRAIN, ModeKeys.EVAL):
            raise ModelError(f"Missing loss. model_fn must return one in mode {mode!r}.")
        return None
    value = untraced(loss)
    if not isinstance(value, (np.ndarray, np.generic)):
        raise ModelTypeError(f"loss must be an array computed from the batch, given {loss!r}.")
    if value.shape not in ((), (1,)):
        raise ModelError(f"Loss must be scalar, given shape {value.shape}.")
    return loss.reshape(()) if value.shape else loss


def _checked_train_op(train_op: Any, mode: str) -> TrainOp | None:
    if train_op is None and mode == ModeKeys.TRAIN:
        raise ModelError("Missing train_op. It is what Optimizer.minimize(loss) returns.")
    if train_op is not None and not isinstance(train_op, TrainOp):
        raise ModelTypeError(
            f"train_op must be what Optimizer.minimize(loss) returns, given {train_op!r}."
        )
    return train_op


def _checked_metrics(metrics: Any) -> Mapping[str, Metric]:
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise ModelTypeError(f"eval_metric_ops must be a dict, given {metrics!r}.")
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise ModelTypeError(
                f"eval_metric_ops[{name!r}] must be a metric of psys.metrics, given {metric!r}."
            )
    return metrics


def _checked_export_outputs(outputs: Any, predictions: Any, mode: str) -> Mapping[str, Any] | None:
    if mode != ModeKeys.PREDICT:
        return None
    if outputs is None:
        return {DEFAULT_SERVING_KEY: predictions}
    if not isinstance(outputs, Mapping):
        raise ModelTypeError(f"export_outputs must be a dict, given {outputs!r}.")
    if DEFAULT_SERVING_KEY in outputs:
        return outputs
    if len(outputs) != 1:
        raise ModelError(
            f"Multiple export_outputs were provided, but none of them is the default: one must "
            f"be named {DEFAULT_SERVING_KEY!r}, given {sorted(outputs)}."
        )
    return {**outputs, DEFAULT_SERVING_KEY: next(iter(outputs.values()))}


def _checked_hooks(field: str, hooks: Iterable[Any] | None) -> tuple[SessionRunHook, ...]:
    given = tuple(hooks or ())
    for hook in given:
        if not isinstance(hook, SessionRunHook):
            raise ModelTypeError(f"All hooks in {field} must be SessionRunHook, given {hook!r}.")
    return given
