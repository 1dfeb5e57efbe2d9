"""The launcher's last will: a small process that ends the roles should the launcher be killed.

The launcher writes ``+GROUP`` on the guard's stdin when it started a process group and
``-GROUP`` when that group is gone. The pipe closes when the launcher ends, however it ends
(``kill -9`` included); whatever is still on the list then gets SIGTERM, and SIGKILL after
``TERMINATE_SECS``. Run by path with ``-I -S``, so it imports nothing of psys and starts in
milliseconds. It never outlives its work, and prints nothing: nobody is left to read it.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TERMINATE_SECS = 8.0
_POLL_SECS = 0.05


def main() -> None:
    """Read the list until the launcher is gone, then end what is left of it."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    end_groups(groups)


def end_groups(groups: set[int]) -> None:
    """Send SIGTERM to process groups and, to those that stay, SIGKILL."""
    for group in groups:
        send_to_group(group, signal.SIGTERM)
    give_up = time.monotonic() + TERMINATE_SECS
    while groups and time.monotonic() < give_up:
        groups = {group for group in groups if send_to_group(group, 0)}
        time.sleep(_POLL_SECS)  # they are not our children: there is no event to wait for
    for group in groups:
        send_to_group(group, signal.SIGKILL)


def send_to_group(group: int, signum: int) -> bool:
    """Send a signal to a process group; False when nobody is in it any more."""
    try:
        os.killpg(group, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
