"""verdict.json: how a job ended, on disk before anyone is told.

Written once, create-if-absent: the second writer finds the first's. A chief that has work to
do puts an old one aside before it begins.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

from psys.checkpoint.storage import FileStorage
from psys.errors import CheckpointNotFound
from psys.ps.messages import Verdict

logger = logging.getLogger("psys")

VERDICT = "verdict.json"


def keep_verdict(model_dir: str, verdict: Verdict, job_id: str, copy_to: str | None) -> None:
    """Write the verdict below ``model_dir``, and where a launcher wants a copy.

    Args:
        model_dir: the job's.
        verdict: how it ended.
        job_id: of this run.
        copy_to: the launcher's file, or None.
    """
    document = {
        "verdict": "FINISHED" if verdict.finished else "FAILED",
        "reason": verdict.reason,
        "global_step": verdict.global_step,
        "checkpoint": verdict.checkpoint or None,
        "export": verdict.export or None,
        "evaluated": verdict.evaluated,
        "job_id": job_id,
        "ended_unix_secs": time.time(),
    }
    text = (json.dumps(document, indent=1) + "\n").encode()
    try:
        FileStorage(model_dir).write_once(VERDICT, text)
    except OSError as error:
        # The verdict is still told to everyone; an unwritable model_dir may be its reason.
        logger.warning("The verdict could not be written: %s", error)
    if copy_to is not None:
        target = Path(copy_to)
        FileStorage(str(target.parent)).write_once(target.name, text)


def read_verdict(model_dir: str, since_unix_secs: float = 0.0) -> Verdict | None:
    """Return the verdict on disk, unless it is older; None if there is none to be read."""
    try:
        document = json.loads(FileStorage(model_dir).read(VERDICT))
        if float(document["ended_unix_secs"]) < since_unix_secs:
            return None
        return Verdict(
            finished=document["verdict"] == "FINISHED",
            reason=str(document.get("reason") or ""),
            global_step=int(document["global_step"]),
            checkpoint=document.get("checkpoint") or "",
            export=document.get("export") or "",
            evaluated=bool(document.get("evaluated")),
        )
    except (CheckpointNotFound, OSError, ValueError, KeyError, TypeError):
        return None


def put_aside_verdict(model_dir: str) -> None:
    """Rename an earlier run's verdict, so that nobody takes it for this run's."""
    path = FileStorage(model_dir).path(VERDICT)
    if os.path.exists(path):
        os.rename(path, f"{path}.{time.time_ns()}")
