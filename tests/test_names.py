"""A name that is not there says so, and what to do, instead of looking like a bug."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import psys
from psys import names


def test_a_line_most_programs_have_is_answered_with_advice() -> None:
    with pytest.raises(AttributeError, match=r"psys has no 'logging': leave the line out"):
        psys.logging.set_verbosity(psys.logging.INFO)


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        ("psys", "set_random_seed", "use RunConfig(tf_random_seed=...)."),
        ("psys", "zeros_initializer", "use psys.initializers.Constant(0.0)."),
        ("psys.train", "get_or_create_global_step", "use tf.train.get_global_step()."),
        ("psys.estimator", "DNNClasifier", "did you mean 'DNNClassifier'?"),
        ("psys.train", "AdamOptimiser", "did you mean 'AdamOptimizer'?"),
        ("psys.metrics", "acuracy", "did you mean 'accuracy'?"),
        ("psys", "while_loop", "it is not in this version."),
    ],
)
def test_a_name_is_answered_with_what_there_is_instead(
    module: str, name: str, message: str
) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(importlib.import_module(module), name)
    assert str(caught.value) == f"{module} has no {name!r}: {message}"


def test_what_the_migration_guide_explains_points_there() -> None:
    with pytest.raises(AttributeError, match=r"it is not in this version \(docs/migrating-from"):
        psys.estimator.BoostedTreesClassifier  # noqa: B018
    guide = (Path(__file__).parents[1] / "docs" / "migrating-from-tf-estimator.md").read_text()
    assert [name for name in names.GUIDED if name not in guide] == []


@pytest.mark.parametrize("module", ["psys", "psys.estimator", "psys.train", "psys.feature_column"])
def test_a_missing_name_is_no_attribute(module: str) -> None:
    assert not hasattr(importlib.import_module(module), "__nothing__")
