"""The environment: every variable psys reads, and the environment of the processes it starts.

It is the only module that reads it: ``ENVIRONMENT`` lists every variable.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psys.errors import ConfigError

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

ENVIRONMENT: Mapping[str, str] = {
    "TF_CONFIG": "the cluster and this process's task, as JSON; unset or {} means no cluster",
    "TF_CONFIG_FILE": "a file holding that JSON; read only where TF_CONFIG is not set",
    "PSYS_JOB_TOKEN": "a secret every call of the job must carry; unset or empty means none",
    "PSYS_JOB_ID": "a name of this run of the job, the same for all its tasks, new for each run",
    "PSYS_TRACEBACK": "not empty: an error of psys's own is shown with its traceback",
    "PSYS_VERDICT_FILE": "where the job's verdict is also written, for the launcher to read",
    "PSYS_SHM_DIR": "where containers of one host meet to share memory; none: never share it",
    "NO_COLOR": "not empty: never write colours to the terminal",
    "FORCE_COLOR": "not empty: write colours even where the output is no terminal",
    **dict.fromkeys(THREAD_VARIABLES, "numeric threads; psys run sets it where it is unset"),
}
"""Every environment variable psys reads, and what it means. There are no others."""


def tf_config_text() -> tuple[str, str] | None:
    """Return TF_CONFIG, or what the file holds that TF_CONFIG_FILE names, and which it was.

    Returns:
        (text, source), or None without either variable.

    Raises:
        ConfigError: if the file cannot be read.
    """
    text, path = os.environ.get("TF_CONFIG"), os.environ.get("TF_CONFIG_FILE")
    if text is not None:
        return text, "TF_CONFIG"
    if path is None:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"TF_CONFIG_FILE must name a text file, got {path!r}: {error}."
        ) from error
    return text, f"TF_CONFIG_FILE {path}"


def job_token() -> str | None:
    """Return the secret every call of this job carries (PSYS_JOB_TOKEN), None without one."""
    token = os.environ.get("PSYS_JOB_TOKEN", "").strip()
    if not re.fullmatch(r"[\x20-\x7e]*", token):
        raise ConfigError("PSYS_JOB_TOKEN must be printable ASCII, to fit a header; it is not.")
    return token or None


def job_id() -> str:
    """Return the name of this run (PSYS_JOB_ID), '' where the lead shall find one."""
    given = os.environ.get("PSYS_JOB_ID", "").strip()
    if not re.fullmatch(r"[A-Za-z0-9._:-]{0,64}", given):
        raise ConfigError(
            f"PSYS_JOB_ID must be at most 64 letters, digits and . _ : -, got {given!r}."
        )
    return given


def shared_memory_place() -> str:
    """Return where containers of one host meet (PSYS_SHM_DIR), "none" to share no memory."""
    return os.environ.get("PSYS_SHM_DIR", "")


def verdict_file() -> str | None:
    """Return where the launcher wants the verdict (PSYS_VERDICT_FILE), None without one."""
    return os.environ.get("PSYS_VERDICT_FILE") or None


def wants_tracebacks() -> bool:
    """Return whether psys's own errors are to show where they were raised (PSYS_TRACEBACK)."""
    return bool(os.environ.get("PSYS_TRACEBACK"))


def numeric_threads() -> int | None:
    """Return how many threads the numeric libraries were given, None if nobody said."""
    said = next((value for name in THREAD_VARIABLES if (value := os.environ.get(name))), "")
    return int(said) if said.isdecimal() else None


def child_environment(
    tf_config: Mapping[str, Any], extra: Mapping[str, str] | None = None, threads: int = 1
) -> dict[str, str]:
    """Return the environment of a process launched as one task of a cluster.

    Args:
        tf_config: becomes its TF_CONFIG.
        extra: set last, over everything else.
        threads: of the numeric libraries, where the user has not said: else each process on
            this machine starts as many as there are cores.
    """
    environment = dict(os.environ)
    environment.pop("TF_CONFIG_FILE", None)
    for name in THREAD_VARIABLES:
        environment.setdefault(name, str(threads))
    environment["PYTHONUNBUFFERED"] = "1"
    environment["TF_CONFIG"] = json.dumps(tf_config)
    return {**environment, **(extra or {})}


def interactive_wishes() -> bool | None:
    """Return whether to write colours: NO_COLOR False, FORCE_COLOR True, None: if a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR") else None
