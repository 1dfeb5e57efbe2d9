"""``psys status HOST:PORT``: what the lead of a running job says about it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from psys.arrays import PlannedSlice
from psys.environment import job_token
from psys.errors import ConfigError
from psys.rpc.remote_cluster import fetch_status
from psys.sharding import describe
from psys.table import format_table

_TASKS = ("TASK", "STANDING", "PHASE", "MEMBER")
_CHECKPOINTS = ("STEP", "ID", "PATH")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``status`` to the commands of ``psys``."""
    parser = commands.add_parser(
        "status",
        help="show what the lead (ps 0) at HOST:PORT knows of the job",
        description="Show what the lead (ps 0; the chief where there is no ps) knows of the job.",
        allow_abbrev=False,
    )
    parser.add_argument("address", metavar="HOST:PORT", help="the lead's address")
    parser.add_argument("--json", action="store_true", help="print it as one JSON object")
    parser.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Print the status and return 0.

    Raises:
        ConfigError: if the address has no port.
        ShardUnavailable: nobody answers at that address.
    """
    if not options.address.rpartition(":")[2].isdecimal():
        raise ConfigError(f"The lead's address is HOST:PORT, got {options.address!r}.")
    status = fetch_status(options.address, job_token())
    if options.json:
        print(json.dumps(status, default=str))
    else:
        print("\n".join(format_status(status)))
    return 0


def format_status(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines: how far the job is, its tasks, what is on which ps, its checkpoints."""
    steps = f"{status['global_step']}"
    if status["max_steps"]:
        steps += f" of {status['max_steps']}"
    facts = [
        ("job", status["job"]),
        ("global step", steps),
        ("waiting for", status["waiting_for"] or "nobody"),
        ("generation", status["generation"] or "none is live"),
    ]
    yield from format_table(facts)
    yield ""
    tasks = sorted(status["tasks"], key=lambda one: _place(one["task"]))
    yield from format_table([_TASKS, *(_task_row(one) for one in tasks)])
    yield ""
    if status["plan"]:
        plan = [
            PlannedSlice(one["variable"], one["start"], one["stop"], one["shard"], one["bytes"])
            for one in status["plan"]
        ]
        yield from describe(plan, status["holders"])
        yield ""
    checkpoints = status["checkpoints"]
    if not checkpoints:
        yield "no checkpoints"
        return
    rows = [(str(one["global_step"]), one["checkpoint_id"], one["path"]) for one in checkpoints]
    yield from format_table([_CHECKPOINTS, *rows])


def _task_row(task: Mapping[str, Any]) -> tuple[str, ...]:
    seen = task["standing"] != "never seen"
    phase = task["phase"].replace("_", " ") if seen else "-"
    return task["task"], task["standing"], phase, str(task["member"] or "-")


def _place(task: str) -> tuple[str, int]:
    """Return what sorts ``ps:10`` behind ``ps:9``."""
    kind, _, index = task.partition(":")
    return kind, int(index or 0)
