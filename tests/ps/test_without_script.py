"""A ps that runs no program knows psys's own optimizers and schedules, and imports nothing."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from typing import Any

import pytest

import psys as tf
from psys.arrays import GlobalStep, VariableSpec
from psys.errors import ModelError
from psys.initializers import Constant
from psys.optimizers import Optimizer, optimizer
from psys.ps.shard import LoadedSlice
from psys.ps.slice_state import prepare_without_script

SGD = {"kind": "SGD", "learning_rate": 0.1}


def slices(*configs: Any) -> list[LoadedSlice]:
    specs = [
        VariableSpec(f"v{n}", (2,), "float32", Constant(), config)
        for n, config in enumerate(configs)
    ]
    return [LoadedSlice(one, 0, 2) for one in specs]


def test_psys_own_optimizers_and_schedules_are_prepared() -> None:
    decayed = tf.train.GradientDescentOptimizer(
        tf.train.exponential_decay(0.1, GlobalStep(0), 10, 0.5)
    )
    prepare_without_script(slices(None, SGD, decayed.to_config()))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"kind": "OfTheProgram", "learning_rate": 0.1}, "optimizer 'OfTheProgram'"),
        ({"kind": "antigravity", "learning_rate": 0.1}, "optimizer 'antigravity'"),
        ({"kind": "os.system", "learning_rate": "true"}, "optimizer 'os.system'"),
        ({"kind": ["SGD"]}, r"optimizer \['SGD'\]"),
        ({}, "optimizer None"),
        ({**SGD, "learning_rate": {"schedule": "antigravity"}}, "schedule 'antigravity'"),
        ({**SGD, "learning_rate": {"schedule": {"a": 1}}}, "schedule {'a': 1}"),
        ({**SGD, "learning_rate": {}}, "schedule None"),
    ],
)
def test_any_other_name_is_refused_with_its_variable_and_nothing_is_imported(
    config: Any, what: str
) -> None:
    assert importlib.util.find_spec("antigravity")  # there to be imported, if names were
    before = set(sys.modules)
    with pytest.raises(ModelError, match=f"{what} of variable 'v1' is not one of psys's own"):
        prepare_without_script(slices(SGD, config))
    assert "antigravity" not in sys.modules
    assert set(sys.modules) == before


def test_what_is_unknown_is_what_from_config_would_refuse() -> None:
    @dataclasses.dataclass(frozen=True)
    class Here(tf.train.LearningRateSchedule):
        kind = "HereInATest"

        def __call__(self, step: int) -> float:
            return 0.1

    class Descent(Optimizer):
        kind = "DescentInATest"

        def __init__(self, learning_rate: Any) -> None:
            super().__init__(learning_rate, False, self.kind)

        def update(self, value: Any, slots: Any, scalars: Any, gradient: Any) -> None:
            value -= gradient

    known = Descent(Here()).to_config()
    assert optimizer.unknown_in(known) == ""
    assert isinstance(optimizer.from_config(known), Descent)
    for name in ("Nowhere", ["Nowhere"]):
        for config in ({"kind": name}, {**known, "learning_rate": {"schedule": name}}):
            assert repr(name) in optimizer.unknown_in(config)
            with pytest.raises(ModelError, match="'Nowhere'"):
                optimizer.from_config(config)
