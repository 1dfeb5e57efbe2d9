from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from psys.errors import ModelError
from psys.optimizers import AdamOptimizer, FtrlOptimizer, GradientDescentOptimizer, TrainOp, group

LOSS = np.float32(0.5)


def test_minimize_notes_optimizer_loss_and_variables() -> None:
    optimizer = AdamOptimizer()
    (one,) = optimizer.minimize(LOSS, var_list=["dnn/", "bias"]).minimizations
    assert one.optimizer is optimizer
    assert one.loss is LOSS
    assert one.var_list == ("dnn/", "bias")


def test_minimize_takes_a_global_step_and_all_variables_by_default() -> None:
    (one,) = AdamOptimizer().minimize(LOSS, 7).minimizations
    assert one.var_list is None


@pytest.mark.parametrize(
    ("var_list", "message"),
    [([], "no variables to optimize"), ("dnn/", "list of"), ([np.zeros(2)], "list of")],
)
def test_minimize_refuses_what_names_no_variable(var_list: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        AdamOptimizer().minimize(LOSS, var_list=var_list)


def test_minimize_needs_a_loss() -> None:
    with pytest.raises(ModelError, match="loss must be a value, got None"):
        AdamOptimizer().minimize(None)


def test_group_keeps_order_and_may_be_nested() -> None:
    optimizers = [FtrlOptimizer(0.1), AdamOptimizer(), GradientDescentOptimizer(0.1)]
    first, second, third = (one.minimize(LOSS) for one in optimizers)
    grouped = group(first, group(second, third))
    assert [one.optimizer for one in grouped.minimizations] == optimizers


def test_train_ops_are_compared_by_identity() -> None:
    # Equality of losses that are arrays has no truth value.
    optimizer, loss = AdamOptimizer(), np.zeros(2)
    assert optimizer.minimize(loss) != optimizer.minimize(loss)


@pytest.mark.parametrize("train_ops", [(), (None,), (TrainOp(()), 1.0)])
def test_group_refuses_anything_else(train_ops: tuple[Any, ...]) -> None:
    with pytest.raises(ModelError, match="group"):
        group(*train_ops)
