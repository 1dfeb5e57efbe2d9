"""Makes psys's own log lines visible where the program did not set up logging itself."""

from __future__ import annotations

import logging
import sys


def show_log_lines() -> None:
    """Send psys's INFO lines to stderr, unless logging is configured already."""
    logger = logging.getLogger("psys")
    if logger.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
