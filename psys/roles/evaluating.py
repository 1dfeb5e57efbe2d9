"""Evaluate one checkpoint and run the exporters: the same for the evaluator and locally."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psys.estimator.estimator import Estimator
from psys.estimator.exporters import FinalExporter
from psys.estimator.specs import EvalSpec


@dataclass(frozen=True)
class Evaluated:
    """The result of one evaluation.

    Attributes:
        metrics: what ``Estimator.evaluate`` returned.
        exports: what each exporter returned, in their order.
        export: the path that the verdict names: a FinalExporter's before any other; '' for
            none.
    """

    metrics: dict[str, Any]
    exports: list[str | None]
    export: str = ""


def evaluate_and_export(
    estimator: Estimator,
    eval_spec: EvalSpec,
    checkpoint_path: str,
    final: bool,
    *,
    before: Evaluated | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluated:
    """Evaluate a checkpoint, then call every exporter.

    Args:
        estimator: whose model it is.
        eval_spec: how.
        checkpoint_path: what.
        final: whether it is the job's last checkpoint.
        before: where this very checkpoint was evaluated before: its metrics stand, and only
            exporters that had nothing to export then are called again.
        progress: told the number of each batch.
    """
    if before is not None:
        metrics, exports = before.metrics, list(before.exports)
    else:
        exports = [None] * len(eval_spec.exporters)
        metrics = estimator.evaluate(
            eval_spec.input_fn,
            steps=eval_spec.steps,
            hooks=eval_spec.hooks,
            checkpoint_path=checkpoint_path,
            name=eval_spec.name,
            progress=progress,
        )
    for index, exporter in enumerate(eval_spec.exporters):
        exports[index] = exports[index] or exporter.export(
            estimator,
            os.path.join(estimator.model_dir, "export", exporter.name),
            checkpoint_path,
            metrics,
            final,
        )
    made = list(zip(eval_spec.exporters, exports, strict=True))
    final_ones = [path for exporter, path in made if path and isinstance(exporter, FinalExporter)]
    paths = final_ones or [path for path in exports if path]
    return Evaluated(metrics, exports, paths[-1] if paths else "")
