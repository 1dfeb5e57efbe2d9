"""How kernels are compiled and kept: lazily, once, by one process, wherever can be written."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from psys.kernels import compiling
from psys.kernels.compiling import Kernel, cache_directory, changes, kernel, reads

ROOT = Path(compiling.__file__).parents[2]

USE = """
import time
import numpy as np
from psys.optimizers import AdagradOptimizer
value, slots = np.ones((4, 2), np.float32), {"accumulator": np.full((4, 2), 0.1, np.float32)}
AdagradOptimizer(0.5).apply_dense(value, slots, {}, np.ones((4, 2), np.float32))
print(value[0, 0])
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    return {**kept, "HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": str(ROOT), **more}


def start(program: str, home: Path, cwd: Path, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment(home, **more),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out, err


def kept(home: Path) -> list[str]:
    return sorted(path.name for path in home.rglob("*.nbc"))


def test_importing_psys_and_making_an_optimizer_imports_no_numba(tmp_path: Path) -> None:
    program = (
        "import sys, psys as tf; tf.train.AdamOptimizer(0.1).to_config(); "
        "sys.exit('numba' in sys.modules)"
    )
    finish(start(program, tmp_path, tmp_path))


def test_of_five_processes_one_compiles(tmp_path: Path) -> None:
    # numba logs whom the cache served; with five compiling it would say "saved" five times.
    processes = [start(USE, tmp_path, tmp_path, NUMBA_DEBUG_CACHE="1") for _ in range(5)]
    said = [finish(one)[0] for one in processes]
    assert all("0.5232" in one for one in said)
    assert sum("data saved" in one for one in said) == 1
    assert sum("data loaded" in one for one in said) == 4
    assert len(kept(tmp_path)) == 1


def test_nothing_is_written_into_the_package(tmp_path: Path) -> None:
    package = tmp_path / "site"
    package.mkdir()
    for path in (ROOT / "psys").rglob("*.py"):
        target = package / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    home = tmp_path / "home"
    home.mkdir()
    finish(start(USE, home, tmp_path, PYTHONPATH=str(package), PYTHONDONTWRITEBYTECODE="1"))
    assert len(kept(home / ".cache" / "psys" / "kernels")) == 1
    assert kept(package) == []


def test_without_a_home_it_is_kept_with_temporary_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    finish(start(USE, tmp_path / "file", tmp_path, TMPDIR=str(temporary)))
    (directory,) = temporary.glob("psys-kernels-*")
    assert directory.stat().st_mode & 0o777 == 0o700
    assert len(kept(directory)) == 1


def test_where_nothing_can_be_written_it_works_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = (
        "import logging, tempfile; logging.basicConfig(); "
        f"tempfile.tempdir = {str(tmp_path / 'file')!r}\n"
    )
    out, err = finish(start(nowhere + USE, tmp_path / "file", tmp_path))
    assert "0.5232" in out
    assert "No directory to keep compiled kernels in" in err
    assert kept(tmp_path) == []


def test_an_optimizer_can_be_prepared_before_its_first_update(tmp_path: Path) -> None:
    program = "from psys.train import FtrlOptimizer; FtrlOptimizer(0.1).prepare('float32')"
    finish(start(program, tmp_path, tmp_path))
    assert {name.split("-")[0] for name in kept(tmp_path)} == {"updates.ftrl"}


def test_numba_s_own_directory_wins(tmp_path: Path) -> None:
    finish(start(USE, tmp_path / "home", tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "own")))
    assert len(kept(tmp_path / "own")) == 1
    assert not (tmp_path / "home").exists()


def test_a_damaged_file_is_not_the_end(tmp_path: Path) -> None:
    finish(start(USE, tmp_path, tmp_path))
    for path in tmp_path.rglob("*.nb?"):
        path.write_bytes(path.read_bytes()[:100])
    out, err = finish(start("import logging; logging.basicConfig()\n" + USE, tmp_path, tmp_path))
    assert "0.5232" in out
    assert "Kernel adagrad cannot be kept in" in err


def test_jit_switched_off_runs_plain_python(tmp_path: Path) -> None:
    out, _ = finish(start(USE, tmp_path, tmp_path, NUMBA_DISABLE_JIT="1"))
    assert "0.5232" in out
    assert kept(tmp_path) == []


def test_a_directory_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    shared = tmp_path / ".cache" / "psys" / "kernels"
    shared.mkdir(parents=True)
    shared.chmod(0o777)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    finish(start(USE, tmp_path, tmp_path, TMPDIR=str(temporary)))
    assert kept(shared) == []
    assert len(kept(temporary)) == 1


def double(value: Any) -> None:
    for i in range(len(value)):
        value[i] += value[i]


class TestKernel:
    def test_one_function_for_each_dtype(self) -> None:
        made: Kernel = kernel(changes(1))(double)
        for dtype in ("float32", "float64"):
            compiled, array = made[np.dtype(dtype)], np.ones(3, dtype)
            compiled(array)
            assert array.tolist() == [2, 2, 2]
            assert made[np.dtype(dtype)] is compiled

    def test_another_type_is_an_error_and_not_a_compilation(self) -> None:
        compiled = kernel(changes(1))(double)[np.dtype(np.float32)]
        with pytest.raises(TypeError, match="No matching definition"):
            compiled(np.ones(3))
        with pytest.raises(TypeError, match="No matching definition"):
            compiled(np.ones((3, 3), np.float32)[:, 0])

    def test_what_a_kernel_only_reads_may_be_read_only(self) -> None:
        frozen = np.ones(3, np.float32)
        frozen.flags.writeable = False
        with pytest.raises(TypeError, match="No matching definition"):
            kernel(changes(1))(double)[np.dtype(np.float32)](frozen)
        assert kernel(reads(1))(first)[np.dtype(np.float32)](frozen) == 1

    def test_another_process_that_holds_the_lock_is_waited_for_no_longer_than_said(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(compiling, "COMPILE_WAIT_SECS", 0.2)
        path = tmp_path / "lock"
        with compiling._alone(path):
            entered = []
            with compiling._alone(path):
                entered.append(1)
            assert entered

    def test_the_setting_of_numba_is_put_back(self, tmp_path: Path) -> None:
        before = numba.config.CACHE_DIR
        compiling._keep_in(tmp_path, compiling.inner(first))
        assert before == numba.config.CACHE_DIR


def first(value: Any) -> Any:
    return value[0]


def test_the_directory_is_chosen_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert cache_directory() is cache_directory()
    assert not caplog.records


def test_no_directory_of_ours_is_another_users_to_write_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / ".cache" / "psys" / "kernels"
    before = os.umask(0)
    try:
        assert compiling._is_ours(path)
    finally:
        os.umask(before)
    for one in (path, path.parent, path.parent.parent):
        assert one.stat().st_mode & 0o777 == 0o700
    path.parent.chmod(0o777)  # as an earlier version left it
    assert not compiling._is_ours(path)


def test_what_is_kept_is_kept_for_these_very_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numba looks only at the module of a kernel, not at those it calls functions of."""
    for path in Path(compiling.__file__).parent.glob("*.py"):
        shutil.copy(path, tmp_path)
    here = compiling._source_digest.__wrapped__()
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compiling.py"))
    (tmp_path / ".#rows.py").symlink_to("nowhere")  # an editor's lock
    assert compiling._source_digest.__wrapped__() == here
    with (tmp_path / "memory.py").open("a") as file:
        file.write("# changed")
    assert compiling._source_digest.__wrapped__() != here
    finish(start(USE, tmp_path / "home", tmp_path))
    assert {path.parents[1].name for path in (tmp_path / "home").rglob("*.nbc")} == {here}
