"""``psys ps``: a ps without a script, for models whose optimizers are psys's own.

The same role as in a program that calls ``train_and_evaluate``; it imports no code of anyone's.
"""

from __future__ import annotations

import argparse
from dataclasses import fields

from psys.cluster import PS
from psys.errors import ConfigError
from psys.estimator.run_config import RunConfig
from psys.roles import ps
from psys.train.log import show_log_lines

_WAITS = {
    "start_timeout_secs": "ps 0: how long to wait for the other tasks",
    "recover_secs": "how long a lost chief or ps may take to come back",
    "linger_secs": "ps 0: how long to stay for tasks that have not heard the verdict",
}
INTERRUPTED = 130


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``ps`` to the commands of ``psys``."""
    parser = commands.add_parser(
        "ps",
        help="be a ps of the cluster TF_CONFIG names, without a script",
        description=(
            "Be the ps that TF_CONFIG names as this task, until the job has ended; the exit code "
            "is 0 only if it FINISHED. It runs no program, so the optimizers and schedules of the "
            "job must be psys's own."
        ),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model_dir",
        "--model-dir",
        metavar="DIR",
        help="where its files go; TF_CONFIG may name it instead",
    )
    defaults = {one.name: one.default for one in fields(RunConfig)}
    for name, what in _WAITS.items():
        parser.add_argument(
            f"--{name}",
            f"--{name.replace('_', '-')}",
            type=float,
            default=defaults[name],
            metavar="SECS",
            help=f"{what} ({defaults[name]})",
        )
    parser.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Be the ps and return 0, or 130 after Ctrl-C.

    Raises:
        ConfigError: TF_CONFIG names no ps, an option is not legal, or the address cannot be bound.
        SystemExit: 1 if the job failed, 143 after SIGTERM.
    """
    config = RunConfig(
        model_dir=options.model_dir, **{name: getattr(options, name) for name in _WAITS}
    )
    task = config.cluster_config.task
    if config.cluster_config.cluster is None:
        raise ConfigError(
            "TF_CONFIG must name the cluster and this process as one of its ps; it names none."
        )
    if task.type != PS:
        raise ConfigError(
            f"TF_CONFIG must name this process as a ps, got the task {task}: start that with the "
            "job's program."
        )
    if config.model_dir is None:
        raise ConfigError(f"--model_dir must say where the files of {task} go; it is not given.")
    show_log_lines()
    try:
        ps.run(config, None, without_script=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
