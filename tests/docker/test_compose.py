"""The Compose cluster, built and brought up for real: ``pytest -m docker``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CENSUS = Path(os.environ.get("PSYS_CENSUS_DIR", ROOT.parent / "shared" / "data" / "census"))
ROLES = ("chief", "worker0", "ps0", "ps1", "evaluator")

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (CENSUS / "adult.data").is_file(), reason=f"no census data in {CENSUS}"),
]


def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    return subprocess.run(
        [*command, "-f", str(ROOT / "docker" / "compose.yaml"), *arguments],
        env={**os.environ, "PSYS_CENSUS_DIR": str(CENSUS)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_census_cluster_comes_up_and_down_by_itself() -> None:
    wheels = ROOT / "build" / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels), str(ROOT)]
    subprocess.run(pip, check=True)
    try:
        compose("down", "--volumes")
        up = compose("up", "--build")
        assert up.returncode == 0, up.stdout[-4000:] + up.stderr[-4000:]
        for role in ROLES:
            container = compose("ps", "--quiet", role).stdout.strip()
            if not container:  # Compose 2 lists ended containers only when asked
                container = compose("ps", "--all", "--quiet", role).stdout.strip()
            inspected = subprocess.run(
                ["docker", "inspect", container], capture_output=True, text=True, check=True
            )
            state = json.loads(inspected.stdout)[0]
            assert state["State"]["ExitCode"] == 0, role
            assert state["Config"]["User"] == "psys", role
        assert "FINISHED at step 5087" in up.stdout
    finally:
        compose("down", "--volumes")
        shutil.rmtree(wheels, ignore_errors=True)
