from __future__ import annotations

from typing import Any

import pytest

from psys.distribute import ParameterServerStrategy
from psys.errors import ConfigError


def test_without_arguments_training_is_asynchronous_and_fresh() -> None:
    strategy = ParameterServerStrategy()
    assert (strategy.consistency, strategy.pipeline_depth, strategy.push_dtype) == (
        "async",
        0,
        None,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"consistency": "bounded", "staleness": 0},
        {"consistency": "bounded", "staleness": 1, "pipeline_depth": 1},
        {"consistency": "sync", "replicas_to_aggregate": 3, "push_dtype": "float16"},
        {"pipeline_depth": 1, "push_dtype": "bfloat16"},
    ],
)
def test_legal_options(options: dict[str, Any]) -> None:
    assert vars(ParameterServerStrategy(**options)).items() >= options.items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"consistency": "eventual"}, "one of async, bounded, sync, got 'eventual'"),
        ({"pipeline_depth": 2}, "must be 0 or 1, got 2"),
        ({"push_dtype": "int8"}, "None, 'float16' or 'bfloat16', got 'int8'"),
        ({"consistency": "bounded"}, "needs staleness="),
        ({"staleness": 1}, "staleness is for consistency=\"bounded\"; consistency is 'async'"),
        ({"consistency": "bounded", "staleness": -1}, "an integer of 0 or more, got -1"),
        ({"consistency": "bounded", "staleness": True}, "an integer of 0 or more, got True"),
        ({"consistency": "sync", "replicas_to_aggregate": 0}, "an integer of 1 or more"),
        ({"consistency": "sync", "pipeline_depth": 1}, "use pipeline_depth=0"),
        ({"consistency": "bounded", "staleness": 0, "pipeline_depth": 1}, "staleness=1 or more"),
    ],
)
def test_what_is_not_legal_is_refused_in_one_sentence(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ParameterServerStrategy(**options)
