"""A name that is not there says so, and what to do, instead of looking like a bug."""

from __future__ import annotations

import importlib

import pytest

import psys


def test_a_line_most_programs_have_is_answered_with_advice() -> None:
    with pytest.raises(AttributeError, match=r"psys has no 'logging': leave the line out"):
        psys.logging.set_verbosity(psys.logging.INFO)


@pytest.mark.parametrize("module", ["psys", "psys.estimator", "psys.train", "psys.feature_column"])
def test_any_other_name_points_to_the_migration_guide(module: str) -> None:
    with pytest.raises(AttributeError, match=f"{module} has no 'BoostedTrees'.*migrating-from"):
        importlib.import_module(module).BoostedTrees  # noqa: B018
    assert not hasattr(importlib.import_module(module), "__nothing__")
