"""``psys status HOST:PORT``: what the lead of a running job says about it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping

from psys.environment import job_token
from psys.rpc.remote_cluster import fetch_status


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
        ShardUnavailable: nobody answers at that address.
    """
    status = fetch_status(options.address, job_token())
    if options.json:
        print(json.dumps(status, default=str))
    else:
        print("\n".join(format_status(status)))
    return 0


def format_status(status: object, indent: str = "") -> Iterator[str]:
    """Yield the lines of a nested status, outer names before inner ones."""
    if isinstance(status, Mapping):
        for name, value in status.items():
            if isinstance(value, (Mapping, list, tuple)) and value:
                yield f"{indent}{name}:"
                yield from format_status(value, indent + "  ")
            else:
                yield f"{indent}{name}: {_word(value)}"
    elif isinstance(status, (list, tuple)):
        for value in status:
            if isinstance(value, Mapping):
                fields = ", ".join(f"{name} {_word(inner)}" for name, inner in value.items())
                yield f"{indent}- {fields}"
            else:
                yield f"{indent}- {_word(value)}"
    else:
        yield f"{indent}{_word(status)}"


def _word(value: object) -> str:
    if value is None or value in ({}, [], (), ""):
        return "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
