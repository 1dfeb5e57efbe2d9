"""A worker in a process of its own that fails and ends at once: ``leaver.py ADDRESS``."""

from __future__ import annotations

import sys

from psys.attendance import Attendance
from psys.ps.messages import Report, TaskPhase
from psys.rpc.remote_cluster import RemoteLink


def main(address: str) -> None:
    attendance = Attendance(Report("worker:0", "leaver", 0), RemoteLink(address), 20.0, 20.0)
    attendance.begin()
    attendance.wait_for(lambda one: one.revision >= 0, "the lead", 20)
    attendance.update(phase=TaskPhase.FAILED, reason="ValueError: the last words")
    attendance.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
