"""Numbers of a layer that are read together are those its columns give, bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psys import feature_column as fc
from psys.errors import ModelError
from psys.feature_column.numeric import NumericColumn

# Modules of tests are no package (importlib mode), but share what stands in their folder.
sys.path.insert(0, str(Path(__file__).parent))

from planned_step import step
from stack_models import CallModel, Spec, built
from stacked_cases import BATCH, FEATURES, LATER, A, B, embedding, of_layer

NUMBERS: dict[str, Any] = {
    "n1": np.arange(BATCH, dtype=np.float32)[:, None] / 7,
    "n2": np.arange(BATCH) - 3,
    "n3": np.arange(2.0 * BATCH).reshape(BATCH, 2) / 3,
    "n4": np.arange(BATCH) % 2 == 0,
    "n5": np.ones((BATCH, 1)),
}


class Doubled(NumericColumn):
    """Twice a feature's numbers."""

    def dense(self, features: Any, *, trainable: bool = True) -> Any:
        return 2 * super().dense(features, trainable=trainable)


def numbers_and_tables() -> CallModel:
    """Return a layer of numbers that are not all beside each other, and of tables."""
    return of_layer(
        [
            *map(embedding, (A, B)),
            fc.numeric_column("n1"),
            fc.numeric_column("n2"),
            fc.numeric_column("n2x", normalizer_fn=np.sqrt),
            fc.numeric_column("n3", 2),
            fc.numeric_column("n4"),
            Doubled("n5", (1,), None, "float32", None),
        ]
    )


def test_numbers_side_by_side_are_read_together() -> None:
    first = {**FEATURES, **NUMBERS, "n2x": np.ones(BATCH)}
    given = [
        first,
        {**LATER, **NUMBERS, "n2x": np.zeros(BATCH)},
        {**first, "n2": NUMBERS["n2"] / 11, "n4": np.ones((BATCH, 1), np.int8)},
        {**first, "n1": np.ma.masked_less(NUMBERS["n1"], 0.3)},
        {**first, "n3": NUMBERS["n3"].tolist()},  # for its column to make something of
        {**first, "n1": np.array([1.5, 2, 3, 4, 5, 6], object)},
        first,
    ]
    model = built(numbers_and_tables(), first, stacked=True)
    for one in given:
        found = step(numbers_and_tables(), model, one, {})
        call = numbers_and_tables()
        plans: Any = {}
        assert step(call, model, first, plans)[3] == found[3]
        assert step(call, model, one, plans) == found
        (plan,) = plans.values()
        assert [(part.keys, part.widths) for part in plan.numbers] == [
            (("n1", "n2"), (1, 1)),
            (("n3", "n4"), (2, 1)),
        ]


def test_columns_of_numbers_are_asked_in_the_first_step_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    dense = NumericColumn.dense

    def counted(column: NumericColumn, *arguments: Any, **more: Any) -> Any:
        asked.append(column.key)
        return dense(column, *arguments, **more)

    monkeypatch.setattr(NumericColumn, "dense", counted)
    call = numbers_and_tables()
    given = {**FEATURES, **NUMBERS, "n2x": np.ones(BATCH)}
    model = built(call, given, stacked=True)
    for expected in (["n1", "n2", "n2x", "n3", "n4", "n5"], ["n2x", "n5"], ["n2x", "n5"]):
        asked.clear()
        step(call, model, given, model.lookups.layers)
        assert asked == expected


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n3": np.ones((BATCH, 3))}, "feature 'n3' must be"),
        ({"n3": np.array(["a"] * BATCH)}, "takes numbers, but feature 'n3'"),
        ({"n4": np.array([b"1"] * BATCH)}, "takes numbers, but feature 'n4'"),
        ({"n1": np.ones((BATCH, 2)), "n2x": np.ones((BATCH, 2))}, "feature 'n1' must be"),
        ({"n3": None}, "feature 'n3'"),
        ({"n4": np.ones(BATCH - 1)}, "batches of different sizes"),
        ({"n3": np.ones((9, 2)), "n4": np.ones(9)}, "batches of different sizes"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_as_in_the_first_step(
    wrong: dict[str, Any], message: str
) -> None:
    first = {**FEATURES, **NUMBERS, "n2x": np.ones(BATCH)}
    call = numbers_and_tables()
    model = built(call, first, stacked=True)
    plans: Any = {}
    step(call, model, first, plans)
    said = []
    none: Any = {}
    for known in (plans, none):
        with pytest.raises(ModelError, match=message) as caught:
            step(call, model, {**first, **wrong}, known)
        said.append(str(caught.value))
    assert said[0] == said[1]


class Halved(dict[str, Any]):
    """Gives half of what it holds to whoever asks in the usual way."""

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key) / 2


@pytest.mark.parametrize("tables", [True, False])
def test_what_a_layer_is_given_instead_of_the_batch(tables: bool) -> None:
    numbers = [fc.numeric_column("n1"), fc.numeric_column("n2")]
    layer = of_layer([*numbers, *map(embedding, (A, B))] if tables else numbers)
    given: dict[str, Any] = {**FEATURES, **NUMBERS}
    as_what: list[Any] = [lambda features: features]

    def call(features: Any, labels: Any) -> Spec:
        return layer(as_what[-1](features), labels)

    model = built(call, given, stacked=True)
    plans: Any = {}
    step(call, model, given, plans)
    if not tables:
        as_what.append(lambda features: Halved(features))
        assert step(call, model, given, plans) == step(call, model, given, {})
    for wrong in (["n1"], None, np.ones(3)):
        as_what.append(lambda _, wrong=wrong: wrong)
        for known in (plans, {}):
            with pytest.raises(ModelError, match="features should be a dictionary of arrays"):
                step(call, model, given, known)
