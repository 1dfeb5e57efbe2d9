from __future__ import annotations

from psys.cli.status import format_status


def test_a_nested_status_is_printed_line_by_line() -> None:
    status = {
        "state": "running",
        "global_step": 12,
        "max_steps": None,
        "saving": False,
        "tasks": [{"task": "chief", "state": "live"}, {"task": "worker:0", "state": "lost"}],
        "grants": {"chief": 13},
        "waiting": [],
    }
    assert list(format_status(status)) == [
        "state: running",
        "global_step: 12",
        "max_steps: none",
        "saving: no",
        "tasks:",
        "  - task chief, state live",
        "  - task worker:0, state lost",
        "grants:",
        "  chief: 13",
        "waiting: none",
    ]
