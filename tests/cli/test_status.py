from __future__ import annotations

from typing import Any

from psys.cli.status import format_status


def test_a_status_is_a_table_of_tasks_and_one_of_checkpoints() -> None:
    status: dict[str, Any] = {
        "job": "running",
        "generation": "g1",
        "global_step": 12,
        "max_steps": 100,
        "waiting_for": "",
        "tasks": [
            {"task": "ps:0", "standing": "live", "phase": "working", "member": 0},
            {"task": "chief", "standing": "live", "phase": "input_ended", "member": 3},
            {"task": "worker:10", "standing": "never seen", "phase": "unspecified", "member": 0},
            {"task": "worker:9", "standing": "lost", "phase": "working", "member": 2},
        ],
        "checkpoints": [{"checkpoint_id": "a1", "global_step": 10, "path": "/m/model-10-a1"}],
    }
    assert (
        "\n".join(format_status(status))
        == """\
job          running
global step  12 of 100
waiting for  nobody
generation   g1

TASK       STANDING    PHASE        MEMBER
chief      live        input ended  3
ps:0       live        working      -
worker:9   lost        working      2
worker:10  never seen  -            -

STEP  ID  PATH
10    a1  /m/model-10-a1"""
    )


def test_a_job_that_waits_says_for_whom() -> None:
    status: dict[str, Any] = {
        "job": "waiting",
        "generation": "",
        "global_step": 0,
        "max_steps": 0,
        "waiting_for": "chief",
        "tasks": [{"task": "ps:0", "standing": "live", "phase": "working", "member": 0}],
        "checkpoints": [],
    }
    lines = list(format_status(status))
    assert lines[1:4] == ["global step  0", "waiting for  chief", "generation   none is live"]
    assert lines[-1] == "no checkpoints"
