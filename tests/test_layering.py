"""Who may import whom: one way, from the top down (docs/design/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import psys

ROOT = Path(psys.__file__).parent

LAYERS: dict[str, float] = {
    "errors": 0,
    "environment": 0,
    "arrays": 0,
    "initializers": 0,
    "kernels": 0,
    "names": 0,
    "running": 0,
    "stacks": 0,
    "table": 0,
    "cluster": 1,
    "uncaught": 1,
    "optimizers": 1,
    "sharding": 1,
    "compute": 1,
    "metrics": 1,
    "summary": 1,
    "checkpoint": 2,
    "distribute": 2,
    "layers": 2,
    "nn": 2,
    "spread": 2,
    "losses": 2,
    "feature_column": 2,
    "inputs": 2,
    "ps": 3,
    # How a process runs and attends what ps decides: the threads and clocks that ps has not.
    "host": 3.5,
    "attendance": 3.5,
    # What a trainer sees of the messages of all shards.
    "exchange": 3.5,
    "rpc": 4,
    "local": 4,
    "parameters": 4,
    "train": 5,
    "estimator": 6,
    "roles": 7,
    "contrib": 8,
    "cli": 8,
    "__init__": 8,
    "__main__": 8,
}
BESIDE = {("host", "attendance"), ("layers", "nn")}
"""Within a layer none imports another, but for these."""
UPWARDS = {("estimator/__init__.py", "roles")}
"""``train_and_evaluate`` is looked for in ``estimator``; it is imported when it is called."""
ONLY = {
    "ps": {"errors", "arrays", "initializers", "kernels", "stacks", "optimizers", "checkpoint"},
    "host": {"errors", "arrays", "initializers", "kernels", "ps", "attendance"},
    "attendance": {"errors", "arrays", "initializers", "ps"},
    "exchange": {"errors", "arrays", "spread", "ps"},
    "rpc": {
        "environment",
        "errors",
        "arrays",
        "initializers",
        "kernels",
        "cluster",
        "sharding",
        "checkpoint",
        "ps",
        "host",
        "attendance",
    },
    "local": {"errors", "arrays", "ps", "host", "attendance"},
    "parameters": {
        "errors",
        "arrays",
        "initializers",
        "kernels",
        "cluster",
        "sharding",
        "checkpoint",
        "ps",
        "exchange",
        "spread",
    },
}
"""Where a layer may import less than all below it."""

PURE = ("ps", "optimizers", "sharding")
IMPURE = {
    "asyncio",
    "concurrent",
    "datetime",
    "io",
    "multiprocessing",
    "os",
    "pathlib",
    "queue",
    "random",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uuid",
}
FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT / "rpc" / "v1")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def part(path: Path) -> str:
    """Return the package of layers a file belongs to: its first folder, or its own name."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)


def parts_imported(path: Path) -> set[str]:
    found = set()
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "psys" and rest.split(".")[0] in LAYERS:
            found.add(rest.split(".")[0])
    return found


def test_every_package_has_a_layer() -> None:
    assert {part(path) for path in FILES} <= set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    own = part(path)
    for other in sorted(parts_imported(path) - {own}):
        below = LAYERS[other] < LAYERS[own] or (own, other) in BESIDE or LAYERS[own] in (0, 8)
        assert below or (name_of(path), other) in UPWARDS, (
            f"psys.{own} (layer {LAYERS[own]}) imports psys.{other} ({LAYERS[other]})"
        )
        if LAYERS[own] == 0:
            assert LAYERS[other] == 0, f"psys.{own} imports psys.{other}"
        allowed = ONLY.get(own)
        assert allowed is None or other in allowed, f"psys.{own} may not import psys.{other}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_rpc_knows_grpc_and_generated_code(path: Path) -> None:
    if part(path) == "rpc":
        return
    for name in imports(path):
        assert name.split(".")[0] not in ("grpc", "grpc_health", "google"), f"imports {name}"
        assert not name.startswith("psys.rpc.v1"), f"imports {name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_one_module_reads_the_environment(path: Path) -> None:
    if part(path) == "environment":
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("environ", "getenv", "putenv", "environb"), node.lineno
    assert not {"os.environ", "os.getenv", "os.putenv"} & set(imports(path))


@pytest.mark.parametrize("path", [path for path in FILES if part(path) in PURE], ids=name_of)
def test_the_core_does_no_io(path: Path) -> None:
    for name in imports(path):
        assert name.split(".")[0] not in IMPURE, f"imports {name}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "print", "input"), f"line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_module_is_a_drawer_or_too_long(path: Path) -> None:
    assert path.stem not in ("utils", "util", "common", "helpers", "misc")
    assert len(path.read_text().splitlines()) <= 500
