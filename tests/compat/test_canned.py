"""Canned models from fixed weights, against numbers that tf.estimator printed.

The model functions run as one step runs them: values and rows in, gradients out, applied by the
optimizers themselves; no Estimator, no shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from psys import feature_column as fc
from psys import nn
from psys.arrays import Array, IndexedSlices
from psys.compute.variables import (
    BuildStore,
    InputFeatures,
    Prefetch,
    ReadStore,
    TrainStore,
    untraced,
)
from psys.errors import ConfigError, ModelError
from psys.estimator.canned.arguments import classifier_head
from psys.estimator.canned.binary_class_head import BinaryClassHead
from psys.estimator.canned.dnn import DNNClassifier, DNNRegressor, dnn_model_fn
from psys.estimator.canned.dnn_linear_combined import (
    DNNLinearCombinedClassifier,
    DNNLinearCombinedRegressor,
    combined_model_fn,
)
from psys.estimator.canned.linear import (
    LinearClassifier,
    LinearRegressor,
    default_learning_rate,
    linear_model_fn,
)
from psys.estimator.canned.multi_class_head import MultiClassHead
from psys.estimator.canned.regression_head import RegressionHead
from psys.estimator.model_fn import EstimatorSpec, ModeKeys
from psys.optimizers import AdagradOptimizer, FtrlOptimizer, GradientDescentOptimizer, Optimizer

ModelFn = Callable[..., EstimatorSpec]
AGE = fc.numeric_column("age")
X = fc.numeric_column("x")
HEIGHT = fc.numeric_column("height")


class Model:
    """Variables of one model in memory, trained and read one batch at a time."""

    def __init__(self, model_fn: ModelFn, features: Mapping[str, Any], labels: Any = None) -> None:
        self._model_fn = model_fn
        mode = ModeKeys.PREDICT if labels is None else ModeKeys.TRAIN
        with BuildStore(seed=1) as self.built:
            model_fn(_arrays(features), labels, mode)
        self.values = {
            name: spec.initializer.rows(name, spec.shape, spec.dtype, 0, spec.rows, 1).reshape(
                spec.shape
            )
            for name, spec in self.built.specs.items()
        }
        self.slots: dict[str, dict[str, Array]] = {}

    def load(self, **values: Any) -> Model:
        """Set variables; a name is the end of one variable's name, with __ for /."""
        for suffix, value in values.items():
            (name,) = [n for n in self.values if n.endswith(suffix.replace("__", "/"))]
            assert np.shape(value) == self.values[name].shape, name
            self.values[name] = np.array(value, np.float32)
        return self

    def value(self, suffix: str) -> Array:
        (name,) = [n for n in self.values if n.endswith(suffix)]
        return self.values[name]

    def train(self, features: Mapping[str, Any], labels: Any) -> float:
        store = TrainStore(
            self.built.specs, self.values, {}, lambda name, ids: self.values[name][ids]
        )
        with store:
            spec = self._model_fn(_arrays(features), np.array(labels), ModeKeys.TRAIN)
        assert spec.train_op is not None
        assert untraced(spec.loss).dtype == np.float32
        for minimization in spec.train_op.minimizations:
            for name, gradient in store.gradients(minimization.loss).items():
                if minimization.var_list is None or name.startswith(minimization.var_list):
                    self._apply(minimization.optimizer, name, gradient)
        return float(untraced(spec.loss))

    def _apply(self, optimizer: Optimizer, name: str, gradient: Any) -> None:
        value = self.values[name]
        slots = self.slots.setdefault(
            name, {slot: np.full_like(value, fill) for slot, fill in optimizer.slots.items()}
        )
        if isinstance(gradient, IndexedSlices):
            assert gradient.values.dtype == np.float32
            summed = gradient.summed()
            optimizer.apply_sparse(value, slots, {}, summed.indices, summed.values)
        else:
            assert gradient.dtype == np.float32
            optimizer.apply_dense(value, slots, {}, gradient)

    def _read(self, features: Mapping[str, Any], labels: Any, mode: str) -> EstimatorSpec:
        with ReadStore(self.values.__getitem__, lambda name, ids: self.values[name][ids]):
            return self._model_fn(_arrays(features), labels, mode)

    def evaluate(self, features: Mapping[str, Any], labels: Any) -> dict[str, float]:
        spec = self._read(features, np.array(labels), ModeKeys.EVAL)
        results = {name: metric.result() for name, metric in spec.eval_metric_ops.items()}
        return {"loss": float(spec.loss), **results}

    def predict(self, features: Mapping[str, Any]) -> dict[str, Array]:
        predictions: dict[str, Array] = self._read(features, None, ModeKeys.PREDICT).predictions
        return predictions


def _arrays(features: Mapping[str, Any]) -> InputFeatures:
    return InputFeatures({name: np.array(value) for name, value in features.items()})


def model_fn(function: ModelFn, **arguments: Any) -> ModelFn:
    return lambda features, labels, mode: function(features, labels, mode, **arguments)


def linear(head: Any, *columns: Any, **arguments: Any) -> ModelFn:
    return model_fn(linear_model_fn, head=head, feature_columns=columns, **arguments)


def deep(head: Any, *columns: Any, hidden_units: Any = (2, 2), **arguments: Any) -> ModelFn:
    return model_fn(
        dnn_model_fn, head=head, hidden_units=hidden_units, feature_columns=columns, **arguments
    )


def assert_close(actual: Any, expected: Any, rel: float = 1e-5) -> None:
    np.testing.assert_allclose(actual, expected, rtol=rel, atol=1e-6)


def assert_results(results: Mapping[str, float], rel: float = 1e-5, **expected: float) -> None:
    for name, value in expected.items():
        assert results[name.replace("__", "/")] == pytest.approx(value, rel=rel, abs=1e-6), name


# --- linear: evaluate and predict ---------------------------------------------------------------


def test_linear_regressor_evaluates() -> None:
    one = {"age": [[1.0]]}
    model = Model(linear(RegressionHead(), AGE), one).load(
        age__weights=[[11.0]], bias_weights=[2.0]
    )
    assert_results(
        model.evaluate(one, [[10]]),
        loss=9,
        average_loss=9,
        prediction__mean=13,
        label__mean=10,
    )
    assert set(model.values) == {
        "linear/linear_model/age/weights",
        "linear/linear_model/bias_weights",
    }


@pytest.mark.parametrize(("reduction", "loss"), [("sum", 27), ("sum_over_batch_size", 13.5)])
def test_linear_regressor_weighs_examples(reduction: str, loss: float) -> None:
    head = RegressionHead(weight_column="w", loss_reduction=reduction)
    two = {"age": [[1.0], [1.0]], "w": [[1.0], [2.0]]}
    model = Model(linear(head, AGE), two).load(age__weights=[[11.0]], bias_weights=[2.0])
    assert_results(model.evaluate(two, [[10], [10]]), average_loss=9, loss=loss)


def test_linear_regressor_with_wide_columns_and_labels() -> None:
    features = {"age": [[2.0, 4.0, 5.0]]}
    column = fc.numeric_column("age", shape=3)
    model = Model(linear(RegressionHead(2), column), features)
    model.load(age__weights=[[1, 2], [3, 4], [5, 6]], bias_weights=[7, 8])
    assert model.evaluate(features, [[46, 58]])["loss"] == 0


def test_linear_regressor_with_two_columns() -> None:
    features = {"age": [[20.0], [40.0]], "height": [[4.0], [8.0]]}
    model = Model(linear(RegressionHead(), HEIGHT, AGE), features)
    model.load(age__weights=[[10.0]], height__weights=[[2.0]], bias_weights=[5.0])
    assert model.evaluate(features, [[213], [421]])["loss"] == 0


def test_linear_regressor_predicts() -> None:
    features: dict[str, Any] = {"x": [[2.0]]}
    model = Model(linear(RegressionHead(), X), features)
    model.load(x__weights=[[10.0]], bias_weights=[0.2])
    assert_close(model.predict(features)["predictions"], [[20.2]])
    features = {"x": [[1.0, 2, 3, 4], [5, 6, 7, 8]]}
    model = Model(linear(RegressionHead(3), fc.numeric_column("x", shape=4)), features)
    model.load(
        x__weights=[[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6]], bias_weights=[0.2, 0.4, 0.6]
    )
    assert_close(model.predict(features)["predictions"], [[30.2, 40.4, 50.6], [70.2, 96.4, 122.6]])


@pytest.mark.parametrize(
    ("combiner", "expected"),
    [("sum", [12, 13]), ("mean", [8.5, 9]), ("sqrtn", [9.94974, 10.65685])],
)
def test_linear_regressor_combines_categories(combiner: str, expected: list[float]) -> None:
    column = fc.categorical_column_with_vocabulary_list("language", ["a", "b", "c"])
    features = {"language": [["a", "c"], ["b", "c"]]}
    model = Model(linear(RegressionHead(), column, sparse_combiner=combiner), features)
    model.load(language__weights=[[2], [3], [5]], bias_weights=[5])
    assert_close(model.predict(features)["predictions"][:, 0], expected)


def test_linear_classifier_evaluates() -> None:
    features: dict[str, Any] = {"age": [[1.0]]}
    model = Model(linear(BinaryClassHead(), AGE), features)
    model.load(age__weights=[[-11.0]], bias_weights=[-30.0])
    assert_results(
        model.evaluate(features, [[1]]),
        loss=41,
        accuracy=0,
        precision=0,
        recall=0,
        prediction__mean=0,
        label__mean=1,
        accuracy_baseline=1,
        auc=0,
        auc_precision_recall=1,
    )


def test_linear_classifier_evaluates_a_batch() -> None:
    features = {"age": [[17.0], [18.0]], "w": [[1.0], [2.0]]}
    model = Model(linear(BinaryClassHead(), AGE), features)
    model.load(age__weights=[[2.0]], bias_weights=[-35.0])
    assert_results(
        model.evaluate(features, [[1], [0]]),
        3e-4,
        loss=1.3133,
        average_loss=1.3133,
        accuracy=0,
        prediction__mean=0.5,
        label__mean=0.5,
        accuracy_baseline=0.5,
        auc=0,
        auc_precision_recall=0.3068,
    )
    weighted = Model(linear(BinaryClassHead(weight_column="w"), AGE), features)
    weighted.load(age__weights=[[2.0]], bias_weights=[-35.0])
    assert_results(
        weighted.evaluate(features, [[1], [0]]),
        3e-4,
        loss=1.96995,
        average_loss=1.3133,
        auc_precision_recall=0.1891,
        label__mean=1 / 3,
        prediction__mean=0.5770,
    )


def test_linear_classifier_predicts() -> None:
    features = {"x": [[1.0]]}
    model = Model(linear(BinaryClassHead(), X), features)
    predictions = model.load(x__weights=[[-11.0]], bias_weights=[10.0]).predict(features)
    assert_close(predictions["logits"], [[-1]])
    assert_close(predictions["logistic"], [[0.26894]], 1e-4)
    assert_close(predictions["probabilities"], [[0.73106, 0.26894]], 1e-4)
    assert predictions["class_ids"].tolist() == [[0]]
    assert predictions["classes"].tolist() == [[b"0"]]
    assert predictions["all_classes"].tolist() == [[b"0", b"1"]]


# --- linear: training -----------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "loss"), [(2, 0.6931472), (4, 1.3862944)])
def test_linear_classifier_starts_from_zero(classes: int, loss: float) -> None:
    features = {"age": [[17.0]]}
    head = classifier_head(classes, None, None, "sum_over_batch_size")
    model = Model(linear(head, AGE), features, [[1]])
    assert model.train(features, [[1]]) == pytest.approx(loss, rel=1e-6)


def test_linear_classifier_first_losses() -> None:
    one, two = {"age": [[17.0]]}, {"age": [[17.0], [18.5]]}
    for labels, features, reduction, loss in (
        ([[1]], one, "sum", 1.3133),
        ([[0.8]], one, "sum", 1.1132617),
        ([[1], [0]], two, "sum", 3.4402),
        ([[1], [0]], two, "sum_over_batch_size", 1.7201),
    ):
        model = Model(linear(BinaryClassHead(loss_reduction=reduction), AGE), features, labels)
        model.load(age__weights=[[2.0]], bias_weights=[-35.0])
        assert model.train(features, labels) == pytest.approx(loss, rel=1e-4)
    model = Model(linear(MultiClassHead(4), AGE), one, [[1]])
    model.load(age__weights=[[0, 2, 4, 6]], bias_weights=[-35] * 4)
    assert model.train(one, [[1]]) == pytest.approx(68, rel=1e-4)


def test_linear_regressor_first_losses() -> None:
    one, two = {"age": [[17.0]]}, {"age": [[17.0], [15.0]]}
    assert Model(linear(RegressionHead(), AGE), one, [[5]]).train(one, [[5]]) == 25
    for reduction, loss in (("sum", 52004), ("sum_over_batch_size", 26002)):
        model = Model(linear(RegressionHead(loss_reduction=reduction), AGE), two, [[5], [3]])
        model.load(age__weights=[[10.0]], bias_weights=[5.0])
        assert model.train(two, [[5], [3]]) == loss


XS: dict[str, Any] = {"x": [1.0, 2.0, 3.0, 4.0]}


def trained(
    function: ModelFn, labels: Any, stops: Any, features: Mapping[str, Any] = XS
) -> Iterator[Model]:
    """Yield the model at each of ``stops``, trained on batches of two, not shuffled.

    As in the recorded runs, each stop is the end of one call of train, and the next one
    begins with the first batch again.
    """
    model = Model(function, features, np.array(labels))
    done = 0
    for stop in stops:
        for step in range(stop - done):
            half = slice(0, 2) if step % 2 == 0 else slice(2, 4)
            model.train({name: value[half] for name, value in features.items()}, labels[half])
        done = stop
        yield model


def test_linear_regressor_trace() -> None:
    steps = trained(linear(RegressionHead(loss_reduction="sum"), X), [3, 5, 7, 9], (1, 2, 3, 10))
    weights, biases = [], []
    accumulators, linears = [], []
    for model in steps:
        weights.append(float(model.value("x/weights")[0, 0]))
        biases.append(float(model.value("bias_weights")[0]))
        accumulators.append(float(model.slots["linear/linear_model/x/weights"]["accum"][0, 0]))
        linears.append(float(model.slots["linear/linear_model/x/weights"]["linear"][0, 0]))
    assert_close(weights, [0.19998521, 0.33184558, 0.4345333, 0.97460961])
    assert_close(biases, [0.19996096, 0.33164862, 0.43409979, 0.92854685])
    assert_close(accumulators, [676.1, 1195.9574, 1624.1018, 17115.615])
    assert_close(linears, [-26, -57.380444, -87.558777, -637.5246])
    everything = model.evaluate(XS, [3, 5, 7, 9])
    assert_results(
        everything,
        average_loss=8.2571335,
        prediction__mean=3.3650711,
        label__mean=6,
        loss=33.028534,
    )


def test_linear_regressor_trace_with_v2_reduction() -> None:
    *_, model = trained(linear(RegressionHead(), X), [3, 5, 7, 9], (1, 2, 10))
    assert_close(model.value("x/weights"), [[0.97894126]])
    assert_close(model.value("bias_weights"), [0.94160199])
    assert_results(model.evaluate(XS, [3, 5, 7, 9]), average_loss=8.1207561, loss=8.1207561)


def test_linear_classifier_trace() -> None:
    steps = trained(linear(BinaryClassHead(loss_reduction="sum"), X), [0, 1, 1, 0], (1, 2, 10))
    weights, biases = [], []
    for model in steps:
        weights.append(float(model.value("x/weights")[0, 0]))
        biases.append(float(model.value("bias_weights")[0]))
    assert_close(weights, [0.16903085, 0.25716004, 0.077627741])
    assert_close(biases, [0, -0.073966958, -0.33352336])
    assert_results(
        model.evaluate(XS, [0, 1, 1, 0]),
        average_loss=0.69651270,
        accuracy=0.5,
        auc=0.5,
        prediction__mean=0.46525797,
    )


def test_linear_multi_class_trace() -> None:
    *_, model = trained(
        linear(MultiClassHead(3, loss_reduction="sum"), X), [0, 1, 2, 1], (1, 2, 10)
    )
    assert_close(model.value("x/weights"), [[-0.45958531, 0.15971565, -0.017051809]])
    assert_close(model.value("bias_weights"), [0.3116661, -0.15956682, -0.15132658])
    assert_results(model.evaluate(XS, [0, 1, 2, 1]), average_loss=0.88574004)


def test_linear_hash_column_trace() -> None:
    column = fc.categorical_column_with_hash_bucket("x", 10)
    features = {"x": ["a", "b", "c", "d"]}
    function = linear(BinaryClassHead(loss_reduction="sum"), column)
    (model,) = trained(function, [0, 1, 1, 0], (4,), features)
    expected = np.zeros((10, 1))
    expected[[2, 5, 9], 0] = [0.47787505, -0.28987837, -0.29033148]
    assert_close(model.value("x/weights"), expected)
    assert_close(model.value("bias_weights"), [-0.059795368])


# --- deep -----------------------------------------------------------------------------------------

WEIGHTS: dict[str, Any] = {
    "hiddenlayer_0__kernel": [[0.6, 0.5]],
    "hiddenlayer_0__bias": [0.1, -0.1],
    "hiddenlayer_1__kernel": [[1.0, 0.8], [-0.8, -1.0]],
    "hiddenlayer_1__bias": [0.2, -0.2],
    "logits__kernel": [[-1.0], [1.0]],
    "logits__bias": [0.3],
}
THREE_LOGITS: dict[str, Any] = {
    **WEIGHTS,
    "logits__kernel": [[-1, 1, 0.5], [-1, 1, 0.5]],
    "logits__bias": [0.3, -0.3, 0],
}
TWO_INPUTS = {"hiddenlayer_0__kernel": [[0.6, 0.5], [-0.6, -0.5]]}
PAIR = fc.numeric_column("age", shape=2)


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
        dropped = function(_arrays(features), np.zeros((64, 1)), ModeKeys.TRAIN)
    assert float(dropped.loss) != float(np.mean(predictions**2))


def test_any_function_of_arrays_is_an_activation() -> None:
    features = {"age": [[10.0]]}
    function = deep(RegressionHead(), AGE, activation_fn=lambda x: nn.tanh(x) * 2)
    model = Model(function, features, [[1]]).load(**WEIGHTS)
    hidden = 2 * np.tanh([6.1, 4.9])
    hidden = 2 * np.tanh(hidden @ [[1, 0.8], [-0.8, -1]] + [0.2, -0.2])
    assert_close(model.predict(features)["predictions"], [[hidden @ [-1, 1] + 0.3]])
    assert model.train(features, [[1]]) > model.train(features, [[1]])


# --- combined -------------------------------------------------------------------------------------


def combined(head: Any, **arguments: Any) -> ModelFn:
    settings = {
        "linear_feature_columns": [AGE],
        "dnn_feature_columns": [AGE],
        "dnn_hidden_units": [2, 2],
    }
    return model_fn(combined_model_fn, head=head, **{**settings, **arguments})


def test_combined_logits_are_the_sum() -> None:
    features = {"age": [[10.0]]}
    model = Model(combined(RegressionHead(), dnn_hidden_units=[1]), features)
    model.load(
        age__weights=[[1.0]],
        bias_weights=[2.0],
        hiddenlayer_0__kernel=[[3.0]],
        hiddenlayer_0__bias=[4.0],
        logits__kernel=[[5.0]],
        logits__bias=[6.0],
    )
    assert_close(model.predict(features)["predictions"], [[188]])


def test_combined_trace() -> None:
    """With the rates that this trace was made with: TF 2's defaults."""
    features = {"age": [[10.0]]}
    function = combined(
        RegressionHead(),
        dnn_optimizer=AdagradOptimizer(0.001),
        linear_optimizer=FtrlOptimizer(0.005),
    )
    model = Model(function, features, [[1]])
    model.load(**WEIGHTS, age__weights=[[0.5]], bias_weights=[0.25])
    model.train(features, [[1]])
    assert_close(model.value("logits/kernel"), [[-1.0009996], [1]])
    assert_close(model.value("age/weights"), [[0.49135709]])
    assert_close(model.value("bias_weights"), [0.2268455])
    for _ in range(4):
        model.train(features, [[1]])
    assert_close(model.value("age/weights"), [[0.4807182]])
    assert_close(model.value("bias_weights"), [0.21621719])
    assert_close(model.value("logits/kernel"), [[-1.0031518], [1]])


def test_combined_parts_have_optimizers_and_rates_of_their_own() -> None:
    features = {"age": [[10.0]], "x": [[1.0]]}
    with BuildStore(seed=0):
        spec = combined(BinaryClassHead(), linear_feature_columns=[AGE, X])(
            _arrays(features), np.array([[1]]), ModeKeys.TRAIN
        )
    assert spec.train_op is not None
    dnn, linear_part = spec.train_op.minimizations
    assert (dnn.var_list, linear_part.var_list) == (("dnn/",), ("linear/",))
    assert dnn.loss is linear_part.loss
    assert (dnn.optimizer.kind, dnn.optimizer.learning_rate) == ("Adagrad", 0.05)
    assert (linear_part.optimizer.kind, linear_part.optimizer.learning_rate) == ("Ftrl", 0.2)


def test_combined_may_have_one_part_alone() -> None:
    features = {"age": [[10.0]]}
    for absent, prefix in (("linear_feature_columns", "dnn/"), ("dnn_feature_columns", "linear/")):
        model = Model(combined(BinaryClassHead(), **{absent: []}), features, [[1]])
        assert all(name.startswith(prefix) for name in model.values)
        assert model.train(features, [[1]]) > 0


def test_the_linear_rate_falls_with_the_number_of_columns() -> None:
    assert default_learning_rate(1) == 0.2
    assert default_learning_rate(100) == pytest.approx(0.1)


# --- constructors ---------------------------------------------------------------------------------


def test_optimizers_in_every_form() -> None:
    features = {"age": [[10.0]]}
    forms: list[tuple[Any, str, float]] = [
        ("Adagrad", "Adagrad", 0.05),
        ("SGD", "SGD", 0.05),
        (GradientDescentOptimizer(0.7), "SGD", 0.7),
        (lambda: GradientDescentOptimizer(0.3), "SGD", 0.3),
    ]
    for given, kind, rate in forms:
        with BuildStore(seed=0):
            spec = deep(RegressionHead(), AGE, optimizer=given)(
                _arrays(features), np.array([[1]]), ModeKeys.TRAIN
            )
        assert spec.train_op is not None
        (minimization,) = spec.train_op.minimizations
        assert (minimization.optimizer.kind, minimization.optimizer.learning_rate) == (kind, rate)


BAD: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (DNNClassifier, {"optimizer": "Adamax"}, "Unsupported optimizer name"),
    (DNNClassifier, {"optimizer": 3}, "not an Optimizer instance"),
    (DNNClassifier, {"batch_norm": True}, "batch_norm is not supported yet"),
    (DNNClassifier, {"dropout": 1.0}, r"dropout must be in \[0, 1\), given 1"),
    (DNNClassifier, {"hidden_units": [10, 0]}, "hidden_units must be positive integers"),
    (DNNClassifier, {"feature_columns": []}, "feature_columns must not be empty"),
    (DNNClassifier, {"feature_columns": {"age": AGE}}, "given a dictionary"),
    (DNNClassifier, {"feature_columns": ["age"]}, "must hold feature columns only, given 'age'"),
    (DNNClassifier, {"n_classes": 1}, "n_classes must be an integer of 2 or more, given 1"),
    (DNNClassifier, {"loss_reduction": "max"}, "loss_reduction must be one of"),
    (DNNRegressor, {"label_dimension": 0}, "label_dimension must be >= 1"),
    (LinearClassifier, {"sparse_combiner": "max"}, "sparse_combiner must be 'sum'"),
    (LinearRegressor, {"optimizer": "Adamax"}, "Unsupported optimizer name"),
    (
        DNNLinearCombinedClassifier,
        {},
        "Either linear_feature_columns or dnn_feature_columns must be defined",
    ),
    (
        DNNLinearCombinedRegressor,
        {"dnn_feature_columns": [AGE]},
        "dnn_hidden_units must be defined when dnn_feature_columns is specified",
    ),
    (
        DNNLinearCombinedRegressor,
        {"linear_feature_columns": [AGE], "linear_optimizer": "Adamax"},
        "Unsupported optimizer name",
    ),
]


@pytest.mark.parametrize(("make", "arguments", "message"), BAD)
def test_constructors_refuse_what_they_cannot_use(
    make: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    defaults: dict[str, Any] = {}
    if make in (DNNClassifier, DNNRegressor):
        defaults = {"hidden_units": [2], "feature_columns": [AGE]}
    elif make in (LinearClassifier, LinearRegressor):
        defaults = {"feature_columns": [AGE]}
    with pytest.raises(ConfigError, match=message):
        make(**{**defaults, **arguments})


@pytest.mark.parametrize("function", [linear(RegressionHead(), AGE), deep(RegressionHead(), AGE)])
def test_features_must_be_a_dict(function: ModelFn) -> None:
    with (
        BuildStore(seed=0),
        pytest.raises(ModelError, match="features should be a dictionary of `Tensor`s"),
    ):
        function(np.ones((1, 1)), np.ones((1, 1)), ModeKeys.TRAIN)
