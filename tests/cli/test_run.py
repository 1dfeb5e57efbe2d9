from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from psys.cluster import parse_tf_config

WriteScript = Callable[[str], Path]
Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

SHOW = """
print(json.dumps({
    "config": CONFIG, "args": sys.argv[1:], "token": os.environ["PSYS_JOB_TOKEN"],
    "threads": os.environ["OMP_NUM_THREADS"], "group": os.getpgid(0) == os.getpid(),
}))
"""
FINISH = """
if KIND == "chief":
    conclude(verdict="FINISHED", reason="", global_step=20, checkpoint="m/c", export=None)
"""
READY_AND_HANG = """
child = subprocess.Popen(["sleep", "1000"])
print(f"pids {os.getpid()} {child.pid}")
hang()
"""


def shown(stdout: str) -> dict[str, dict[str, Any]]:
    """Return what each role of the SHOW program said, by the prefix of its line."""
    lines = [line for line in stdout.splitlines() if line.startswith("[")]
    return {line[1 : line.index("]")]: json.loads(line[line.index("]") + 1 :]) for line in lines}


def read_pids(process: subprocess.Popen[str], roles: int) -> list[int]:
    """Read until so many roles of the READY_AND_HANG program have said who they are."""
    assert process.stdout is not None
    pids: list[int] = []
    while len(pids) < 2 * roles:
        line = process.stdout.readline()
        assert line, "psys ended early"
        pids += [int(word) for word in line.split()[-2:]]
    return pids


def test_every_role_is_a_process_with_its_own_tf_config(
    write_script: WriteScript, run_psys: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    script = write_script(SHOW)
    result = run_psys(
        "run", "--ps", 2, "--workers", 1, "--evaluator", "--log-dir", tmp_path / "logs",
        script, "--ps", "9", "x y",
    )  # fmt: skip
    roles = shown(result.stdout)
    assert sorted(roles) == ["chief", "evaluator", "ps 0", "ps 1", "worker 0"]
    for name, said in roles.items():
        task = parse_tf_config(json.dumps(said["config"])).task
        assert str(task).replace(":", " ") == name
        assert said["args"] == ["--ps", "9", "x y"]
        assert said["threads"] == "1"
        assert said["group"]
        log = tmp_path / "logs" / f"{name.replace(' ', '-')}.log"
        assert json.loads(log.read_text()) == said
    assert len({said["token"] for said in roles.values()}) == 1
    printed = next(line for line in result.stderr.splitlines() if "TF_CONFIG" in line)
    cluster = roles["chief"]["config"]["cluster"]
    assert json.loads(printed.removeprefix("psys: TF_CONFIG ")) == {"cluster": cluster}
    addresses = [address for job in cluster.values() for address in job]
    assert len(set(addresses)) == 5


def test_a_lone_chief_is_a_cluster_without_ps(write_script: WriteScript, run_psys: Run) -> None:
    result = run_psys("run", "--ps", 0, "--workers", 0, write_script(SHOW + FINISH))
    assert list(shown(result.stdout)["chief"]["config"]["cluster"]) == ["chief"]
    assert result.returncode == 0


def test_finished_is_the_last_line_and_exit_code_0(
    write_script: WriteScript, run_psys: Run
) -> None:
    result = run_psys("run", write_script(FINISH))
    assert result.stdout.splitlines()[-1] == ("psys: FINISHED step=20 checkpoint=m/c export=none")
    assert result.returncode == 0


def test_a_temporary_log_directory_goes_with_a_finished_job(
    write_script: WriteScript, run_psys: Run, tmp_path: Path
) -> None:
    assert run_psys("run", write_script(FINISH)).returncode == 0
    assert not list(tmp_path.glob("psys-run-*"))

    failed = run_psys("run", write_script("sys.exit('no licence')"))
    (kept,) = tmp_path.glob("psys-run-*")
    assert "no licence" in (kept / "chief.log").read_text()
    assert failed.stderr.splitlines()[-1] == f"psys: logs are kept in {kept}"

    logs = tmp_path / "logs"
    assert run_psys("run", "--log-dir", logs, write_script(FINISH)).returncode == 0
    assert (logs / "chief.log").exists()


def test_failed_tells_the_reason_the_job_gave(write_script: WriteScript, run_psys: Run) -> None:
    body = 'if KIND == "worker":\n    conclude(verdict="FAILED", reason="loss is NaN")\nsys.exit(1)'
    result = run_psys("run", write_script(body))
    assert result.stdout.splitlines()[-1] == "psys: FAILED reason=loss is NaN"
    assert result.returncode == 1


def test_a_crash_before_psys_began_is_told_by_its_exception(
    write_script: WriteScript, run_psys: Run
) -> None:
    result = run_psys("run", write_script('open("/no/such/file")'))
    last = result.stdout.splitlines()[-1]
    assert last.startswith("psys: FAILED reason=")
    assert last.endswith(
        " exited with 1: FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"
    )
    assert result.returncode == 1


def test_a_program_that_never_trains_is_no_success(
    write_script: WriteScript, run_psys: Run
) -> None:
    result = run_psys("run", write_script("pass"))
    assert "does" in result.stdout.splitlines()[-1]
    assert "call train_and_evaluate?" in result.stdout
    assert result.returncode == 1


def test_a_verdict_of_an_earlier_run_is_not_believed(
    write_script: WriteScript, run_psys: Run, tmp_path: Path
) -> None:
    (tmp_path / "verdict.json").write_text('{"verdict": "FINISHED", "global_step": 1}')
    result = run_psys("run", "--log-dir", tmp_path, write_script("pass"))
    assert result.returncode == 1


def test_colours_are_written_only_where_they_are_wanted(
    write_script: WriteScript, run_psys: Run
) -> None:
    script = write_script(FINISH + 'print("hello")')
    assert "\x1b[" not in run_psys("run", script).stdout
    coloured = run_psys("run", script, FORCE_COLOR="1").stdout
    assert "\x1b[32m[chief]\x1b[0m hello" in coloured
    assert coloured.splitlines()[-1].startswith("psys: FINISHED")


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_reaches_every_role_and_its_children(
    write_script: WriteScript,
    start_psys: Start,
    ends: Callable[[int], bool],
    signum: int,
    exit_code: int,
) -> None:
    process = start_psys("run", "--evaluator", write_script(READY_AND_HANG))
    pids = read_pids(process, roles=4)
    process.send_signal(signum)
    stdout, _ = process.communicate(timeout=60)
    assert stdout.splitlines()[-1] == "psys: FAILED reason=interrupted"
    assert process.returncode == exit_code
    assert all(ends(pid) for pid in pids)


def test_a_second_interrupt_kills_who_does_not_listen(
    write_script: WriteScript, start_psys: Start, ends: Callable[[int], bool]
) -> None:
    body = 'signal.signal(signal.SIGTERM, lambda *_: print("pids 0 0"))' + READY_AND_HANG
    process = start_psys("run", "--ps", 0, "--workers", 0, write_script(body))
    pids = read_pids(process, roles=1)
    process.send_signal(signal.SIGINT)
    read_pids(process, roles=1)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=10)
    assert stdout.splitlines()[-1] == "psys: FAILED reason=interrupted"
    assert all(ends(pid) for pid in pids)


def test_a_killed_launcher_leaves_no_process_behind(
    write_script: WriteScript, start_psys: Start, ends: Callable[[int], bool]
) -> None:
    process = start_psys("run", "--ps", 2, write_script(READY_AND_HANG))
    pids = read_pids(process, roles=4)
    process.kill()
    assert all(ends(pid) for pid in pids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_program.py"], "there is no file 'no_such_program.py'"),
        (["--worker", "2", "x.py"], "run has no option --worker"),
        (["--ps", "-1", "x.py"], "expected a number of tasks, 0 or more, got '-1'"),
        (["--workers", "two", "x.py"], "expected a number of tasks, 0 or more, got 'two'"),
        (["--timeout-secs", "0", "x.py"], "expected seconds, more than 0, got '0'"),
        ([], "the following arguments are required: SCRIPT"),
        (["--log-dir", "/proc/no", __file__], "--log-dir must name a directory to write to"),
    ],
)
def test_a_wrong_command_line_starts_nothing_and_says_why(
    run_psys: Run, arguments: Sequence[str], message: str
) -> None:
    result = run_psys("run", *arguments)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]
    assert result.stdout == ""
