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
from typing import Any

from psys.checkpoint.storage import UNWRITABLE, FileStorage
from psys.errors import CheckpointNotFound
from psys.ps.job import EndedRun
from psys.ps.messages import Verdict

logger = logging.getLogger("psys")

VERDICT = "verdict.json"
RUN = "run.json"


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
        # The verdict is still told to everyone, in one line where this is its very reason.
        if f"{UNWRITABLE}{os.path.abspath(model_dir)} " not in verdict.reason:
            logger.warning(
                "The verdict could not be written below %s: %s", model_dir, error.strerror or error
            )
    if copy_to is not None:
        target = Path(copy_to)
        FileStorage(str(target.parent)).write_once(target.name, text)


def read_ended(model_dir: str) -> EndedRun | None:
    """Return the run whose verdict is on disk, and the verdict; None if none can be read."""
    document = _read(model_dir, VERDICT)
    return None if document is None else (str(document.get("job_id") or ""), _verdict(document))


def read_verdict(model_dir: str, since_unix_secs: float = 0.0) -> Verdict | None:
    """Return the verdict on disk, unless it is older; None if there is none to be read."""
    document = _read(model_dir, VERDICT)
    if document is None or float(document["ended_unix_secs"]) < since_unix_secs:
        return None
    return _verdict(document)


def keep_run(model_dir: str, job_id: str) -> None:
    """Put the id of the run under way on disk: a chief that is restarted goes on with it."""
    text = json.dumps({"job_id": job_id}) + "\n"
    try:
        FileStorage(model_dir).write(RUN, text.encode())
    except OSError as error:
        # The job can go on; an unwritable model_dir fails its first checkpoint, and says so.
        logger.warning("The run could not be noted below %s: %s", model_dir, error)


def unended_run(model_dir: str) -> str:
    """Return the run under way when this chief's predecessor ended; '' if there was none."""
    try:
        run = str(json.loads(FileStorage(model_dir).read(RUN))["job_id"])
        names = [one for one in os.listdir(model_dir) if one.startswith(VERDICT)]
    except (CheckpointNotFound, OSError, ValueError, KeyError, TypeError):
        return ""
    documents = [_read(model_dir, name) for name in names]
    ended = {str(one.get("job_id") or "") for one in documents if one is not None}
    return "" if run in ended else run


def _read(model_dir: str, name: str) -> dict[str, Any] | None:
    """Return a verdict file's document, None if it is absent or not one."""
    try:
        document = json.loads(FileStorage(model_dir).read(name))
        float(document["ended_unix_secs"])
        _verdict(document)
    except (CheckpointNotFound, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(document)


def _verdict(document: dict[str, Any]) -> Verdict:
    return Verdict(
        finished=document["verdict"] == "FINISHED",
        reason=str(document.get("reason") or ""),
        global_step=int(document["global_step"]),
        checkpoint=document.get("checkpoint") or "",
        export=document.get("export") or "",
        evaluated=bool(document.get("evaluated")),
    )


def put_aside_verdict(model_dir: str) -> None:
    """Rename an earlier run's verdict, so that nobody takes it for this run's."""
    path = FileStorage(model_dir).path(VERDICT)
    if os.path.exists(path):
        os.rename(path, f"{path}.{time.time_ns()}")
