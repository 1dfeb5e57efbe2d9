from __future__ import annotations

import json
from pathlib import Path

from psys.cli.verdict import FAILED, FINISHED, JobVerdict, read_verdict


def test_the_last_line_has_the_form_that_scripts_read() -> None:
    finished = JobVerdict(FINISHED, global_step=1500, checkpoint="m/checkpoints/a", export="m/e/1")
    assert finished.line() == "psys: FINISHED step=1500 checkpoint=m/checkpoints/a export=m/e/1"
    assert JobVerdict(FINISHED, global_step=3, checkpoint="c").line() == (
        "psys: FINISHED step=3 checkpoint=c export=none"
    )
    assert JobVerdict(FAILED, "a\n  reason\nin lines").line() == (
        "psys: FAILED reason=a reason in lines"
    )


def test_a_verdict_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    assert read_verdict(path) is None
    fields = {
        "verdict": "FINISHED",
        "reason": "",
        "global_step": 7,
        "checkpoint": "c",
        "export": None,
        "job_id": "j",
    }
    path.write_text(json.dumps(fields))
    assert read_verdict(path) == JobVerdict(FINISHED, global_step=7, checkpoint="c")


def test_a_verdict_file_that_makes_no_sense_is_a_failure_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    for text in ("", "{}", "[1]", '{"verdict": "MAYBE"}', '"FINISHED"'):
        path.write_text(text)
        verdict = read_verdict(path)
        assert verdict is not None
        assert not verdict.finished
        assert str(path) in verdict.reason
