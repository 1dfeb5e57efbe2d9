"""The ``psys`` program: finds the command, runs it, and turns errors into one line each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from psys import __version__
from psys.cli import checkpoints, health, ps, run, status
from psys.errors import ConfigError, PsysError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name and return the exit code.

    Args:
        argv: the arguments without the program's name; None means this process's.

    Returns:
        0 when done; 1 when it failed; 2 when it was asked for wrongly.
    """
    parser = make_parser()
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(f"{options.command} has no option {unknown[0]}; see psys {options.command} -h")
    handler: Callable[[argparse.Namespace], int] = options.handler
    try:
        return handler(options)
    except PsysError as error:
        print(f"psys {options.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:
        # Whoever read our output has seen enough (`psys checkpoints DIR | head`).
        sys.stderr.close()
        return 1


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="psys",
        description="A parameter-server system with the tf.estimator API.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run.add_parser(commands)
    ps.add_parser(commands)
    checkpoints.add_parser(commands)
    status.add_parser(commands)
    health.add_parser(commands)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(handler=print_version)
    return parser


def print_version(options: argparse.Namespace) -> int:
    """Print the version of psys."""
    del options
    print(__version__)
    return 0
