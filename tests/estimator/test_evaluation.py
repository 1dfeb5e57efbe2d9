"""Evaluation and prediction against the page of tf.estimator.Estimator, with trained models."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

import psys as tf
from psys.errors import CheckpointNotFound, ModelError
from psys.estimator import Estimator, EstimatorSpec, ModeKeys, RunConfig
from psys.estimator.evaluation import evaluated_checkpoints, write_results
from psys.initializers import Constant

X = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
Y = np.array([3.0, 5.0, 7.0, 9.0], np.float32)


def batches(*sizes: int) -> Any:
    """An input_fn of batches of these sizes, one after the other through the data."""

    def input_fn() -> Iterator[Any]:
        start = 0
        for size in sizes:
            yield {"x": X[start : start + size]}, Y[start : start + size]
            start += size

    return input_fn


def endless() -> Iterator[Any]:
    while True:
        yield {"x": X}, Y


def model_fn(features: Any, labels: Any, mode: str, params: Any) -> Any:
    """Predict slope · x, where the slope begins at 2."""
    slope = tf.get_variable("slope", (), initializer=Constant(2.0))
    outputs = features["x"][:, 0] * slope
    if mode == ModeKeys.PREDICT:
        return EstimatorSpec(
            mode,
            predictions=params.get("predictions", lambda y, x: {"y": y, "x": x})(
                outputs, features["x"]
            ),
            prediction_hooks=params.get("hooks"),
        )
    loss = tf.losses.mean_squared_error(labels, outputs)
    return EstimatorSpec(
        mode,
        loss=loss,
        train_op=tf.train.GradientDescentOptimizer(0.1).minimize(loss),
        eval_metric_ops={
            params.get("metric", "error"): tf.metrics.mean_absolute_error(labels, outputs)
        },
        evaluation_hooks=params.get("hooks"),
    )


def make(model_dir: Path, **params: Any) -> Estimator:
    hooks = params.pop("hooks", None)  # one that is copied would tell another

    def bound(features: Any, labels: Any, mode: str, params: Any) -> Any:
        return model_fn(features, labels, mode, {**params, "hooks": hooks})

    config = RunConfig(model_dir=str(model_dir), save_checkpoints_steps=1, keep_checkpoint_max=0)
    return Estimator(bound, config=config, params=params)


def events(directory: Path) -> list[list[Event]]:
    """The events of each event file of a directory, in the order they were written."""
    files = []
    for file in sorted(directory.glob("events.out.tfevents.*")):
        data, at, found = file.read_bytes(), 0, []
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
        files.append(found)
    return files


class Told(tf.train.SessionRunHook):
    """Writes down what it is told."""

    def __init__(self, name: str, told: list[str], stop_at: int = 0) -> None:
        self._name, self._told, self._stop_at, self._count = name, told, stop_at, 0

    def begin(self) -> None:
        self._told.append(f"{self._name}.begin")

    def after_create_session(self, session: Any, coord: None = None) -> None:
        self._told.append(f"{self._name}.after_create_session")

    def before_run(self, run_context: Any) -> None:
        self._told.append(f"{self._name}.before_run")

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._told.append(f"{self._name}.after_run {run_values.examples}")
        self._count += 1
        if self._count == self._stop_at:
            run_context.request_stop()

    def end(self, session: Any) -> None:
        self._told.append(f"{self._name}.end")


# ---------------------------------------------------------------- evaluate


def test_without_a_checkpoint_the_initial_values_are_evaluated(tmp_path: Path) -> None:
    results = make(tmp_path).evaluate(batches(4))
    assert results == {"loss": 1.0, "error": 1.0, "global_step": 0}
    assert not (tmp_path / "checkpoints").exists()


def test_an_initial_table_can_be_evaluated(tmp_path: Path) -> None:
    word = tf.feature_column.categorical_column_with_identity("word", 50)
    estimator = tf.estimator.DNNClassifier(
        [4], [tf.feature_column.embedding_column(word, 3)], model_dir=str(tmp_path)
    )
    results = estimator.evaluate(lambda: ({"word": [3, 49, 3]}, [0, 1, 1]))
    assert results["global_step"] == 0
    assert 0.3 < results["loss"] < 1.5


def test_a_trained_model_is_evaluated_at_its_newest_checkpoint(tmp_path: Path) -> None:
    estimator = make(tmp_path).train(endless, steps=3)
    slope = float(estimator.get_variable_value("slope"))
    results = estimator.evaluate(batches(4))
    assert results["global_step"] == 3
    assert results["loss"] == pytest.approx(np.mean((slope * X[:, 0] - Y) ** 2))


def test_any_checkpoint_can_be_named(tmp_path: Path) -> None:
    estimator = make(tmp_path)
    first = estimator.train(endless, steps=1).latest_checkpoint()
    estimator.train(endless, steps=1)
    assert estimator.evaluate(batches(4), checkpoint_path=first)["global_step"] == 1
    assert estimator.evaluate(batches(4))["global_step"] == 2
    with pytest.raises(CheckpointNotFound, match="nowhere"):
        estimator.evaluate(batches(4), checkpoint_path=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("sizes", [(4,), (2, 2), (3, 1)])
def test_the_loss_is_the_mean_of_the_batches_and_metrics_of_the_examples(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    def scaled(features: Any, labels: Any, mode: str) -> Any:
        error = (labels - features["x"][:, 0]) ** 2  # 4, 9, 16, 25
        tf.get_variable("unused", ())
        return EstimatorSpec(
            mode, loss=np.mean(error), eval_metric_ops={"mean": tf.metrics.mean(error)}
        )

    results = Estimator(scaled, model_dir=str(tmp_path)).evaluate(batches(*sizes))
    assert results["mean"] == pytest.approx(13.5)
    expected = {(4,): 13.5, (2, 2): 13.5, (3, 1): (29 / 3 + 25) / 2}
    assert results["loss"] == pytest.approx(expected[sizes])


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (3, 3), (9, 4), (None, 4)])
def test_steps_are_batches_and_the_input_may_end_before(
    tmp_path: Path, steps: int | None, count: int
) -> None:
    told: list[str] = []
    counted: list[int] = []
    make(tmp_path).evaluate(
        batches(1, 1, 1, 1), steps=steps, hooks=[Told("a", told)], progress=counted.append
    )
    assert told.count("a.before_run") == count
    assert counted == list(range(1, count + 1))


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_are_positive(tmp_path: Path, steps: int) -> None:
    with pytest.raises(ValueError, match="Must specify steps > 0"):
        make(tmp_path).evaluate(batches(4), steps=steps)


@pytest.mark.parametrize("metric", ["loss", "global_step"])
def test_the_names_of_what_evaluate_adds_are_taken(tmp_path: Path, metric: str) -> None:
    with pytest.raises(ValueError, match=f"may not be named '{metric}'"):
        make(tmp_path, metric=metric).evaluate(batches(4))


def test_hooks_of_the_call_and_of_the_model_run_around_every_batch(tmp_path: Path) -> None:
    told: list[str] = []
    make(tmp_path, hooks=[Told("b", told)]).evaluate(batches(3, 1), hooks=[Told("a", told)])
    rounds = ["begin", "after_create_session", "before_run", "after_run 3", "before_run"]
    rounds += ["after_run 1", "end"]
    assert told == [f"{hook}.{method}" for method in rounds for hook in ("a", "b")]


def test_a_hook_gets_what_it_asked_for(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Asking(tf.train.SessionRunHook):
        def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
            return tf.train.SessionRunArgs({"all": ["loss", "global_step"]})

        def after_run(self, run_context: Any, run_values: Any) -> None:
            seen.append(run_values.results)

    estimator = make(tmp_path)
    estimator.evaluate(batches(4), hooks=[Asking()])
    list(estimator.predict(batches(4), hooks=[Asking()]))
    assert seen == [{"all": [1.0, 0]}, {"all": [None, 0]}]


def test_a_hook_may_stop_an_evaluation(tmp_path: Path) -> None:
    told: list[str] = []
    make(tmp_path).evaluate(endless, hooks=[Told("a", told, stop_at=2)])
    assert told[-3:] == ["a.before_run", "a.after_run 4", "a.end"]


def test_the_results_are_for_tensorboard_and_a_ledger(tmp_path: Path) -> None:
    estimator = make(tmp_path)
    path = estimator.train(endless, steps=1).latest_checkpoint()
    first = estimator.evaluate(batches(4), name="dev")
    estimator.train(endless, steps=1)
    estimator.evaluate(batches(4), name="dev")
    directory = tmp_path / "eval_dev"
    assert estimator.eval_dir("dev") == str(directory)
    (one,) = events(directory)
    version, numbers, text, *other = one
    assert version.file_version == "brain.Event:2"
    assert {value.tag: value.simple_value for value in numbers.summary.value} == {
        tag: pytest.approx(first[tag]) for tag in ("loss", "error")
    }
    assert [value.tag for value in text.summary.value] == ["checkpoint_path"]  # as tf.estimator
    assert path is not None
    assert text.summary.value[0].tensor.string_val == [path.encode()]
    assert [event.step for event in (numbers, text, *other)] == [1, 1, 2, 2]
    lines = [json.loads(line) for line in (directory / "results.jsonl").read_text().splitlines()]
    assert [line["global_step"] for line in lines] == [1, 2]
    assert lines[0]["checkpoint"] == path
    assert lines[0]["metrics"] == {tag: first[tag] for tag in ("loss", "error")}
    assert path in evaluated_checkpoints(str(directory))
    assert not (tmp_path / "eval").exists()


def test_a_ledger_cut_short_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = {"checkpoint": "/a", "global_step": 7, "metrics": {"loss": 0.5}}
    lines = [json.dumps(whole), '{"checkpoint": "/b', "[1]"]
    (tmp_path / "results.jsonl").write_text("\n".join(lines))
    assert evaluated_checkpoints(str(tmp_path)) == {"/a": {"loss": 0.5, "global_step": 7}}
    assert evaluated_checkpoints(str(tmp_path / "none")) == {}


# ---------------------------------------------------------------- predict


def features() -> Any:
    return {"x": X}


def test_predictions_come_example_by_example(tmp_path: Path) -> None:
    rows = list(make(tmp_path).predict(batches(3, 1)))
    assert [row["y"] for row in rows] == [2.0, 4.0, 6.0, 8.0]
    assert [row["x"].shape for row in rows] == [(1,)] * 4


def test_or_batch_by_batch(tmp_path: Path) -> None:
    whole = list(make(tmp_path).predict(batches(3, 1), yield_single_examples=False))
    assert [{key: value.shape for key, value in one.items()} for one in whole] == [
        {"y": (3,), "x": (3, 1)},
        {"y": (1,), "x": (1, 1)},
    ]


def test_some_of_them_can_be_asked_for(tmp_path: Path) -> None:
    for keys in ("y", ["y"], ["y", "z"]):
        assert [set(row) for row in make(tmp_path).predict(features, keys)] == [{"y"}] * 4
    with pytest.raises(ValueError, match=r"at least one output from \['x', 'y'\], provided z"):
        next(make(tmp_path).predict(features, "z"))


def test_predictions_may_be_one_array(tmp_path: Path) -> None:
    estimator = make(tmp_path, predictions=lambda y, x: y)
    assert list(estimator.predict(features)) == [2.0, 4.0, 6.0, 8.0]
    (batch,) = estimator.predict(features, yield_single_examples=False)
    assert batch.tolist() == [2.0, 4.0, 6.0, 8.0]
    with pytest.raises(ValueError, match="not valid in case of non-dict predictions"):
        next(estimator.predict(features, "y"))


def test_predictions_of_one_batch_have_one_length_or_come_whole(tmp_path: Path) -> None:
    estimator = make(tmp_path, predictions=lambda y, x: {"y": y, "mean": y.mean()})
    with pytest.raises(ValueError, match="Batch length of predictions should be same"):
        next(estimator.predict(features))
    (batch,) = estimator.predict(features, yield_single_examples=False)
    assert float(batch["mean"]) == 5.0


def test_a_trained_model_predicts_from_any_checkpoint(tmp_path: Path) -> None:
    estimator = make(tmp_path)
    paths = [estimator.train(endless, steps=1).latest_checkpoint() for _ in range(2)]
    newest, first = (
        [row["y"] for row in estimator.predict(features, checkpoint_path=path)]
        for path in (None, paths[0])
    )
    slope = float(estimator.get_variable_value("slope"))
    np.testing.assert_allclose(newest, slope * X[:, 0], rtol=1e-6)
    assert newest != first


def test_prediction_has_its_hooks(tmp_path: Path) -> None:
    told: list[str] = []
    estimator = make(tmp_path, hooks=[Told("b", told)])
    assert len(list(estimator.predict(endless, hooks=[Told("a", told, stop_at=2)]))) == 8
    rounds = ["begin", "after_create_session", *["before_run", "after_run 4"] * 2, "end"]
    assert told == [f"{hook}.{method}" for method in rounds for hook in ("a", "b")]


def test_prediction_reads_no_further_than_it_is_asked(tmp_path: Path) -> None:
    predictions = make(tmp_path).predict(endless)
    assert next(predictions)["y"] == 2.0
    predictions.close()  # type: ignore[attr-defined]
    assert list(predictions) == []


def test_a_model_of_other_variables_is_refused(tmp_path: Path) -> None:
    def other(features: Any, mode: str) -> Any:
        return EstimatorSpec(mode, predictions=features["x"] * tf.get_variable("slop", ()))

    make(tmp_path).train(endless, steps=1)
    with pytest.raises(ModelError, match="no variable 'slop'"):
        next(Estimator(other, model_dir=str(tmp_path)).predict(features))


def test_one_process_writes_one_event_file_for_all_its_evaluations(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_results(str(tmp_path), {"global_step": step, "loss": float(step)}, "", 0.1)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3


# ---------------------------------------------------------------- arrays that are only to be read


@pytest.mark.parametrize("what", ["a feature", "labels"])
@pytest.mark.parametrize("how", ["train", "evaluate"])
def test_what_writes_into_a_batch_is_told_what_to_do(tmp_path: Path, what: str, how: str) -> None:
    """In training ids are found ahead: a change in place would be seen in evaluation only."""
    if how == "evaluate":
        make(tmp_path).train(endless, steps=1)

    def writing(features: Any, labels: Any, mode: str, params: Any) -> Any:
        written = features["x"] if what == "a feature" else labels
        written[0] = 0.0
        return model_fn(features, labels, mode, params)

    config = RunConfig(model_dir=str(tmp_path))
    estimator = Estimator(writing, config=config, params={})
    run = estimator.train if how == "train" else estimator.evaluate
    with pytest.raises(ModelError, match=r"wrote into an array .*make a new array instead"):
        run(batches(4))
    assert X[0, 0] == 1.0


class OwnError(ValueError):
    pass


@pytest.mark.parametrize(
    "error", [ValueError("/mnt/read-only/words is empty"), OwnError("it is read-only")], ids=repr
)
def test_another_error_of_the_same_kind_is_handed_on_as_it_is(
    tmp_path: Path, error: ValueError
) -> None:
    def wrong(features: Any, labels: Any, mode: str, params: Any) -> Any:
        raise error

    with pytest.raises(type(error), match=f"^{error}$"):
        Estimator(wrong, config=RunConfig(model_dir=str(tmp_path))).train(batches(4))


@pytest.mark.parametrize("single", [True, False])
def test_what_was_predicted_is_the_caller_s(tmp_path: Path, single: bool) -> None:
    """Features that are handed on too."""
    estimator = make(tmp_path)
    estimator.train(endless, steps=1)
    for one in estimator.predict(batches(4), yield_single_examples=single):
        for value in one.values():
            if np.ndim(value):
                value[...] = 0
    assert X[0, 0] == 1.0
