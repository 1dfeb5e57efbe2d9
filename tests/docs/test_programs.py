"""The programs in the pages run as they stand, but shorter and in a directory of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = 10


@pytest.mark.parametrize("page", ["README.md", "docs/how-to-write-a-model-fn.md"])
def test_first_program_of_the_page_runs(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    first = re.search(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert first
    program, shortened = re.subn(r"max_steps=\d+", f"max_steps={STEPS}", first[1])
    assert shortened == 1
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    last = (tmp_path / "model/eval/results.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    assert json.loads(last)["global_step"] == STEPS


def test_program_of_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert first
    assert len([line for line in first[1].splitlines() if line]) <= 24
