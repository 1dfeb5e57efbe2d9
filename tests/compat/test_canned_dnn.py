"""Canned deep models from fixed weights, against numbers that tf.estimator printed."""

from __future__ import annotations

import numpy as np
import pytest
from canned_model import (
    AGE,
    HEIGHT,
    PAIR,
    THREE_LOGITS,
    TWO_INPUTS,
    WEIGHTS,
    Model,
    arrays,
    assert_close,
    assert_results,
    deep,
)

from psys import feature_column as fc
from psys import nn
from psys.compute.variables import (
    BuildStore,
    Prefetch,
)
from psys.estimator.canned.binary_class_head import BinaryClassHead
from psys.estimator.canned.multi_class_head import MultiClassHead
from psys.estimator.canned.regression_head import RegressionHead
from psys.estimator.model_fn import ModeKeys


def test_dnn_variables_have_tfs_names() -> None:
    color = fc.categorical_column_with_hash_bucket("color", 5)
    column = fc.embedding_column(color, 3)
    features = {"age": [[1.0]], "color": [["red"]]}
    model = Model(deep(RegressionHead(), AGE, column), features)
    assert {name: value.shape for name, value in model.values.items()} == {
        "dnn/input_from_feature_columns/input_layer/color_embedding/embedding_weights": (5, 3),
        "dnn/hiddenlayer_0/kernel": (4, 2),
        "dnn/hiddenlayer_0/bias": (2,),
        "dnn/hiddenlayer_1/kernel": (2, 2),
        "dnn/hiddenlayer_1/bias": (2,),
        "dnn/logits/kernel": (2, 1),
        "dnn/logits/bias": (1,),
    }
    table = "dnn/input_from_feature_columns/input_layer/color_embedding/embedding_weights"
    assert model.built.prefetches == [Prefetch(table, color)]


def test_dnn_logits() -> None:
    for x, one, three in ((10.0, -2.08, [-2.08, 2.08, 1.19]), (5.0, -1.08, [-1.08, 1.08, 0.69])):
        features = {"age": [[x]]}
        model = Model(deep(RegressionHead(), AGE), features).load(**WEIGHTS)
        assert_close(model.predict(features)["predictions"], [[one]])
        model = Model(deep(RegressionHead(3), AGE), features).load(**THREE_LOGITS)
        assert_close(model.predict(features)["predictions"], [three])


def test_dnn_logits_of_two_inputs() -> None:
    together, apart = {"age": [[10.0, 8.0]]}, {"age": [[10.0]], "height": [[8.0]]}
    for features, columns in ((together, [PAIR]), (apart, [HEIGHT, AGE])):
        model = Model(deep(RegressionHead(), *columns), features)
        assert_close(
            model.load(**{**WEIGHTS, **TWO_INPUTS}).predict(features)["predictions"], [[-0.48]]
        )
        model = Model(deep(RegressionHead(3), *columns), features)
        assert_close(
            model.load(**{**THREE_LOGITS, **TWO_INPUTS}).predict(features)["predictions"],
            [[-0.48, 0.48, 0.39]],
        )


def test_dnn_regressor_evaluates() -> None:
    one = {"age": [[10.0]]}
    model = Model(deep(RegressionHead(), AGE), one).load(**WEIGHTS)
    assert_results(model.evaluate(one, [[1]]), 1e-4, loss=9.4864)
    pair = {"age": [[10.0, 8.0]], "w": [10.0]}
    labels = [[1, -1, 0.5]]
    for reduction, plain, weighted in (
        ("sum", 4.3929, 43.929),
        ("sum_over_batch_size", 1.4643, 14.643),
    ):
        for weight_column, loss in ((None, plain), ("w", weighted)):
            head = RegressionHead(3, weight_column, reduction)
            model = Model(deep(head, PAIR), pair).load(**{**THREE_LOGITS, **TWO_INPUTS})
            assert_results(
                model.evaluate(pair, labels),
                1e-4,
                loss=loss,
                prediction__mean=0.13,
                label__mean=1 / 6,
            )


def test_dnn_classifier_evaluates() -> None:
    features = {"age": [[10.0], [10.0]]}
    model = Model(deep(BinaryClassHead(), AGE), features).load(**WEIGHTS)
    assert_results(
        model.evaluate(features, [[1], [0]]),
        loss=1.157721,
        average_loss=1.157721,
        accuracy=0.5,
        prediction__mean=0.11105597,
        label__mean=0.5,
        accuracy_baseline=0.5,
        auc=0.5,
        auc_precision_recall=0.5,
    )
    assert_results(model.evaluate(features, [[0.8], [0.4]]), loss=1.365721)


def test_dnn_multi_class_evaluates_and_predicts() -> None:
    features = {"age": [[10.0, 8.0], [10.0, 8.0]], "w": [10.0, 100.0]}
    values = {**THREE_LOGITS, **TWO_INPUTS}
    model = Model(deep(MultiClassHead(3), PAIR), features).load(**values)
    assert_results(model.evaluate(features, [[1], [0]]), loss=1.311527, accuracy=0.5)
    predictions = model.predict(features)
    assert_close(predictions["probabilities"][0], [0.16670536, 0.43538380, 0.39791084])
    assert predictions["class_ids"].tolist() == [[1], [1]]
    weighted = Model(deep(MultiClassHead(3, "w"), PAIR), features).load(**values)
    assert_results(weighted.evaluate(features, [[1], [0]]), loss=93.734)


def test_dnn_first_losses() -> None:
    one = {"age": [[10.0]]}
    for label, loss in ((1, 2.197721), (0.8, 1.781721)):
        model = Model(deep(BinaryClassHead(), AGE), one, [[label]]).load(**WEIGHTS)
        assert model.train(one, [[label]]) == pytest.approx(loss, rel=1e-5)
    model = Model(deep(MultiClassHead(3), AGE), one, [[1]]).load(**THREE_LOGITS)
    assert model.train(one, [[1]]) == pytest.approx(0.35505795, rel=1e-5)


def test_dnn_regressor_trace() -> None:
    one = {"age": [[10.0]]}
    model = Model(deep(RegressionHead(), AGE), one, [[1]]).load(**WEIGHTS)
    model.train(one, [[1]])
    assert_close(model.value("hiddenlayer_0/kernel"), [[0.55000067, 0.549999]])
    assert_close(model.value("hiddenlayer_0/bias"), [0.050065752, -0.050102629])
    assert_close(model.value("hiddenlayer_1/kernel"), [[0.95000178, 0.8], [-0.84999728, -1]])
    assert_close(model.value("hiddenlayer_1/bias"), [0.15006575, -0.2])
    assert_close(model.value("logits/kernel"), [[-0.95001161], [1]])
    assert_close(model.value("logits/bias"), [0.34993425])
    for _ in range(4):
        model.train(one, [[1]])
    assert_close(model.value("hiddenlayer_0/kernel"), [[0.52097899, 0.58231491]], 1e-4)
    assert_close(model.value("hiddenlayer_1/kernel"), [[0.92220074, 0.8], [-0.88370317, -1]], 1e-4)
    assert_close(model.value("logits/kernel"), [[-0.94172841], [1]], 1e-4)
    assert_close(model.value("logits/bias"), [0.39905185], 1e-4)


def test_dnn_classifier_trace() -> None:
    two = {"age": [[10.0], [10.0]]}
    labels = [[1], [0]]
    model = Model(deep(BinaryClassHead(loss_reduction="sum"), AGE), two, labels).load(**WEIGHTS)
    model.train(two, labels)
    assert_close(model.value("hiddenlayer_0/kernel"), [[0.55004132, 0.54993558]])
    assert_close(model.value("logits/kernel"), [[-0.95071381], [1]])
    assert_close(model.value("logits/bias"), [0.34631896])
    (accumulator,) = model.slots["dnn/hiddenlayer_0/kernel"].values()
    assert_close(accumulator, [[60.610989, 38.827026]])
    for _ in range(4):
        model.train(two, labels)
    assert_close(model.value("hiddenlayer_0/kernel"), [[0.53731441, 0.5640977]], 1e-4)
    assert_close(model.value("logits/bias"), [0.35938185], 1e-4)


def test_dropout_acts_in_training_only() -> None:
    features = {"age": [[1.0]] * 64}
    function = deep(RegressionHead(), AGE, hidden_units=[64], dropout=0.5)
    model = Model(function, features, np.zeros((64, 1)))
    predictions = model.predict(features)["predictions"]
    assert np.ptp(predictions) == 0
    with BuildStore(seed=3):
        dropped = function(arrays(features), np.zeros((64, 1)), ModeKeys.TRAIN)
    assert float(dropped.loss) != float(np.mean(predictions**2))


def test_any_function_of_arrays_is_an_activation() -> None:
    features = {"age": [[10.0]]}
    function = deep(RegressionHead(), AGE, activation_fn=lambda x: nn.tanh(x) * 2)
    model = Model(function, features, [[1]]).load(**WEIGHTS)
    hidden = 2 * np.tanh([6.1, 4.9])
    hidden = 2 * np.tanh(hidden @ [[1, 0.8], [-0.8, -1]] + [0.2, -0.2])
    assert_close(model.predict(features)["predictions"], [[hidden @ [-1, 1] + 0.3]])
    assert model.train(features, [[1]]) > model.train(features, [[1]])
