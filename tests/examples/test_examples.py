"""The examples, run as a newcomer runs them: whole processes, real data, real clusters."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
CENSUS = Path(os.environ.get("PSYS_CENSUS_DIR", ROOT.parent / "shared" / "data" / "census"))

needs_census = pytest.mark.skipif(
    not (CENSUS / "adult.data").is_file() or not (CENSUS / "adult.test").is_file(),
    reason=f"no census data (adult.data, adult.test) in {CENSUS}: set PSYS_CENSUS_DIR",
)


def run(*command: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


def results(model_dir: Path, name: str = "eval") -> list[dict[str, Any]]:
    lines = (model_dir / name / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_digits_on_a_cluster_reaches_its_accuracy_and_is_exported(tmp_path: Path) -> None:
    model_dir = tmp_path / "model"
    done = run(
        "-m", "psys", "run", "--ps", "2", "--workers", "1", "--evaluator",
        "--log-dir", tmp_path / "logs",
        EXAMPLES / "digits.py", "--model_dir", model_dir,
    )  # fmt: skip
    last = done.stdout.splitlines()[-1]
    match = re.fullmatch(r"psys: FINISHED step=1500 checkpoint=(\S+) export=(\S+)", last)
    assert match, last
    final = results(model_dir)[-1]
    assert final["global_step"] == 1500
    assert final["checkpoint"] == match[1]
    assert final["metrics"]["accuracy"] >= 0.95
    assert final["wall_secs"] >= 0
    assert (Path(match[2]) / "export.json").is_file()
    verdict = json.loads((model_dir / "verdict.json").read_text())
    assert verdict["verdict"] == "FINISHED"
    assert verdict["global_step"] == 1500


def test_the_page_s_program_runs_on_one_machine(tmp_path: Path) -> None:
    run(EXAMPLES / "train_and_evaluate.py", "--model_dir", tmp_path, "--max_steps", "60")
    final = results(tmp_path)[-1]
    assert final["global_step"] == 60
    assert final["metrics"]["accuracy"] > 0.5


def test_the_same_program_runs_on_a_cluster(tmp_path: Path) -> None:
    done = run(
        "-m", "psys", "run", "--ps", "1", "--workers", "1", "--evaluator",
        "--log-dir", tmp_path / "logs",
        EXAMPLES / "train_and_evaluate.py", "--model_dir", tmp_path / "m", "--max_steps", "60",
    )  # fmt: skip
    assert done.stdout.splitlines()[-1].startswith("psys: FINISHED step=60 ")


@needs_census
def test_census_on_a_cluster_learns_what_tf_estimator_learns(tmp_path: Path) -> None:
    model_dir = tmp_path / "model"
    # Six of the example's twenty times over the data: enough to be far above the baseline.
    run(
        "-m", "psys", "run", "--ps", "2", "--workers", "1", "--evaluator",
        "--log-dir", tmp_path / "logs",
        EXAMPLES / "census.py",
        "--train", CENSUS / "adult.data", "--test", CENSUS / "adult.test",
        "--model_dir", model_dir, "--max_steps", "1500",
    )  # fmt: skip
    metrics = results(model_dir)[-1]["metrics"]
    assert metrics["accuracy"] >= 0.848
    assert metrics["auc"] >= 0.90
    assert metrics["accuracy_baseline"] == pytest.approx(0.763774, abs=1e-5)
    assert metrics["label/mean"] == pytest.approx(0.236226, abs=1e-5)


def test_a_missing_data_file_is_one_clear_line(tmp_path: Path) -> None:
    done = run(
        EXAMPLES / "census.py", "--train", tmp_path / "nowhere", "--test", tmp_path / "no",
        "--model_dir", tmp_path / "m",
        code=1,
    )  # fmt: skip
    assert done.stderr.strip() == f"census.py: there is no data file {tmp_path / 'nowhere'}"
