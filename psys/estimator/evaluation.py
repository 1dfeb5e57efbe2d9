"""Evaluation and prediction: model_fn over batches, reading one checkpoint, training nothing.

An evaluation's metrics go to its own directory: event files for TensorBoard and one JSON line
in ``results.jsonl``, which also serves as the ledger of what has been evaluated.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np

from psys.arrays import Array
from psys.checkpoint import ModelReader
from psys.compute.backward import untraced
from psys.compute.read_store import ReadStore
from psys.compute.variables import global_step_in_hooks
from psys.errors import ModelError
from psys.estimator.model_fn import EstimatorSpec, ModeKeys
from psys.metrics import Metric
from psys.summary.writer import SummaryWriter
from psys.train.hooks import SessionRunContext, SessionRunHook, SessionRunValues, with_results
from psys.train.input_pipeline import Batch

logger = logging.getLogger("psys")

RESULTS = "results.jsonl"
RESERVED = ("loss", "global_step")

CallModelFn = Callable[[Any, Any, str], EstimatorSpec]


class _Loop:
    """Runs model_fn over batches, reading each dense variable once, with hooks around."""

    def __init__(
        self,
        call_model_fn: CallModelFn,
        reader: ModelReader,
        mode: str,
        hooks: Sequence[SessionRunHook] = (),
    ) -> None:
        self._call_model_fn = call_model_fn
        self._reader = reader
        self._mode = mode
        self._hooks = list(hooks)
        self._values: dict[str, Array] = {}
        self._stopping = False

    def stop(self) -> None:
        """End after the batch under way."""
        self._stopping = True

    def run(self, batch: Batch) -> EstimatorSpec:
        """Run model_fn once."""
        reader = self._reader
        labels = None if self._mode == ModeKeys.PREDICT else batch.labels
        with ReadStore(self._value, reader.read_rows, global_step=reader.global_step):
            return self._call_model_fn(batch.features, labels, self._mode)

    def specs(self, batches: Iterator[Batch]) -> Iterator[EstimatorSpec]:
        """Yield the spec of each batch until they end, a hook asks, or ``stop`` is called.

        The hooks begin once model_fn ran first, as tf.estimator's do, for it has hooks too.
        """
        begun = False
        for batch in batches:
            spec = None
            if not begun:
                spec, begun = self.run(batch), True
                self._begin(spec)
            context = SessionRunContext(None)
            with self._around_hooks():
                wanted = [hook.before_run(context) for hook in self._hooks]
            spec = spec or self.run(batch)
            yield spec
            loss = None if spec.loss is None else float(np.reshape(untraced(spec.loss), ()))
            values = SessionRunValues(None, loss, self._reader.global_step, batch.size)
            with self._around_hooks():
                for hook, arguments in zip(self._hooks, wanted, strict=True):
                    hook.after_run(context, with_results(values, arguments, spec.predictions))
            if context.stop_requested or self._stopping:
                break
        if begun:
            with self._around_hooks():
                for hook in self._hooks:
                    hook.end(None)

    def _begin(self, spec: EstimatorSpec) -> None:
        evaluating = self._mode == ModeKeys.EVAL
        self._hooks += spec.evaluation_hooks if evaluating else spec.prediction_hooks
        with self._around_hooks():
            for hook in self._hooks:
                hook.begin()
            for hook in self._hooks:
                hook.after_create_session(None, None)

    def _around_hooks(self) -> AbstractContextManager[None]:
        return global_step_in_hooks(lambda: self._reader.global_step)

    def _value(self, name: str) -> Array:
        if name not in self._values:
            self._values[name] = self._reader.read(name)
        return self._values[name]


def evaluate(
    call_model_fn: CallModelFn,
    reader: ModelReader,
    batches: Iterator[Batch],
    steps: int | None,
    hooks: Sequence[SessionRunHook] = (),
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Return the metrics of a model over at most ``steps`` batches.

    ``loss`` is the mean of the batches' losses, whatever their sizes (tf.estimator's rule);
    ``global_step`` is the checkpoint's.

    Args:
        call_model_fn: runs model_fn.
        reader: the model's values.
        batches: of (features, labels).
        steps: how many at most; None for all.
        hooks: called around each batch.
        progress: told the number of each batch.

    Raises:
        ModelError: if there is no batch, or a metric has a reserved name.
    """
    loop = _Loop(call_model_fn, reader, ModeKeys.EVAL, hooks)
    totals: dict[str, Metric] = {}
    losses: list[float] = []
    for spec in loop.specs(batches):
        _check_names(spec.eval_metric_ops)
        losses.append(float(np.asarray(untraced(spec.loss)).reshape(())))
        for name, metric in spec.eval_metric_ops.items():
            totals[name] = metric if name not in totals else totals[name].merge(metric)
        if progress is not None:
            progress(len(losses))
        if steps is not None and len(losses) >= steps:
            loop.stop()
    if not losses:
        raise ModelError("The evaluation input_fn gave no batch: its input is empty.")
    results: dict[str, Any] = {name: _plain(total.result()) for name, total in totals.items()}
    results["loss"] = float(np.mean(losses))
    results["global_step"] = int(reader.global_step)
    return results


def _check_names(metrics: Mapping[str, Metric]) -> None:
    for name in RESERVED:
        if name in metrics:
            raise ModelError(
                f"eval_metric_ops may not be named {name!r}: evaluate returns that itself."
            )


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return array.item() if array.ndim == 0 else array


@cache
def _writer_of(directory: str) -> SummaryWriter:
    """Return this process's one writer of a directory, open to its end: each write is flushed."""
    writer = SummaryWriter(directory)
    atexit.register(writer.close)
    return writer


def write_results(
    directory: str, results: Mapping[str, Any], checkpoint: str, wall_secs: float
) -> None:
    """Write one evaluation for TensorBoard, and as one line of ``results.jsonl``.

    Args:
        directory: ``eval`` or ``eval_<name>`` below model_dir.
        results: what ``evaluate`` returned.
        checkpoint: the path that was evaluated; '' for initial values.
        wall_secs: how long it took.
    """
    step = int(results["global_step"])
    metrics = {name: value for name, value in results.items() if name != "global_step"}
    numbers = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
    writer = _writer_of(os.path.abspath(directory))
    writer.scalars(numbers, step)
    writer.text("checkpoint_path", checkpoint, step)
    writer.flush()
    line = {
        "global_step": step,
        "checkpoint": checkpoint,
        "metrics": {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in metrics.items()
        },
        "wall_secs": round(wall_secs, 3),
        "time": time.time(),
    }
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, RESULTS), "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def evaluated_checkpoints(directory: str) -> dict[str, dict[str, Any]]:
    """Return path → metrics of the checkpoints that ``results.jsonl`` says were evaluated."""
    try:
        with open(os.path.join(directory, RESULTS), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    evaluated = {}
    for line in lines:
        try:
            document = json.loads(line)
            metrics = {**document["metrics"], "global_step": int(document["global_step"])}
            evaluated[str(document["checkpoint"])] = metrics
        except (ValueError, KeyError, TypeError):
            # A line cut short by a kill: that evaluation is done again.
            logger.warning("A line of %s in %s cannot be read.", RESULTS, directory)
    return evaluated


def predict(
    call_model_fn: CallModelFn,
    reader: ModelReader,
    batches: Iterator[Batch],
    predict_keys: Sequence[str] | str | None,
    hooks: Sequence[SessionRunHook],
    yield_single_examples: bool,
) -> Iterator[Any]:
    """Yield predictions, example by example or batch by batch; see ``Estimator.predict``."""
    loop = _Loop(call_model_fn, reader, ModeKeys.PREDICT, hooks)
    for spec in loop.specs(batches):
        predictions = _select(spec.predictions, predict_keys)
        if not yield_single_examples:
            yield predictions
        elif isinstance(predictions, Mapping):
            yield from _rows(predictions)
        else:
            yield from predictions


def prediction_keys(
    call_model_fn: CallModelFn, reader: ModelReader, features: Any
) -> tuple[str, ...]:
    """Return the names of what model_fn predicts of ``features``."""
    spec = _Loop(call_model_fn, reader, ModeKeys.PREDICT).run(Batch(features, None))
    return tuple(spec.predictions) if isinstance(spec.predictions, Mapping) else ("output",)


def _select(predictions: Any, keys: Sequence[str] | str | None) -> Any:
    if not isinstance(predictions, Mapping):
        if keys:
            raise ModelError(
                f"predict_keys argument is not valid in case of non-dict predictions: {keys}."
            )
        return _of_the_caller(predictions)
    wanted = None if keys is None else {keys} if isinstance(keys, str) else set(keys)
    chosen = {
        key: _of_the_caller(value)
        for key, value in predictions.items()
        if wanted is None or key in wanted
    }
    if not chosen:
        raise ModelError(
            f"Expected to run at least one output from {sorted(predictions)}, provided {keys}."
        )
    return chosen


def _of_the_caller(prediction: Any) -> Array:
    """Return an array that may be written into: features and variables may not."""
    array = np.asarray(untraced(prediction))
    return array if array.flags.writeable else array.copy()


def _rows(predictions: Mapping[str, Array]) -> Iterator[dict[str, Any]]:
    lengths = {key: len(value) if value.ndim else 0 for key, value in predictions.items()}
    if len(set(lengths.values())) != 1:
        raise ModelError(
            f"Batch length of predictions should be same. They are {lengths}; "
            "yield_single_examples=False gives whole batches."
        )
    for row in range(next(iter(lengths.values()))):
        yield {key: value[row] for key, value in predictions.items()}
