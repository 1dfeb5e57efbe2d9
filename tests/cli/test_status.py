from __future__ import annotations

from typing import Any

from psys.cli.status import format_status


def test_a_status_is_a_table_of_tasks_one_of_the_plan_and_one_of_checkpoints() -> None:
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
        "plan": [
            {"variable": "bias", "start": 0, "stop": 9, "shard": 1, "bytes": 36},
            {"variable": "kernel", "start": 0, "stop": 300, "shard": 1, "bytes": 1200},
            {"variable": "kernel", "start": 300, "stop": 500, "shard": 0, "bytes": 800},
        ],
        "holders": ["ps:0", "ps:1"],
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

VARIABLE  BYTES  ROWS
bias      36     0-9 on ps:1
kernel    2,000  0-300 on ps:1, 300-500 on ps:0

TASK  SLICES  BYTES  OF THE MEAN
ps:0  1       800    79 %
ps:1  2       1,236  121 %

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
        "plan": [],
        "holders": ["ps:0"],
        "checkpoints": [],
    }
    lines = list(format_status(status))
    assert lines[1:4] == ["global step  0", "waiting for  chief", "generation   none is live"]
    assert lines[-1] == "no checkpoints"
