from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The tests are no package (importlib mode), and the simulation is several modules.
sys.path.insert(0, str(Path(__file__).parents[1]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long runs out unless they are asked for with -m chaos."""
    if "chaos" not in config.getoption("markexpr"):
        items[:] = [one for one in items if one.get_closest_marker("chaos") is None]
