"""What ``Optimizer.minimize`` returns: a note of which loss trains which variables.

A model_fn puts it in its EstimatorSpec; the training loop computes the gradients and sends
each with its variable's optimizer. Nothing here computes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psys.arrays import Gradient
from psys.errors import ModelError

if TYPE_CHECKING:
    from psys.optimizers.optimizer import Optimizer

Transform = Callable[[dict[str, Gradient]], dict[str, Gradient]]
"""Gradients by variable name → what is sent instead, for the same variables."""


@dataclass(frozen=True, eq=False)
class Minimization:
    """One loss, the optimizer that lowers it, and the variables it may change.

    Attributes:
        optimizer: applies the gradients.
        loss: the loss value of this batch.
        var_list: variable names, or scope prefixes ending in ``/``; None means every
            trainable variable that no other minimization of the train op claims.
        transform: what the trainer does to the gradients of a step before it sends them.
        gradients: by variable name, where model_fn computed them itself; the loss is then None.
    """

    optimizer: Optimizer
    loss: Any
    var_list: tuple[str, ...] | None = None
    transform: Transform | None = None
    gradients: Mapping[str, Gradient] | None = None


@dataclass(frozen=True, eq=False)
class TrainOp:
    """What one training step does: one minimization, or several side by side."""

    minimizations: tuple[Minimization, ...]


def group(*train_ops: TrainOp) -> TrainOp:
    """Return one train op that does what all ``train_ops`` do (``tf.group``).

    Args:
        *train_ops: results of ``Optimizer.minimize`` or of ``group``.

    Raises:
        ModelError: if there are none, or one is something else.
    """
    if not train_ops:
        raise ModelError("group() needs at least one train op, got none.")
    for train_op in train_ops:
        if not isinstance(train_op, TrainOp):
            raise ModelError(
                f"group() takes what Optimizer.minimize() returned, got {type(train_op).__name__}."
            )
    return TrainOp(tuple(one for train_op in train_ops for one in train_op.minimizations))
