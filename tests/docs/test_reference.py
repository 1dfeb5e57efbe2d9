"""The reference pages say what the code says: names, errors, environment, timeouts, commands."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import psys
from psys import errors
from psys.cli.main import make_parser
from psys.environment import ENVIRONMENT
from psys.rpc.status import TABLE

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
_TIMEOUT = re.compile(r"^\| `(psys\.[\w.]+)\.(\w+)` \| ([\d.]+) \|", re.MULTILINE)


def read(page: str) -> str:
    return (REFERENCE / page).read_text(encoding="utf-8")


def public_names(module: ModuleType, name: str) -> set[str]:
    """Return the dotted names reachable through ``__all__``, as a program writes them."""
    names = set()
    for item in module.__all__:
        names.add(f"{name}.{item}")
        value = getattr(module, item)
        if isinstance(value, ModuleType):
            names |= public_names(value, f"{name}.{item}")
    return names


def test_api_page_has_exactly_the_public_names() -> None:
    documented = re.findall(r"^\| `(psys\.[\w.]+)` \| \S", read("api.md"), re.MULTILINE)
    assert sorted(documented) == sorted(public_names(psys, "psys"))


def test_errors_page_has_the_tree_of_the_module() -> None:
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n")[1]
    assert tree.startswith("PsysError\n")
    assert f"```\n{tree}\n```" in read("errors.md")


def test_the_tree_has_every_class_below_its_base() -> None:
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n")[1]
    parents: list[str] = []
    drawn = {}
    for line in tree.splitlines():
        matched = re.match(r"([│├└─ ]*)(\w+)", line)
        assert matched
        parents = [*parents[: len(matched[1]) // 3], matched[2]]
        drawn[matched[2]] = parents[-2] if len(parents) > 1 else "Exception"
    classes = {
        name: one.__bases__[0].__name__
        for name, one in vars(errors).items()
        if inspect.isclass(one) and one.__module__ == errors.__name__
    }
    assert drawn == classes


def test_errors_page_has_the_table_of_statuses() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z_]+) \|$", read("errors.md"), re.MULTILINE)
    assert rows == [(kind.__name__, code.name) for kind, code in TABLE]


def test_environment_page_has_exactly_the_variables_psys_reads() -> None:
    section = read("environment-and-timeouts.md").partition("## Options of RunConfig")[0]
    named = {
        name
        for row in re.findall(r"^\| (`[A-Z_`, ]+`) \|", section, re.MULTILINE)
        for name in re.findall(r"`([A-Z_]+)`", row)
    }
    assert named == set(ENVIRONMENT)


@pytest.mark.parametrize(
    ("place", "constant", "value"), _TIMEOUT.findall(read("environment-and-timeouts.md"))
)
def test_constants_are_as_documented(place: str, constant: str, value: str) -> None:
    try:
        holder = importlib.import_module(place)
    except ModuleNotFoundError:
        module, _, name = place.rpartition(".")
        holder = getattr(importlib.import_module(module), name)
    assert getattr(holder, constant) == float(value)


def test_every_timeout_constant_is_documented() -> None:
    documented = {f"{place}.{name}" for place, name, _ in _TIMEOUT.findall(timeouts_page())}
    package = Path(psys.__file__).parent
    defined = set()
    for path in package.rglob("*.py"):
        module = ".".join(("psys", *path.relative_to(package).with_suffix("").parts))
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"^([A-Z]\w*_SECS)\b[^=\n]*=", text, re.MULTILINE):
            defined.add(f"{module}.{name}")
    assert defined <= documented


def timeouts_page() -> str:
    return read("environment-and-timeouts.md")


@pytest.mark.parametrize("option", ["start_timeout_secs", "recover_secs", "linger_secs"])
def test_waits_of_run_config_have_the_documented_defaults(option: str) -> None:
    row = re.search(rf"^\| `{option}` \| (\d+) \|", timeouts_page(), re.MULTILINE)
    assert row
    assert getattr(psys.estimator.RunConfig(), option) == float(row[1])


def test_commands_page_has_every_command() -> None:
    commands = next(
        action.choices for action in make_parser()._actions if isinstance(action.choices, dict)
    )
    documented = re.findall(r"^## psys (\w+)$", read("cli.md"), re.MULTILINE)
    assert sorted(documented) == sorted(commands)
