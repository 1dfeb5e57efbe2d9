"""train_and_evaluate on one machine against tf.estimator.train_and_evaluate's page.

The numbers are those of tf.estimator's own runs: which saves there are, and which of them are
evaluated and exported.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import psys as tf
from psys.errors import ConfigError
from psys.estimator import Estimator, EvalSpec, FinalExporter, LatestExporter, RunConfig, TrainSpec
from psys.estimator.exporters import Exporter
from psys.ps.messages import Verdict
from psys.train.session import Session
from psys.train.verdict import keep_verdict, read_verdict

X = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
Y = np.array([3.0, 5.0, 7.0, 9.0], np.float32)


def input_fn() -> Iterator[Any]:
    while True:
        yield {"x": X}, Y


def finite(batches: int) -> Any:
    return lambda: iter([({"x": X}, Y)] * batches)


def regressor(model_dir: Path, steps: int | None = 10, **config: Any) -> Estimator:
    return tf.estimator.LinearRegressor(
        [tf.feature_column.numeric_column("x")],
        config=RunConfig(model_dir=str(model_dir), save_checkpoints_steps=steps, **config),
    )


class Exports(Exporter):
    """Writes down what it is told, and returns a path of its own."""

    def __init__(self, name: str = "exports", order: list[str] | None = None) -> None:
        self.calls: list[tuple[Any, bool]] = []
        self.told: list[tuple[str, str]] = []
        self._name = name
        self._order = order if order is not None else []

    @property
    def name(self) -> str:
        return self._name

    def export(
        self,
        estimator: Any,
        export_path: str,
        checkpoint_path: str,
        eval_result: Mapping[str, Any] | None,
        is_the_final_export: bool,
    ) -> str | None:
        step = None if eval_result is None else eval_result["global_step"]
        self.calls.append((step, is_the_final_export))
        self.told.append((export_path, checkpoint_path))
        self._order.append(self._name)
        return f"{self._name}/{step}"


def evaluation(**arguments: Any) -> EvalSpec:
    return EvalSpec(**{"input_fn": input_fn, "steps": 1, "throttle_secs": 0, **arguments})


def evaluated_steps(directory: Path) -> list[int]:
    lines = (directory / "results.jsonl").read_text().splitlines()
    return [json.loads(line)["global_step"] for line in lines]


def saved_steps(model_dir: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in (model_dir / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("max_steps", "steps"), [(22, [10, 20, 22]), (12, [10, 12]), (35, [10, 20, 30, 35]), (10, [10])]
)
def test_every_checkpoint_but_the_first_is_evaluated(
    tmp_path: Path, max_steps: int, steps: list[int]
) -> None:
    exports = Exports()
    metrics, results = tf.estimator.train_and_evaluate(
        regressor(tmp_path), TrainSpec(input_fn, max_steps), evaluation(exporters=exports)
    )
    assert evaluated_steps(tmp_path / "eval") == steps
    assert exports.calls == [(step, step == max_steps) for step in steps]
    assert metrics["global_step"] == max_steps
    assert set(metrics) == {"average_loss", "label/mean", "prediction/mean", "loss", "global_step"}
    assert results == [f"exports/{max_steps}"]
    assert saved_steps(tmp_path) == [0, *steps]


def test_exporters_are_told_where_and_what(tmp_path: Path) -> None:
    estimator, order = regressor(tmp_path), []  # type: ignore[var-annotated]
    exporters = [Exports("b", order), Exports("a", order)]
    _, results = tf.estimator.train_and_evaluate(
        estimator, TrainSpec(input_fn, 12), evaluation(exporters=exporters)
    )
    assert order == ["b", "a", "b", "a"]
    assert results == ["b/12", "a/12"]
    assert exporters[1].told[-1] == (
        str(tmp_path / "export" / "a"),
        estimator.latest_checkpoint(),
    )
    assert "model-0000000010-" in exporters[1].told[0][1]


def test_the_final_exporter_exports_once(tmp_path: Path) -> None:
    _, results = tf.estimator.train_and_evaluate(
        regressor(tmp_path), TrainSpec(input_fn, 22), evaluation(exporters=FinalExporter("last"))
    )
    (export,) = (tmp_path / "export" / "last").iterdir()
    assert results == [str(export)]
    assert json.loads((export / "export.json").read_text())["global_step"] == 22


def parsed() -> Any:
    spec = {"x": tf.FixedLenFeature([1], tf.float32)}
    examples = tf.placeholder(tf.string, [None])
    return tf.estimator.export.ServingInputReceiver(
        tf.parse_example(examples, spec), {"examples": examples}
    )


@pytest.mark.parametrize(
    ("receiver", "message"),
    [
        (parsed, "needs TensorFlow .*'FixedLenFeature'"),
        (lambda: tf.compat.v1.placeholder(), "needs TensorFlow .*'compat'"),
        (lambda: 7, "returned int"),
        (lambda: [{}], "returned list"),
    ],
)
def test_a_receiver_that_says_nothing_here_is_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, receiver: Any, message: str
) -> None:
    exporter = LatestExporter("latest", receiver)
    _, results = tf.estimator.train_and_evaluate(
        regressor(tmp_path), TrainSpec(input_fn, 22), evaluation(exporters=exporter)
    )
    assert served(results) == {"x": {"dtype": "float32", "shape": [None, 1]}}
    (warning,) = [line for line in caplog.messages if "serving_input_receiver_fn" in line]
    assert re.search(message, warning)


@pytest.mark.parametrize(
    ("receiver", "batch"),
    [
        (tf.estimator.export.build_parsing_serving_input_receiver_fn({"x": None}), [None, 1]),
        (tf.estimator.export.build_raw_serving_input_receiver_fn({"x": X[:2]}), [None, 1]),
        (lambda: tf.estimator.export.ServingInputReceiver({"x": X[:, 0]}, X[:, 0]), [None]),
        (lambda: {"x": X[:, 0]}, [None]),
    ],
)
def test_receivers_describe_what_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, receiver: Any, batch: list[int | None]
) -> None:
    exporter = FinalExporter("last", receiver)
    _, results = tf.estimator.train_and_evaluate(
        regressor(tmp_path), TrainSpec(input_fn, 12), evaluation(exporters=exporter)
    )
    assert served(results) == {"x": {"dtype": "float32", "shape": batch}}
    assert "serving_input_receiver_fn" not in caplog.text


def served(results: list[str]) -> Any:
    """Return the features of the first export's signature."""
    return json.loads((Path(results[0]) / "export.json").read_text())["signature"]["features"]


def test_a_receiver_that_fails_is_told_in_one_line_before_training(tmp_path: Path) -> None:
    exporter = LatestExporter("latest", lambda: {}["x"])  # type: ignore[misc]
    message = (
        r"Exporter 'latest': serving_input_receiver_fn failed: KeyError: 'x' "
        r"\(test_train_and_evaluate_local.py, line \d+\)"
    )
    with pytest.raises(ConfigError, match=message):
        tf.estimator.train_and_evaluate(
            regressor(tmp_path), TrainSpec(input_fn, 22), evaluation(exporters=exporter)
        )
    assert not list(tmp_path.iterdir())


def test_an_export_predicts_as_its_checkpoint_does(tmp_path: Path) -> None:
    estimator = regressor(tmp_path, steps=100)
    _, results = tf.estimator.train_and_evaluate(
        estimator, TrainSpec(input_fn, 12), evaluation(exporters=LatestExporter("latest"))
    )
    signature = json.loads((Path(results[0]) / "export.json").read_text())["signature"]
    assert signature == {
        "features": {"x": {"dtype": "float32", "shape": [None, 1]}},
        "predictions": ["predictions"],
    }
    one, other = (
        [row["predictions"][0] for row in estimator.predict(finite(1), checkpoint_path=path)]
        for path in (results[0], None)
    )
    assert one == other


def test_at_max_steps_there_is_nothing_to_do(tmp_path: Path) -> None:
    estimator = regressor(tmp_path)
    tf.estimator.train_and_evaluate(estimator, TrainSpec(input_fn, 12), evaluation())
    again = tf.estimator.train_and_evaluate(estimator, TrainSpec(input_fn, 12), evaluation())
    assert again == (None, None)
    assert evaluated_steps(tmp_path / "eval") == [10, 12]


def test_a_second_call_goes_on(tmp_path: Path) -> None:
    estimator = regressor(tmp_path)
    tf.estimator.train_and_evaluate(estimator, TrainSpec(input_fn, 12), evaluation())
    tf.estimator.train_and_evaluate(estimator, TrainSpec(input_fn, 25), evaluation())
    assert evaluated_steps(tmp_path / "eval") == [10, 12, 22, 25]


def test_checkpoints_come_no_faster_than_the_throttle_allows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "psys"):
        tf.estimator.train_and_evaluate(
            regressor(tmp_path), TrainSpec(input_fn, 35), evaluation(throttle_secs=600)
        )
    assert evaluated_steps(tmp_path / "eval") == [10, 35]
    assert "Not evaluating step 20 now" in caplog.text
    assert "Not evaluating step 35" not in caplog.text


def test_start_delay_is_the_evaluators(tmp_path: Path) -> None:
    spec = evaluation(start_delay_secs=3600)
    tf.estimator.train_and_evaluate(regressor(tmp_path), TrainSpec(input_fn, 5), spec)
    assert evaluated_steps(tmp_path / "eval") == [5]


def test_a_name_sets_evaluations_apart(tmp_path: Path) -> None:
    tf.estimator.train_and_evaluate(
        regressor(tmp_path), TrainSpec(input_fn, 5), evaluation(name="dev")
    )
    assert evaluated_steps(tmp_path / "eval_dev") == [5]
    assert not (tmp_path / "eval").exists()


def test_the_end_of_the_input_ends_with_an_evaluation(tmp_path: Path) -> None:
    exports = Exports()
    metrics, _ = tf.estimator.train_and_evaluate(
        regressor(tmp_path), TrainSpec(finite(13)), evaluation(exporters=exports)
    )
    assert metrics["global_step"] == 13
    assert exports.calls == [(10, False), (13, True)]


def test_an_endless_training_can_be_stopped_by_a_hook(tmp_path: Path) -> None:
    class StopAt(tf.train.SessionRunHook):
        def after_run(self, run_context: Any, run_values: Any) -> None:
            if run_values.global_step == 17:
                run_context.request_stop()

    metrics, _ = tf.estimator.train_and_evaluate(
        regressor(tmp_path), TrainSpec(input_fn, hooks=[StopAt()]), evaluation()
    )
    assert metrics["global_step"] == 17


def test_user_listeners_come_before_the_evaluation(tmp_path: Path) -> None:
    told: list[Any] = []

    class Listener(tf.train.CheckpointSaverListener):
        def after_save(self, session: Session | None, global_step_value: int) -> None:
            done = (tmp_path / "eval").exists() and evaluated_steps(tmp_path / "eval")
            told.append((global_step_value, done))

    spec = TrainSpec(input_fn, 12, saving_listeners=[Listener()])
    tf.estimator.train_and_evaluate(regressor(tmp_path), spec, evaluation())
    assert told == [(0, False), (10, False), (12, [10])]


def test_evaluation_hooks_run(tmp_path: Path) -> None:
    told: list[int] = []

    class Hook(tf.train.SessionRunHook):
        def after_run(self, run_context: Any, run_values: Any) -> None:
            told.append(run_values.global_step)

    spec = evaluation(hooks=[Hook()], steps=2)
    tf.estimator.train_and_evaluate(regressor(tmp_path), TrainSpec(input_fn, 12), spec)
    assert told == [10, 10, 12, 12]


def test_without_checkpoints_there_is_nothing_to_evaluate(tmp_path: Path) -> None:
    estimator = regressor(tmp_path, steps=None, save_checkpoints_secs=None)
    with pytest.raises(ValueError, match="There should be a CheckpointSaverHook"):
        tf.estimator.train_and_evaluate(estimator, TrainSpec(input_fn, 12), evaluation())


def test_what_an_evaluation_raises_ends_training(tmp_path: Path) -> None:
    def broken() -> Iterator[Any]:
        raise OSError("no such evaluation data")
        yield

    with pytest.raises(OSError, match="no such evaluation data"):
        tf.estimator.train_and_evaluate(
            regressor(tmp_path), TrainSpec(input_fn, 30), evaluation(input_fn=broken)
        )
    assert saved_steps(tmp_path) == [0, 10]


def test_a_chief_needs_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", json.dumps({"task": {"type": "chief", "index": 0}}))
    with pytest.raises(ValueError, match='If "cluster" is not set'):
        regressor(tmp_path)


@pytest.mark.parametrize("argument", ["eval_spec", "estimator", "train_spec"])
def test_arguments_are_checked_before_anything_runs(tmp_path: Path, argument: str) -> None:
    arguments: dict[str, Any] = {
        "estimator": regressor(tmp_path),
        "train_spec": TrainSpec(input_fn, 12),
        "eval_spec": evaluation(),
        argument: object(),
    }
    with pytest.raises(TypeError, match=f"`{argument}` must have type"):
        tf.estimator.train_and_evaluate(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_training_puts_aside_the_verdict_of_an_earlier_job(tmp_path: Path) -> None:
    estimator = regressor(tmp_path)
    estimator.train(input_fn, max_steps=4)
    keep_verdict(str(tmp_path), Verdict(True, global_step=4), "job", None)
    estimator.train(input_fn, max_steps=4)
    assert read_verdict(str(tmp_path)) is not None  # there was nothing to do
    estimator.train(input_fn, max_steps=6)
    assert read_verdict(str(tmp_path)) is None
    assert len(list(tmp_path.glob("verdict.json.*"))) == 1
