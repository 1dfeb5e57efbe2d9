"""The first run of a model_fn, and one step's loss and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

from psys import feature_column as fc
from psys import layers, losses, train
from psys.arrays import IndexedSlices
from psys.compute.features import InputFeatures
from psys.compute.train_store import TrainStore
from psys.compute.variables import get_variable, variable_scope
from psys.errors import ModelError
from psys.initializers import Constant, RandomNormal
from psys.optimizers import group
from psys.train.model import InitialModel, Model, build, loss_and_gradients

X = np.array([[1.0], [2.0]], np.float32)
SGD = train.GradientDescentOptimizer(0.1)


@dataclass
class Spec:
    """What training looks at of an EstimatorSpec."""

    loss: Any
    train_op: Any
    predictions: Any = field(default_factory=dict)


CallModel = Callable[[Any, Any], Spec]


def step(
    model: Model, call: CallModel, features: Any, global_step: int = 0
) -> tuple[float, dict[str, Any]]:
    values = InitialModel(model.specs, seed=1)
    dense = {name: values.read(name) for name, spec in model.specs.items() if not spec.sparse}
    store = TrainStore(model.specs, dense, {}, values.read_rows, global_step=global_step)
    loss, gradients, _ = loss_and_gradients(model, call, features, None, store)
    return loss, gradients


def two_parts(train_op: Callable[[Any], Any]) -> CallModel:
    """Loss a² + 2b, with a in scope "left" and b in scope "right"."""

    def call(features: Any, labels: Any) -> Spec:
        with variable_scope("left"):
            a = get_variable("a", (), initializer=Constant(3.0))
        with variable_scope("right"):
            b = get_variable("b", (), initializer=Constant(1.0))
        loss = a * a + 2 * b
        return Spec(loss, train_op(loss))

    return call


def test_the_first_run_finds_the_variables_and_their_optimizers() -> None:
    def call(features: Any, labels: Any) -> Spec:
        kernel = get_variable("kernel", (1, 2), initializer=Constant(1.0))
        get_variable("steps", (3,), "int64", initializer=Constant(0))
        get_variable("fixed", (), trainable=False)
        loss = anp.sum(anp.dot(features, kernel))
        return Spec(loss, SGD.minimize(loss))

    model, spec = build(call, X, None, seed=1)
    assert float(spec.loss) == 6.0
    assert {name: one.shape for name, one in model.specs.items()} == {
        "kernel": (1, 2),
        "steps": (3,),
        "fixed": (),
    }
    assert model.optimized == (frozenset({"kernel"}),)
    assert model.specs["kernel"].optimizer == SGD.to_config()
    assert model.specs["fixed"].optimizer is None
    assert model.describe() == "3 variables, 6 parameters, 0.00 MiB"


def test_the_digest_is_of_names_shapes_and_dtypes() -> None:
    def called(name: str, rate: float) -> str:
        def call(features: Any, labels: Any) -> Spec:
            loss = get_variable(name, (), initializer=RandomNormal()) * 1
            return Spec(loss, train.AdamOptimizer(rate).minimize(loss))

        return build(call, X, None, seed=1)[0].digest

    assert called("a", 0.1) == called("a", 0.2)
    assert called("a", 0.1) != called("b", 0.1)


def test_gradients_are_of_the_loss_by_each_variable() -> None:
    call = two_parts(SGD.minimize)
    model, _ = build(call, X, None, seed=1)
    loss, gradients = step(model, call, X)
    assert loss == 11.0
    assert {name: float(one) for name, one in gradients.items()} == {"left/a": 6.0, "right/b": 2.0}


@pytest.mark.parametrize(
    "train_op",
    [
        lambda loss: group(
            SGD.minimize(loss, var_list=["left/a"]),
            train.AdamOptimizer().minimize(loss, var_list=["right/b"]),
        ),
        lambda loss: group(
            train.AdamOptimizer().minimize(loss, var_list=["right/"]), SGD.minimize(loss)
        ),
    ],
    ids=["by name", "the rest"],
)
def test_each_optimizer_has_its_variables(train_op: Callable[[Any], Any]) -> None:
    call = two_parts(train_op)
    model, _ = build(call, X, None, seed=1)
    kinds = {name: spec.optimizer and spec.optimizer["kind"] for name, spec in model.specs.items()}
    assert kinds == {"left/a": "SGD", "right/b": "Adam"}
    assert set(step(model, call, X)[1]) == {"left/a", "right/b"}


def test_two_losses_train_their_own_variables() -> None:
    def call(features: Any, labels: Any) -> Spec:
        a = get_variable("a", (), initializer=Constant(3.0))
        b = get_variable("b", (), initializer=Constant(1.0))
        first, second = a * a + b, 5 * b * a
        return Spec(
            first + second,
            group(SGD.minimize(first, var_list=["a"]), SGD.minimize(second, var_list=["b"])),
        )

    model, _ = build(call, X, None, seed=1)
    loss, gradients = step(model, call, X)
    assert loss == 25.0
    assert (float(gradients["a"]), float(gradients["b"])) == (6.0, 15.0)


@pytest.mark.parametrize(
    ("train_op", "message"),
    [
        (lambda loss: None, "must be what optimizer.minimize.* got NoneType"),
        (lambda loss: SGD.minimize(loss, var_list=["middle/"]), "No variables to optimize"),
        (
            lambda loss: group(
                SGD.minimize(loss, var_list=["left/"]), SGD.minimize(loss, var_list=["left/a"])
            ),
            r"Two optimizers claim \['left/a'\]",
        ),
        (
            lambda loss: group(SGD.minimize(loss), SGD.minimize(loss)),
            r"Two optimizers claim all of \['left/a', 'right/b'\]",
        ),
    ],
)
def test_a_train_op_that_cannot_be_followed_is_refused(
    train_op: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        build(two_parts(train_op), X, None, seed=1)


def test_a_model_needs_a_trainable_variable() -> None:
    def call(features: Any, labels: Any) -> Spec:
        loss = get_variable("a", (), initializer=Constant(3.0), trainable=False)
        return Spec(loss, SGD.minimize(loss))

    with pytest.raises(ModelError, match="made no trainable variable"):
        build(call, X, None, seed=1)


def test_a_variable_the_loss_ignores_has_no_gradient() -> None:
    def call(features: Any, labels: Any) -> Spec:
        get_variable("unused", (2,))
        loss = get_variable("used", (), initializer=Constant(2.0)) ** 2
        return Spec(loss, SGD.minimize(loss))

    model, _ = build(call, X, None, seed=1)
    assert set(step(model, call, X)[1]) == {"used"}


def test_a_loss_of_no_variable_is_an_error() -> None:
    def call(features: Any, labels: Any) -> Spec:
        get_variable("unused", (2,))
        loss = np.float32(2.0)
        return Spec(loss, SGD.minimize(loss))

    model, _ = build(call, X, None, seed=1)
    with pytest.raises(ModelError, match="No gradients provided for any variable"):
        step(model, call, X)


def test_an_optimizer_that_changes_is_an_error() -> None:
    rates = iter([0.1, 0.1, 0.05])

    def call(features: Any, labels: Any) -> Spec:
        loss = get_variable("a", (), initializer=Constant(3.0)) ** 2
        return Spec(loss, train.GradientDescentOptimizer(next(rates)).minimize(loss))

    model, _ = build(call, X, None, seed=1)
    step(model, call, X)
    with pytest.raises(ModelError, match=r"fixed when training begins.*0\.1.*now:.*0\.05"):
        step(model, call, X)


def scheduled(features: Any, labels: Any) -> Spec:
    loss = get_variable("a", (), initializer=Constant(3.0)) ** 2
    rate = train.exponential_decay(0.1, train.get_global_step(), 10, 0.5)
    return Spec(loss, train.GradientDescentOptimizer(rate).minimize(loss))


def test_a_schedule_is_the_same_at_every_step_and_goes_with_the_variable() -> None:
    model, _ = build(scheduled, X, None, seed=1)
    for global_step in (0, 1, 500):
        assert set(step(model, scheduled, X, global_step)[1]) == {"a"}
    config = model.specs["a"].optimizer
    assert config is not None
    assert config["learning_rate"]["schedule"] == "exponential_decay"


def test_a_rate_computed_from_the_step_is_refused_with_advice() -> None:
    def call(features: Any, labels: Any) -> Spec:
        loss = get_variable("a", (), initializer=Constant(3.0)) ** 2
        rate = 0.1 / (1 + train.get_global_step())
        return Spec(loss, train.GradientDescentOptimizer(rate).minimize(loss))

    model, _ = build(call, X, None, seed=1)
    with pytest.raises(ModelError, match=r"is a schedule: psys\.train\.exponential_decay"):
        step(model, call, X, global_step=1)


def test_a_schedule_that_fails_does_so_before_anything_is_sent() -> None:
    @dataclass(frozen=True)
    class Runaway(train.LearningRateSchedule):
        kind = "Runaway"

        def __call__(self, step: int) -> float:
            return float("nan") if step else 0.1

    def call(features: Any, labels: Any) -> Spec:
        loss = get_variable("a", (), initializer=Constant(3.0)) ** 2
        return Spec(loss, train.GradientDescentOptimizer(Runaway()).minimize(loss))

    model, _ = build(call, X, None, seed=1)
    step(model, call, X)
    with pytest.raises(ModelError, match="learning rate nan at global step 7"):
        step(model, call, X, global_step=7)


def test_a_variable_that_turns_up_later_is_an_error() -> None:
    names = iter(["a", "b"])

    def call(features: Any, labels: Any) -> Spec:
        loss = get_variable(next(names), (), initializer=Constant(3.0)) ** 2
        return Spec(loss, SGD.minimize(loss))

    model, _ = build(call, X, None, seed=1)
    with pytest.raises(ModelError, match="'b' was not there when model_fn ran first"):
        step(model, call, X)


def test_a_column_s_lookup_is_prefetched_and_its_gradient_is_of_rows() -> None:
    word = fc.categorical_column_with_identity("word", 1000)
    column = fc.embedding_column(word, 2, combiner="sum", initializer=Constant(1.0))

    def call(features: Any, labels: Any) -> Spec:
        loss = anp.sum(layers.dense(fc.input_layer(features, [column]), 1, use_bias=False))
        return Spec(loss, SGD.minimize(loss))

    features = InputFeatures(word=np.array([3, 7, 3]))
    model, _ = build(call, features, None, seed=1)
    (prefetch,) = model.lookups.prefetches
    assert prefetch.column == word
    assert model.specs[prefetch.table].sparse
    gradient = step(model, call, features)[1][prefetch.table]
    assert isinstance(gradient, IndexedSlices)
    assert gradient.indices.tolist() == [3, 7]
    np.testing.assert_allclose(gradient.values[0], 2 * gradient.values[1])


def test_a_float64_batch_gives_gradients_in_the_variables_dtype() -> None:
    def call(features: Any, labels: Any) -> Spec:
        outputs = layers.dense(features, 1, name="out")
        loss = losses.mean_squared_error(np.zeros((2, 1)), outputs)
        return Spec(loss, SGD.minimize(loss))

    model, _ = build(call, X.astype(np.float64), None, seed=1)
    _, gradients = step(model, call, X.astype(np.float64))
    assert {one.dtype for one in gradients.values()} == {np.dtype("float32")}


def test_an_initial_model_reads_like_a_checkpoint() -> None:
    def call(features: Any, labels: Any) -> Spec:
        loss = anp.sum(get_variable("table", (5, 2), initializer=RandomNormal()))
        return Spec(loss, SGD.minimize(loss))

    model, _ = build(call, X, None, seed=1)
    initial = InitialModel(model.specs, seed=1)
    assert (initial.global_step, initial.path, list(initial.variables)) == (0, "", ["table"])
    assert initial.read("table").shape == (5, 2)
    np.testing.assert_array_equal(
        initial.read_rows("table", np.array([4, 0])), initial.read("table")[[4, 0]]
    )
    assert not np.array_equal(initial.read("table"), InitialModel(model.specs, 2).read("table"))
