"""``psys run``: one program as a whole cluster on this machine.

Chooses ports, makes TF_CONFIG, hands the rest to ``LocalCluster`` and turns the verdict into
the last line of stdout and the exit code. The launcher's own remarks go to stderr.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from psys.cli.launch import Launch
from psys.cli.launcher import LocalCluster
from psys.cli.output import Console
from psys.cli.ports import LOOPBACK, PortReservation
from psys.cli.verdict import FAILED, JobVerdict
from psys.cluster import CHIEF, EVALUATOR, PS, WORKER
from psys.environment import interactive_wishes, job_token
from psys.errors import ConfigError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``run`` to the commands of ``psys``."""
    parser = commands.add_parser(
        "run",
        help="run a script as a local cluster: chief, workers, ps, evaluator",
        description=(
            "Run SCRIPT as every role of a cluster on this machine, each its own process with its "
            "own TF_CONFIG. The exit code is 0 only if the job FINISHED."
        ),
        usage="psys run [--ps N] [--workers N] [--evaluator] [--log-dir DIR] "
        "[--timeout-secs SECS] SCRIPT [ARGS...]",
        allow_abbrev=False,
    )
    parser.add_argument("--ps", type=_count, default=1, metavar="N", help="ps tasks (1)")
    parser.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="workers beside the chief (1)"
    )
    parser.add_argument(
        "--evaluator", action="store_true", help="start an evaluator; the job ends after it"
    )
    parser.add_argument(
        "--log-dir",
        type=Path,
        metavar="DIR",
        help="one log file per role (a temporary directory, kept if the job FAILED)",
    )
    parser.add_argument(
        "--timeout-secs", type=_seconds, metavar="SECS", help="end the job after so long (never)"
    )
    parser.add_argument("script", metavar="SCRIPT", help="a program that calls train_and_evaluate")
    rest = parser.add_argument(
        "args", nargs=argparse.REMAINDER, metavar="ARGS", help="handed to every role unchanged"
    )
    rest.required = False  # or argparse's message asks for ARGS where only SCRIPT is missing
    parser.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Launch the cluster and return the exit code.

    Raises:
        ConfigError: there is no such script, or the log directory cannot be made.
    """
    _check_script(options.script)
    for argument in options.args:
        if argument.partition("=")[0] in ("--ps", "--workers", "--evaluator", "--log-dir"):
            _say(f"{argument} stands after SCRIPT and is given to it; psys run's own go before")
    log_dir = _make_log_dir(options.log_dir)
    colour = interactive_wishes()
    console = Console(sys.stdout, sys.stdout.isatty() if colour is None else colour)
    counts = {
        CHIEF: 1,
        WORKER: options.workers,
        PS: options.ps,
        EVALUATOR: int(options.evaluator),
    }
    # The ports are held until the last role has ended: nobody else is given one of them.
    with PortReservation(sum(counts.values())) as reservation:
        cluster = make_cluster(counts, reservation.ports)
        _say(f"TF_CONFIG {json.dumps({'cluster': cluster})}")
        _say(f"logs in {log_dir}")
        token = job_token() or _make_token(log_dir)
        launch = Launch(
            command=[options.script, *options.args],
            cluster=cluster,
            log_dir=log_dir,
            environment={"PSYS_JOB_TOKEN": token, "PSYS_JOB_ID": secrets.token_hex(6)},
            timeout_secs=options.timeout_secs,
        )
        local = LocalCluster(launch, console, _say)
        with _signals_to(local) as received:
            verdict = _run(local)
    if options.log_dir is not None or not verdict.finished:
        _say(f"logs are kept in {log_dir}")
    else:
        shutil.rmtree(log_dir, ignore_errors=True)
    console.write(verdict.line())
    if verdict.finished:
        return 0
    return 128 + received[0] if received else 1


def make_cluster(counts: dict[str, int], ports: tuple[int, ...]) -> dict[str, list[str]]:
    """Return addresses by task type, leaving out types with no task.

    ``make_cluster({"chief": 1, "ps": 2}, (7001, 7002, 7003))`` is
    ``{"chief": ["127.0.0.1:7001"], "ps": ["127.0.0.1:7002", "127.0.0.1:7003"]}``.
    """
    addresses = iter([f"{LOOPBACK}:{port}" for port in ports])
    return {
        kind: [next(addresses) for _ in range(count)] for kind, count in counts.items() if count
    }


def _run(local: LocalCluster) -> JobVerdict:
    try:
        return local.run()
    except OSError as error:
        return JobVerdict(FAILED, f"cannot start the cluster: {error}")


@contextmanager
def _signals_to(local: LocalCluster) -> Iterator[list[int]]:
    """Pass Ctrl-C, SIGTERM and a closed terminal on to the cluster; yield those received."""
    received: list[int] = []

    def on_signal(signum: int, frame: FrameType | None) -> None:
        del frame
        received.append(signum)
        local.interrupt(signum)

    previous = {}
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Under nohup a closed terminal is meant to change nothing.
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
            previous[signum] = signal.signal(signum, on_signal)
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _check_script(script: str) -> None:
    if script.startswith("-"):
        raise ConfigError(f"unknown option {script}; see psys run --help")
    if not Path(script).is_file():
        raise ConfigError(f"SCRIPT must be a Python file, but there is no file {script!r}")


def _make_log_dir(log_dir: Path | None) -> Path:
    if log_dir is None:
        return Path(tempfile.mkdtemp(prefix="psys-run-"))
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--log-dir must name a directory to write to: {error}") from error
    return log_dir.resolve()


def _make_token(log_dir: Path) -> str:
    """Return a new secret, kept beside the logs for ``psys status`` and for its owner only."""
    token, path = secrets.token_urlsafe(24), log_dir / "job-token"
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(token)
    quoted = shlex.quote(str(path))
    _say(f"for psys status and checkpoints HOST:PORT: export PSYS_JOB_TOKEN=$(cat {quoted})")
    return token


def _say(line: str) -> None:
    print(f"psys: {line}", file=sys.stderr, flush=True)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of tasks, 0 or more, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, got {text!r}")
    return seconds
