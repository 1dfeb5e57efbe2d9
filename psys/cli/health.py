"""``psys health HOST:PORT``: whether a ps (or any role that serves) answers; for health checks."""

from __future__ import annotations

import argparse

from psys.rpc.health import check


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``health`` to the commands of ``psys``."""
    parser = commands.add_parser(
        "health",
        help="exit with 0 if the task at HOST:PORT serves",
        description="Ask the gRPC health service at HOST:PORT; exit with 0 if it is SERVING.",
        allow_abbrev=False,
    )
    parser.add_argument("address", metavar="HOST:PORT")
    parser.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Print SERVING and return 0, or NOT SERVING and return 1."""
    serving = check(options.address)
    print(f"{options.address}: {'SERVING' if serving else 'NOT SERVING'}")
    return 0 if serving else 1
