"""Small jobs through ``psys run``, one after another: each ends well and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import PROGRAM, check_model


def run_one(model_dir: Path) -> None:
    command = [sys.executable, "-m", "psys", "run", "--ps", "2", "--workers", "1", "--evaluator"]
    program = [str(PROGRAM), "--model_dir", str(model_dir), "--max_steps", "60"]
    done = subprocess.run(
        [*command, "--log-dir", str(model_dir / "logs"), *program],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"psys: FINISHED step=60 checkpoint=\S+ export=/\S+", last)
    assert "still running" not in done.stderr
    assert "though the job finished" not in done.stderr
    assert done.stdout.count("] DONE\n") == 5  # every role came to its end by itself
    check_model(model_dir, 60)

    pids = re.findall(r"\] PID (\d+)$", done.stdout, re.MULTILINE)
    assert len(pids) == 5
    assert not [pid for pid in pids if Path("/proc", pid).exists()]
    found = re.search(r"TF_CONFIG (\{.*\})", done.stderr)
    assert found is not None
    for addresses in json.loads(found[1])["cluster"].values():
        for address in addresses:
            host, _, port = address.rpartition(":")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(port)))


@pytest.mark.chaos
def test_3_jobs_in_a_row_end_well_and_leave_nothing_behind(tmp_path: Path) -> None:
    for number in range(3):
        run_one(tmp_path / str(number))


@pytest.mark.chaos
def test_20_jobs_in_a_row_end_well_and_leave_nothing_behind(tmp_path: Path) -> None:
    for number in range(20):
        run_one(tmp_path / str(number))


def test_nobody_waits_for_a_killed_worker_to_hear_the_verdict(tmp_path: Path) -> None:
    """ps 0 would stay for it longer than a test may take."""
    command = [sys.executable, "-m", "psys", "run", "--log-dir", str(tmp_path / "logs")]
    go = tmp_path / "go"
    program = [str(PROGRAM), "--model_dir", str(tmp_path / "model"), "--hold", f"5:{go}"]
    program += ["--max_steps", "30"]
    with subprocess.Popen(
        [*command, "--workers", "1", *program, "--linger_secs", "600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as job:
        assert job.stdout is not None
        lines: list[str] = []
        pid = 0
        for line in job.stdout:
            lines.append(line)
            if found := re.match(r"\[worker 0\] PID (\d+)", line):
                pid = int(found[1])
            if re.match(r"\[worker 0\] STEP", line):
                break
        os.kill(pid, signal.SIGKILL)
        for line in job.stdout:
            lines.append(line)
            if "worker 0 was killed" in line:
                break
        go.touch()
        lines += job.stdout
    assert job.returncode == 0, "".join(lines)
    assert lines[-1].startswith("psys: FINISHED step=30 ")
    assert "though the job finished" not in "".join(lines)
    assert "still running" not in "".join(lines)
