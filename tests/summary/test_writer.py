"""Event files, read back by the published format.

TFRecord: a length (u64), its masked crc32c, the data, the data's masked crc32c.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from psys.summary import SummaryWriter


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum, bit by bit (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(file: Path) -> list[Event]:
    data, events, at = file.read_bytes(), [], 0
    while at < len(data):
        length, length_crc = struct.unpack_from("<QI", data, at)
        assert masked(data[at : at + 8]) == length_crc
        body = data[at + 12 : at + 12 + length]
        assert masked(body) == struct.unpack_from("<I", data, at + 12 + length)[0]
        events.append(Event.FromString(body))
        at += 16 + length
    return events


def only_file(directory: Path) -> Path:
    (file,) = directory.iterdir()
    return file


def test_the_checksum_used_here_is_the_published_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_nothing_is_created_before_the_first_summary(tmp_path: Path) -> None:
    writer = SummaryWriter(tmp_path / "model")
    writer.flush()
    writer.close()
    assert not (tmp_path / "model").exists()


def test_scalars_come_back_with_their_step_and_time(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path, clock=lambda: 1700000000.5) as writer:
        writer.scalar("loss", 0.25, 1)
        writer.scalar("global_step/sec", 12.5, 101)
    file = only_file(tmp_path)
    assert file.name.startswith("events.out.tfevents.1700000000.")
    first, *events = read_events(file)
    assert first.file_version == "brain.Event:2"
    assert [(e.step, e.wall_time) for e in events] == [(1, 1700000000.5), (101, 1700000000.5)]
    assert [(v.tag, v.simple_value) for e in events for v in e.summary.value] == [
        ("loss", 0.25),
        ("global_step/sec", 12.5),
    ]


def test_an_evaluations_metrics_are_one_event(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "eval_test") as writer:
        writer.scalars({"accuracy": 0.5, "loss": math.nan}, 300)
    _, event = read_events(only_file(tmp_path / "eval_test"))
    assert event.step == 300
    assert [v.tag for v in event.summary.value] == ["accuracy", "loss"]
    assert event.summary.value[0].simple_value == 0.5
    assert math.isnan(event.summary.value[1].simple_value)


def test_text_is_marked_for_the_text_tab(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        writer.text("checkpoint_path", "model-0000000300", 300)
    _, event = read_events(only_file(tmp_path))
    (value,) = event.summary.value
    assert value.tag == "checkpoint_path"
    assert value.metadata.plugin_data.plugin_name == "text"
    assert list(value.tensor.string_val) == [b"model-0000000300"]


def test_what_is_flushed_is_on_disk_while_the_writer_lives(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        for step in range(50):
            writer.scalar("loss", 0.0, step)
        writer.flush()
        assert len(read_events(only_file(tmp_path))) == 51


def test_it_flushes_by_itself_when_the_time_is_up(tmp_path: Path) -> None:
    now = [0.0]
    with SummaryWriter(tmp_path, flush_secs=10.0, clock=lambda: now[0]) as writer:
        writer.scalar("loss", 0.0, 1)
        assert only_file(tmp_path).stat().st_size == 0
        now[0] = 10.0
        writer.scalar("loss", 0.0, 2)
        assert len(read_events(only_file(tmp_path))) == 3


def test_a_resumed_run_tells_tensorboard_what_to_drop(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path, purge_step=101) as writer:
        writer.scalar("loss", 0.5, 101)
    version, start, event = read_events(only_file(tmp_path))
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (101, SessionLog.START)
    assert event.step == 101


def test_two_writers_in_one_second_do_not_share_a_file(tmp_path: Path) -> None:
    for step in (1, 2):
        with SummaryWriter(tmp_path, clock=lambda: 1700000000.0) as writer:
            writer.scalar("loss", 0.0, step)
    steps = sorted(read_events(file)[1].step for file in tmp_path.iterdir())
    assert steps == [1, 2]


def test_a_write_after_close_opens_a_new_file_and_purges_once(tmp_path: Path) -> None:
    writer = SummaryWriter(tmp_path, purge_step=1)
    for step in (1, 2):
        writer.scalar("loss", 0.0, step)
        writer.close()
        writer.close()
    files = [read_events(file) for file in tmp_path.iterdir()]
    assert sorted(events[-1].step for events in files) == [1, 2]
    assert sum(event.HasField("session_log") for events in files for event in events) == 1


def test_what_is_no_number_is_refused_before_a_file_is_made(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "model") as writer, pytest.raises((TypeError, ValueError)):
        writer.scalar("loss", "low", 1)  # type: ignore[arg-type]
    assert not (tmp_path / "model").exists()


def test_a_histogram_counts_each_value(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        writer.histogram("staleness", {0: 1, 2: 3, 70: 1, 100: 1}, 9)
    (value,) = read_events(only_file(tmp_path))[1].summary.value
    histo = value.histo
    assert (value.tag, histo.min, histo.max, histo.num, histo.sum) == ("staleness", 0, 100, 6, 176)
    assert histo.sum_squares == 3 * 4 + 70**2 + 100**2
    assert list(histo.bucket_limit) == [0.5, 2.5, 128.0]
    assert list(histo.bucket) == [1, 3, 2]
