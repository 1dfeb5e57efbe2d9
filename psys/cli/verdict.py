"""How a launched job ended: read from the file its roles write, told in one line.

The role that concludes the job writes the file atomically, at the path the launcher names in
its environment. This module never decides a verdict; without the file the launcher does, from
the exit codes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FINISHED = "FINISHED"
FAILED = "FAILED"


@dataclass(frozen=True)
class JobVerdict:
    """The one end of a job.

    Attributes:
        verdict: ``FINISHED`` or ``FAILED``.
        reason: why it failed; empty when finished.
        global_step: the final global step; None where no model came to be.
        checkpoint: path of the final checkpoint, None without one.
        export: path of the final export, None without one.
    """

    verdict: str
    reason: str = ""
    global_step: int | None = None
    checkpoint: str | None = None
    export: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the job did all it was asked to do."""
        return self.verdict == FINISHED

    def line(self) -> str:
        """Return the last line of ``psys run``; scripts read it, so its form is fixed."""
        if not self.finished:
            return f"psys: FAILED reason={one_line(self.reason) or 'unknown'}"
        step = 0 if self.global_step is None else self.global_step
        return (
            f"psys: FINISHED step={step} checkpoint={self.checkpoint or 'none'} "
            f"export={self.export or 'none'}"
        )


def read_verdict(path: Path) -> JobVerdict | None:
    """Read a verdict file; None while there is none.

    A file that cannot be understood is a FAILED verdict that says so.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        fields: Any = json.loads(text)
        verdict = fields["verdict"]
        if verdict not in (FINISHED, FAILED):
            raise ValueError(f"verdict is {verdict!r}, expected {FINISHED} or {FAILED}")
        return JobVerdict(
            verdict=verdict,
            reason=str(fields.get("reason") or ""),
            global_step=fields.get("global_step"),
            checkpoint=fields.get("checkpoint"),
            export=fields.get("export"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return JobVerdict(FAILED, f"verdict file {path} cannot be read: {error}")


def one_line(text: str) -> str:
    """Fold a message of several lines into one."""
    return " ".join(text.split())
