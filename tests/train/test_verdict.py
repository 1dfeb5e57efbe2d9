from __future__ import annotations

import json
from pathlib import Path

import pytest

from psys.checkpoint.storage import FileStorage
from psys.errors import ConfigError
from psys.ps.messages import Verdict
from psys.train.verdict import (
    RUN,
    VERDICT,
    keep_run,
    keep_verdict,
    put_aside_verdict,
    read_ended,
    read_verdict,
    unended_run,
)

FINISHED = Verdict(True, global_step=7, checkpoint="c", export="e", evaluated=True)


def test_a_verdict_is_written_once_and_names_its_run(tmp_path: Path) -> None:
    copy = tmp_path / "launcher" / "verdict.json"
    keep_verdict(str(tmp_path), FINISHED, "one", str(copy))
    keep_verdict(str(tmp_path), Verdict(False, "too late"), "two", str(copy))
    assert read_ended(str(tmp_path)) == ("one", FINISHED)
    assert json.loads(copy.read_text())["verdict"] == "FINISHED"


def test_a_verdict_that_cannot_be_written_is_told_unless_it_says_so_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    root = str(tmp_path / "file" / "model")
    with pytest.raises(ConfigError) as refused:
        FileStorage(root).check_writable()
    keep_verdict(root, Verdict(False, f"ps:0: {refused.value}"), "one", None)
    assert caplog.messages == []
    keep_verdict(root, Verdict(False, "chief: something else"), "one", None)
    (message,) = caplog.messages
    assert message.startswith(f"The verdict could not be written below {root}: ")
    assert "staged" not in message


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ended_unix_secs": 1}', "\x00"])
def test_what_is_no_verdict_counts_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / VERDICT).write_text(text)
    assert read_ended(str(tmp_path)) is None
    assert read_verdict(str(tmp_path)) is None


def test_an_older_verdict_is_not_this_ones(tmp_path: Path) -> None:
    keep_verdict(str(tmp_path), FINISHED, "one", None)
    written = json.loads((tmp_path / VERDICT).read_text())["ended_unix_secs"]
    assert read_verdict(str(tmp_path), since_unix_secs=written - 1) == FINISHED
    assert read_verdict(str(tmp_path), since_unix_secs=written + 1) is None


def test_a_chief_goes_on_with_the_run_its_predecessor_left(tmp_path: Path) -> None:
    assert unended_run(str(tmp_path / "none")) == ""
    keep_run(str(tmp_path), "one")
    assert unended_run(str(tmp_path)) == "one"
    keep_run(str(tmp_path), "two")
    assert unended_run(str(tmp_path)) == "two"


@pytest.mark.parametrize("aside", [False, True])
def test_but_not_with_one_that_ended(tmp_path: Path, aside: bool) -> None:
    keep_run(str(tmp_path), "one")
    keep_verdict(str(tmp_path), Verdict(False, "broken"), "one", None)
    if aside:
        put_aside_verdict(str(tmp_path))
    assert unended_run(str(tmp_path)) == ""


def test_an_unreadable_run_is_none(tmp_path: Path) -> None:
    (tmp_path / RUN).write_text("{")
    assert unended_run(str(tmp_path)) == ""
