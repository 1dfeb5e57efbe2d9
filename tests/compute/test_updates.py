from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from psys.compute.updates import counter, moving_average
from psys.compute.variables import BuildStore, ReadStore, TrainStore, get_variable, variable_scope
from psys.errors import ConfigError, ModelError
from psys.optimizers import MovingAverage, Sum, from_config

MEAN = np.array([2.0, 4.0], np.float32)


def run(store: Any, decay: float = 0.75) -> tuple[Any, int]:
    with store, variable_scope("norm"):
        return moving_average("mean", MEAN, decay), counter("batches", 3)


def built() -> BuildStore:
    store = BuildStore(seed=0)
    run(store)
    return store


def test_the_first_run_records_how_the_ps_takes_them_in() -> None:
    specs = built().specs
    assert specs["norm/mean"].optimizer == MovingAverage(0.75).to_config()
    assert specs["norm/batches"].optimizer == Sum().to_config()
    assert (specs["norm/batches"].shape, specs["norm/batches"].dtype) == ((), "int64")
    assert not built().trainable


def test_a_step_hands_out_what_stands_and_notes_what_it_measured() -> None:
    values = {"norm/mean": np.array([1.0, 1.0], np.float32), "norm/batches": np.array(7)}
    store = TrainStore(built().specs, values, {}, lambda name, ids: np.empty(0))
    mean, count = run(store)
    assert (mean.tolist(), count) == ([1.0, 1.0], 7)
    assert store.updates["norm/mean"].tolist() == [2.0, 4.0]
    assert store.updates["norm/batches"] == 3


def test_evaluation_only_reads() -> None:
    values = {"norm/mean": np.array([1.0, 1.0], np.float32), "norm/batches": np.array(7)}
    store = ReadStore(values.__getitem__, lambda name, ids: np.empty(0))
    assert run(store)[1] == 7


def test_one_variable_has_one_rule() -> None:
    with BuildStore(seed=0):
        moving_average("mean", MEAN)
        with pytest.raises(ModelError, match=r"changed by .*0\.99.* and by .*0\.5"):
            moving_average("mean", MEAN, 0.5)
        get_variable("weights", (2,))
        with pytest.raises(ModelError, match="'weights' is changed by gradients, and by"):
            moving_average("weights", MEAN)
    store = TrainStore(built().specs, {"norm/mean": MEAN}, {}, lambda name, ids: np.empty(0))
    with pytest.raises(ModelError, match="when model_fn ran first, now by"):
        run(store, decay=0.5)


@pytest.mark.parametrize("decay", [-0.1, 1.5, float("nan")])
def test_a_decay_is_between_0_and_1(decay: float) -> None:
    with BuildStore(seed=0), pytest.raises(ModelError, match="decay must be from 0 to 1"):
        moving_average("mean", MEAN, decay)
    with pytest.raises(ConfigError, match="decay"):
        MovingAverage(decay)


def test_the_rules_on_the_ps() -> None:
    value = np.array([8.0, 0.0], np.float32)
    from_config({"kind": "MovingAverage", "decay": 0.75}).apply_dense(
        value, {}, {}, np.array([16.0, 4.0], np.float32)
    )
    assert (value.tolist(), value.dtype) == ([10.0, 1.0], np.float32)
    count = np.array([2**53], np.int64)
    from_config({"kind": "Sum"}).apply_dense(count, {}, {}, np.array([1]))
    assert count.tolist() == [2**53 + 1]
