"""Makes psys's own log lines visible where the program did not set up logging itself."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    _Handler = logging.StreamHandler[TextIO]
else:
    _Handler = logging.StreamHandler  # no generic class at run time before Python 3.11


class _StderrHandler(_Handler):
    """Writes to whatever ``sys.stderr`` is at the moment: a progress bar puts itself there."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def show_log_lines() -> None:
    """Send psys's INFO lines to stderr, unless logging is configured already."""
    logger = logging.getLogger("psys")
    if logger.handlers or logging.getLogger().handlers:
        return
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
