"""Estimator.export_saved_model, and predictions from what it wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import psys as tf
from psys.errors import ModelError
from psys.estimator import Estimator, EstimatorSpec, ModeKeys
from psys.estimator.export import load_export

X = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
WORDS = np.array([b"a", b"b"])


def endless() -> Iterator[Any]:
    while True:
        yield {"x": X, "word": WORDS}, np.array([0, 1])


def evaluated() -> Any:
    return {"x": X, "word": WORDS}, np.array([0, 1])


def unlabelled() -> Any:
    return {"x": X, "word": WORDS}


@pytest.fixture
def classifier(tmp_path: Path) -> Any:
    """A trained wide and deep model."""
    word = tf.feature_column.categorical_column_with_hash_bucket("word", 10)
    estimator = tf.estimator.DNNLinearCombinedClassifier(
        linear_feature_columns=[word],
        dnn_feature_columns=[
            tf.feature_column.numeric_column("x", shape=2),
            tf.feature_column.embedding_column(word, 3),
        ],
        dnn_hidden_units=[4],
        model_dir=str(tmp_path / "model"),
    )
    return estimator.train(endless, steps=3)


def signature(path: str) -> Any:
    return json.loads((Path(path) / "export.json").read_text())["signature"]


def test_an_export_predicts_as_the_model_does(tmp_path: Path, classifier: Any) -> None:
    path = classifier.export_saved_model(str(tmp_path / "export"), unlabelled)
    assert Path(path).parent == tmp_path / "export"
    exported, trained = (
        list(classifier.predict(unlabelled, "logits", checkpoint_path=one)) for one in (path, None)
    )
    assert [row["logits"].tobytes() for row in exported] == [
        row["logits"].tobytes() for row in trained
    ]
    assert classifier.evaluate(evaluated, checkpoint_path=path)["global_step"] == 3
    assert load_export(path).global_step == 3


def test_the_signature_is_what_is_received_and_predicted(tmp_path: Path, classifier: Any) -> None:
    described: Any = {
        "features": {
            "word": {"dtype": "string", "shape": [None]},
            "x": {"dtype": "float32", "shape": [None, 2]},
        },
        "predictions": sorted(next(classifier.predict(unlabelled))),
    }
    lists = {"x": np.asarray(X).tolist(), "word": ["a", "b"]}
    for number, received in enumerate(
        (unlabelled(), SimpleNamespace(features=unlabelled(), receiver_tensors={}))
    ):
        base = str(tmp_path / f"{number}")
        assert signature(classifier.export_saved_model(base, lambda r=received: r)) == described
    found = signature(classifier.export_saved_model(str(tmp_path / "lists"), lambda: lists))
    assert found["features"]["word"] == described["features"]["word"]


def test_without_a_receiver_it_is_what_was_evaluated(tmp_path: Path, classifier: Any) -> None:
    base = str(tmp_path / "before")
    assert signature(classifier.export_saved_model(base)) == {"features": {}, "predictions": []}
    classifier.evaluate(evaluated)
    found = signature(classifier.export_saved_model(str(tmp_path / "after")))
    assert set(found["features"]) == {"x", "word"}
    assert "probabilities" in found["predictions"]


def test_what_cannot_be_predicted_is_not_exported(tmp_path: Path, classifier: Any) -> None:
    with pytest.raises(ModelError, match="word"):
        classifier.export_saved_model(str(tmp_path / "export"), lambda: {"x": X})
    assert not (tmp_path / "export").exists()


def test_an_earlier_checkpoint_can_be_exported_with_assets(tmp_path: Path, classifier: Any) -> None:
    first = classifier.latest_checkpoint()
    classifier.train(endless, steps=1)
    (tmp_path / "words.txt").write_text("a b")
    path = classifier.export_saved_model(
        str(tmp_path / "export"),
        unlabelled,
        assets_extra={"lists/words.txt": str(tmp_path / "words.txt")},
        checkpoint_path=first,
    )
    assert load_export(path).global_step == 3
    assert (Path(path) / "assets.extra" / "lists" / "words.txt").read_text() == "a b"


def test_a_model_of_one_array_has_a_feature_and_an_output(tmp_path: Path) -> None:
    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        outputs = tf.layers.dense(features, 1)[:, 0]
        if mode == ModeKeys.PREDICT:
            return EstimatorSpec(mode, predictions=outputs)
        loss = tf.losses.mean_squared_error(labels, outputs)
        train_op = tf.train.AdamOptimizer().minimize(loss)
        return EstimatorSpec(mode, loss=loss, train_op=train_op)

    estimator = Estimator(model_fn, model_dir=str(tmp_path / "model"))
    estimator.train(lambda: (X, [0.0, 1.0]), steps=1)
    path = estimator.export_saved_model(str(tmp_path / "export"), lambda: X)
    assert signature(path) == {
        "features": {"feature": {"dtype": "float32", "shape": [None, 2]}},
        "predictions": ["output"],
    }
    assert len(list(estimator.predict(lambda: X, checkpoint_path=path))) == 2
