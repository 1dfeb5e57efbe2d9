"""The hooks every training has, against tf.train's tests of theirs; in real trainings."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

import psys as tf
from psys.errors import CheckpointError, ConfigError
from psys.ps.tally import NO_PUSHES, PushCounts
from psys.summary.writer import SummaryWriter
from psys.train.builtin_hooks import (
    LossSummaryHook,
    ProgressHook,
    SecondOrStepTimer,
    StalenessHook,
    StepCounterHook,
)
from psys.train.hooks import SessionRunContext, SessionRunValues
from psys.train.progress import ProgressReporter

X = np.array([[1.0], [2.0]], np.float32)
Y = np.array([3.0, 5.0], np.float32)


def input_fn() -> Iterator[Any]:
    while True:
        yield {"x": X}, Y


def regressor(model_dir: Path, **config: Any) -> Any:
    return tf.estimator.LinearRegressor(
        [tf.feature_column.numeric_column("x")],
        config=tf.estimator.RunConfig(model_dir=str(model_dir), **config),
    )


def events(directory: Path) -> Iterator[Event]:
    """Yield what is in the one event file of a directory."""
    (file,) = directory.glob("events.out.tfevents.*")
    data, at = file.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


def scalars(directory: Path) -> dict[str, list[int]]:
    """The steps at which each curve has a value, in the one event file of a directory."""
    found: dict[str, list[int]] = {}
    for event in events(directory):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(event.step)
    return found


def saved_steps(model_dir: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in (model_dir / "checkpoints").iterdir())


# ---------------------------------------------------------------- the timer


def test_a_timer_of_steps() -> None:
    timer = SecondOrStepTimer(every_steps=3)
    assert timer.last_triggered_step is None
    assert timer.should_trigger_for_step(1)
    assert timer.update_last_triggered_step(1) == (None, None)
    assert [timer.should_trigger_for_step(step) for step in (1, 2, 3, 4)] == [False] * 3 + [True]
    secs, steps = timer.update_last_triggered_step(5)
    assert secs is not None
    assert secs >= 0
    assert steps == 4
    assert timer.update_last_triggered_step(7)[1] == 2
    assert timer.last_triggered_step == 7


def test_a_timer_of_seconds() -> None:
    now = [100.0]
    timer = SecondOrStepTimer(every_secs=1.0, clock=lambda: now[0])
    assert timer.should_trigger_for_step(1)
    timer.update_last_triggered_step(1)
    now[0] += 0.5
    assert not timer.should_trigger_for_step(2)
    now[0] += 0.5
    assert not timer.should_trigger_for_step(1)
    assert timer.should_trigger_for_step(2)
    assert timer.update_last_triggered_step(2) == (1.0, 1)


@pytest.mark.parametrize("arguments", [{}, {"every_secs": 1.0, "every_steps": 1}])
def test_a_timer_has_one_measure(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Exactly one"):
        SecondOrStepTimer(**arguments)


# ---------------------------------------------------------------- summaries


def test_the_curves_have_their_values_where_tf_has_them(tmp_path: Path) -> None:
    regressor(tmp_path, save_summary_steps=8, log_step_count_steps=10).train(input_fn, steps=30)
    assert scalars(tmp_path) == {"loss": [1, 9, 17, 25], "global_step/sec": [11, 21]}


def test_the_curves_can_be_left_out(tmp_path: Path) -> None:
    regressor(tmp_path, save_summary_steps=0, log_step_count_steps=None).train(input_fn, steps=3)
    assert list(tmp_path.glob("events.*")) == []


def test_each_training_writes_one_file(tmp_path: Path) -> None:
    for _ in range(2):
        regressor(tmp_path).train(input_fn, steps=3)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2


def test_where_there_is_no_writer_the_speed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    hook = StepCounterHook(10, None)
    with caplog.at_level(logging.INFO, "psys"):
        for step in range(1, 22, 5):
            hook.after_run(SessionRunContext(None), SessionRunValues(None, 0.25, step, 2))
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "loss = 0.25, step = 11",
        "loss = 0.25, step = 21",
    ]


def test_a_loss_summary_is_on_disk_at_the_end(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        hook = LossSummaryHook(1, writer)
        hook.after_run(SessionRunContext(None), SessionRunValues(None, 0.25, 1, 2))
        hook.after_run(SessionRunContext(None), SessionRunValues(None, None, 2, 2))
        hook.end(None)
        assert scalars(tmp_path) == {"loss": [1]}


def test_progress_is_told_of_every_step() -> None:
    stream = io.StringIO()
    hook = ProgressHook(ProgressReporter(10, stream, clock=lambda: 0.0))
    for step in (7, 8):
        hook.after_run(SessionRunContext(None), SessionRunValues(None, 0.25, step, 2))
    assert stream.getvalue() == "step 7/10, loss 0.25\n"
    hook.end(None)
    assert stream.getvalue() == "step 7/10, loss 0.25\nstep 8/10, loss 0.25\n"


# ---------------------------------------------------------------- checkpoints


class Waiting(tf.train.CheckpointSaverListener):
    """A listener makes every save be waited for."""


@pytest.mark.parametrize("listeners", [[], [Waiting()]], ids=["alone", "listened to"])
@pytest.mark.parametrize(
    ("every", "steps", "saves"), [(2, 6, [0, 2, 4, 6]), (10, 25, [0, 10, 20, 25]), (100, 3, [0, 3])]
)
def test_saves_at_creation_every_so_many_steps_and_at_the_end(
    tmp_path: Path, listeners: list[Any], every: int, steps: int, saves: list[int]
) -> None:
    estimator = regressor(tmp_path, save_checkpoints_steps=every, keep_checkpoint_max=0)
    estimator.train(input_fn, steps=steps, saving_listeners=listeners)
    assert saved_steps(tmp_path) == saves


@pytest.mark.parametrize(("secs", "saves"), [(1e-9, [0, 1, 2, 3]), (3600, [0, 3])])
def test_saves_every_so_many_seconds(tmp_path: Path, secs: float, saves: list[int]) -> None:
    estimator = regressor(tmp_path, save_checkpoints_secs=secs)
    estimator.train(input_fn, steps=3, saving_listeners=[Waiting()])
    assert saved_steps(tmp_path) == saves


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    estimator = regressor(tmp_path, save_checkpoints_steps=1, keep_checkpoint_max=2)
    estimator.train(input_fn, steps=5, saving_listeners=[Waiting()])
    assert saved_steps(tmp_path) == [4, 5]


def test_a_save_that_fails_ends_training(tmp_path: Path) -> None:
    class Spoiling(tf.train.CheckpointSaverListener):
        def before_save(self, session: Any, global_step_value: int) -> None:
            if global_step_value == 2:
                (tmp_path / "checkpoints").rename(tmp_path / "aside")
                (tmp_path / "checkpoints").write_text("not a directory")

    with pytest.raises(CheckpointError, match="not saved"):
        regressor(tmp_path, save_checkpoints_steps=2).train(
            input_fn, steps=6, saving_listeners=[Spoiling()]
        )


class Control:
    """What the lead told the chief, and which generation that has loaded."""

    def __init__(self, loaded: str) -> None:
        self.pushes = NO_PUSHES
        self._loaded = loaded

    def has_loaded(self, generation: str) -> bool:
        return generation == self._loaded


def staleness_written(
    directory: Path, loaded: str, steps: list[tuple[int, PushCounts]]
) -> tuple[list[tuple[int, dict[float, float]]], list[float]]:
    """Return the histograms and the drops that are written when the lead tells such counts."""
    control: Any = Control(loaded)
    writer = SummaryWriter(directory)
    hook = StalenessHook(10, writer, control)
    control.pushes = steps[0][1]
    hook.after_create_session(None)
    for step, control.pushes in steps[:-1]:
        hook.after_run(SessionRunContext(None), SessionRunValues(None, 0.0, step, 4))
    step, control.pushes = steps[-1]
    session: Any = SimpleNamespace(global_step=step)
    hook.end(session)
    writer.close()
    found = [(event.step, value) for event in events(directory) for value in event.summary.value]
    histograms = [
        (step, dict(zip(value.histo.bucket_limit, value.histo.bucket, strict=True)))
        for step, value in found
        if value.tag == "staleness"
    ]
    return histograms, [value.simple_value for _, value in found if value.tag == "dropped_steps"]


def test_staleness_and_drops_of_all_trainers_are_written_every_so_many_steps(
    tmp_path: Path,
) -> None:
    found = staleness_written(
        tmp_path,
        "g",
        [
            (1, PushCounts("g", (1,))),
            (5, PushCounts("g", (3, 1), 1)),
            (11, PushCounts("g", (3, 6, *[0] * 63, 2), 1)),
            (12, PushCounts("g", (3, 6, *[0] * 63, 2), 1)),
            (13, PushCounts("g", (4, 6, *[0] * 63, 2), 2)),
        ],
    )
    assert found == ([(1, {0.5: 1}), (11, {0.5: 2, 1.5: 6, 256: 2}), (13, {0.5: 1})], [0, 1, 2])


def test_a_generation_that_was_taken_over_is_counted_from_there_on(tmp_path: Path) -> None:
    steps = [(41, PushCounts("g", (40,), 3)), (52, PushCounts("g", (43,), 4))]
    found = staleness_written(tmp_path, "", [*steps, (52, steps[-1][1])])
    assert found == ([(52, {0.5: 3})], [0, 1])


def test_after_a_roll_back_all_of_the_new_generation_is_counted(tmp_path: Path) -> None:
    steps = [(41, PushCounts("f", (40,), 3)), (52, PushCounts("f", (43,), 4))]
    steps += [(30, PushCounts("g")), (62, PushCounts("g", (9,), 1))]
    found = staleness_written(tmp_path, "g", [*steps, (62, steps[-1][1])])
    assert found == ([(52, {0.5: 3}), (62, {0.5: 9})], [0, 1, 2])
