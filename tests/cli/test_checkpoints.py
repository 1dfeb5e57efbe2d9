from __future__ import annotations

from pathlib import Path

import pytest

from psys.checkpoint.manifest import Manifest, commit
from psys.checkpoint.storage import FileStorage
from psys.cli.checkpoints import find_rows, format_age, format_size
from psys.cli.main import main
from psys.cli.ports import PortReservation


def manifest(step: int, checkpoint_id: str, final: bool) -> Manifest:
    return Manifest(
        checkpoint_id=checkpoint_id,
        job_id="job",
        generation="g",
        global_step=step,
        created_unix_secs=1000.0 + step,
        variables=(),
        shards=(),
        final=final,
    )


def test_the_checkpoints_of_a_directory_are_listed_oldest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = FileStorage(str(tmp_path))
    commit(storage, manifest(200, "b" * 12, final=True))
    commit(storage, manifest(50, "a" * 12, final=False))
    rows = find_rows(str(tmp_path), now_unix_secs=1320.0)
    assert [(row.step, row.checkpoint_id, row.age_secs, row.final) for row in rows] == [
        (50, "a" * 12, 270.0, False),
        (200, "b" * 12, 120.0, True),
    ]
    assert all((Path(row.path) / "manifest.json").is_file() for row in rows)
    assert main(["checkpoints", str(tmp_path)]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["STEP", "ID", "AGE", "SIZE", "FINAL", "PATH"]
    assert first.startswith("50 ")
    assert second.startswith("200 ")
    assert header.index("PATH") == second.index(str(tmp_path))


def test_a_directory_without_checkpoints_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["checkpoints", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no checkpoints in {tmp_path}\n"


def test_ages_and_sizes_are_in_the_unit_one_would_say_them_in() -> None:
    assert [format_age(s) for s in (-1, 59.9, 60, 7200, 200000)] == [
        "0 s", "59 s", "1 min", "2 h", "2 d",
    ]  # fmt: skip
    assert [format_size(b) for b in (0, 1023, 1536, 5 << 30, 3 << 50)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 GiB", "3072.0 TiB",
    ]  # fmt: skip


def test_nobody_at_the_address_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with PortReservation(1) as reservation:
        address = f"127.0.0.1:{reservation.ports[0]}"
        assert main(["checkpoints", address]) == 1
        assert main(["status", address]) == 1
        assert main(["health", address]) == 1
    output = capsys.readouterr()
    assert f"psys checkpoints: {address} cannot be reached" in output.err
    assert f"psys status: {address} cannot be reached" in output.err
    assert output.out == f"{address}: NOT SERVING\n"
