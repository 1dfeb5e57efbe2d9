"""train_and_evaluate: looks at TF_CONFIG and becomes the role it names."""

from __future__ import annotations

import logging
from typing import Any

from psys.cluster import EVALUATOR, PS, WORKER
from psys.errors import ConfigError, ConfigTypeError
from psys.estimator.estimator import Estimator
from psys.estimator.specs import EvalSpec, TrainSpec
from psys.roles import chief, evaluator, local, ps, worker
from psys.train.log import show_log_lines

logger = logging.getLogger("psys")

SUPPORTED = ("chief", "master", "worker", "ps", "evaluator")


def train_and_evaluate(
    estimator: Estimator, train_spec: TrainSpec, eval_spec: EvalSpec
) -> tuple[dict[str, Any] | None, list[str | None] | None] | None:
    """Train, evaluate and export, here or as one task of the cluster TF_CONFIG names.

    The promise of tf.estimator.train_and_evaluate's page: the same program on one machine and
    on a cluster. Every role returns when the job is FINISHED.

    Args:
        estimator: what to train.
        train_spec: how to train; ``max_steps`` is reached exactly.
        eval_spec: how to evaluate and export.

    Returns:
        On one machine (metrics of the last evaluation, results of its exporters); in a
        cluster None.

    Raises:
        ConfigTypeError: (a TypeError) if an argument is not of its type.
        ConfigError: (a ValueError) if TF_CONFIG names a task that is not supported.
        SystemExit: in a cluster, 1 if the job failed in another task.
    """
    for what, value, kind in (
        ("eval_spec", eval_spec, EvalSpec),
        ("estimator", estimator, Estimator),
        ("train_spec", train_spec, TrainSpec),
    ):
        if not isinstance(value, kind):
            raise ConfigTypeError(
                f"`{what}` must have type `tf.estimator.{kind.__name__}`, given {type(value)}."
            )
    show_log_lines()
    cluster_config = estimator.config.cluster_config
    if cluster_config.cluster is None:
        return local.run(estimator, train_spec, eval_spec)
    task = cluster_config.task
    if task.is_chief:
        chief.run(estimator, train_spec, eval_spec)
    elif task.type == WORKER:
        worker.run(estimator, train_spec)
    elif task.type == PS:
        ps.run(estimator.config, train_spec.max_steps)
    elif task.type == EVALUATOR:
        if task.index:
            raise ConfigError("There can be only one `evaluator` task (with task id 0).")
        evaluator.run(estimator, eval_spec, train_spec.max_steps)
    else:
        raise ConfigError(
            f"Task type {task.type} is not supported. Supported task types are {list(SUPPORTED)}."
        )
    return None
