from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.test_util import check_grads

from psys.compute import primitives
from psys.compute.backward import backward, is_traced, new_root, untraced
from psys.compute.layer_parts import one_by_one
from psys.errors import ModelError

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(4, 3))
KERNEL = RANDOM.normal(size=(3, 2))
BIAS = RANDOM.normal(size=(2,))
F32 = X.astype(np.float32)
LABELS = np.array([2, 0, 1, 1])
ONE_HOT = np.eye(3)[LABELS]
WEIGHTS = np.array([[0.5], [2.0], [1.0], [0.0]])
INVERSE = np.array([1, 0, 2, 2, 1])
SEGMENTS = np.array([0, 0, 0, 2, 3])
EACH = np.array([0.5, 2.0, 1.0, 3.0, 0.25])


def one_argument_cases() -> dict[str, Callable[[Any], Any]]:
    cases: dict[str, Callable[[Any], Any]] = {
        name: getattr(primitives, name)
        for name in ("relu", "sigmoid", "tanh", "elu", "softplus", "softmax", "log_softmax")
    }
    cases["sigmoid_cross_entropy"] = lambda x: primitives.sigmoid_cross_entropy(ONE_HOT, x)
    cases["softmax_cross_entropy"] = lambda x: primitives.softmax_cross_entropy(ONE_HOT * 0.5, x)
    cases["sparse_softmax"] = lambda x: primitives.sparse_softmax_cross_entropy(LABELS, x)
    cases["weighted_sum"] = lambda x: primitives.weighted_sum(x, WEIGHTS, 3.0)
    cases["mean"] = lambda x: primitives.weighted_sum(x, None, x.size)
    for combiner in ("sum", "mean", "sqrtn"):
        for weights in (None, EACH):
            cases[f"{combiner}_{'plain' if weights is None else 'weighted'}"] = (
                lambda x, c=combiner, w=weights: primitives.segment_combine(
                    x, INVERSE, SEGMENTS, w, 4, c
                )
            )
            cases[f"{combiner}_one_each_{'plain' if weights is None else 'weighted'}"] = (
                lambda x, c=combiner, w=weights: primitives.segment_combine(
                    x, INVERSE, np.arange(5), w, 5, c
                )
            )
    return cases


ONE_ARGUMENT = one_argument_cases()


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_the_gradient_is_the_numerical_one(name: str) -> None:
    check_grads(ONE_ARGUMENT[name], modes=["rev"], order=1)(X)


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_float32_stays_float32_forward_and_backward(name: str) -> None:
    box, root = new_root(X.astype(np.float32))
    answer = ONE_ARGUMENT[name](box)
    gradient = backward(answer, np.ones_like(untraced(answer)), {root})[root]
    assert untraced(answer).dtype == np.float32
    assert gradient.dtype == np.float32
    assert gradient.shape == X.shape


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_dense_is_differentiated_by_each_argument(argument: int) -> None:
    def along(value: Any) -> Any:
        arguments: list[Any] = [X, KERNEL, BIAS]
        arguments[argument] = value
        return primitives.dense(*arguments)

    check_grads(along, modes=["rev"], order=1)([X, KERNEL, BIAS][argument])


def test_dense_by_all_arguments_at_once_is_float32() -> None:
    boxes, roots = zip(*(new_root(a.astype(np.float32)) for a in (X, KERNEL, BIAS)), strict=True)
    answer = primitives.dense(*boxes)
    gradients = backward(answer, np.ones((4, 2), np.float32), set(roots))
    np.testing.assert_allclose(gradients[roots[0]], np.ones((4, 2)) @ KERNEL.T, rtol=1e-5)
    np.testing.assert_allclose(gradients[roots[1]], X.T @ np.ones((4, 2)), rtol=1e-5)
    np.testing.assert_allclose(gradients[roots[2]], [4, 4])
    assert {gradient.dtype for gradient in gradients.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("units", [1, 300])
@pytest.mark.parametrize("with_bias", [False, True])
def test_dense_and_relu_in_one_are_the_two_bit_for_bit(
    second: bool, units: int, with_bias: bool
) -> None:
    draw = np.random.default_rng(units)
    shapes = [(128, 200), (200, units), (units,)][: 2 + with_bias]
    given = [draw.normal(size=shape).astype(np.float32) for shape in shapes]
    found = []
    with ThreadPoolExecutor(1) as pool:
        for layer in (
            primitives.dense_relu,
            lambda *arguments: primitives.relu(primitives.dense(*arguments)),
        ):
            boxes, roots = zip(*map(new_root, given), strict=True)
            answer = layer(*boxes)
            g = draw.normal(size=(128, units)).astype(np.float32) if not found else found[0][1]
            gradients = backward(answer, g, set(roots), pool if second else None)
            found.append([untraced(answer), g, *(gradients[root] for root in roots)])
    assert 0 < (found[0][0] == 0).mean() < 1
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_layer_of_one_unit_has_the_gradients_of_products_bit_for_bit() -> None:
    draw = np.random.default_rng(1)
    x, kernel, g = (
        draw.normal(size=shape).astype(np.float32) for shape in ((64, 30), (30, 1), (64, 1))
    )
    box, root = new_root(x)
    gradient = backward(primitives.dense(box, kernel), g, {root})[root]
    np.testing.assert_array_equal(gradient, g @ kernel.T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu_is_the_maximum_and_what_is_no_number_stays_so(dtype: Any) -> None:
    for shape in ((), (7,), (3, 9), (2, 3, 40)):
        x = np.random.default_rng(0).normal(size=shape).astype(dtype)
        np.testing.assert_array_equal(primitives.relu(x), np.maximum(x, 0))
        assert primitives.relu(x).dtype == dtype
    assert (primitives.relu(3.0), primitives.relu(-3)) == (3.0, 0)
    assert primitives.relu([1.0, -1.0]).tolist() == [1.0, 0.0]
    assert primitives.relu(np.array([True, False])).tolist() == [1, 0]
    edge = np.array([np.nan, -np.nan, np.inf, -np.inf], dtype)
    np.testing.assert_array_equal(primitives.relu(edge), [np.nan, np.nan, np.inf, 0])


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("one_each", [True, False])
def test_columns_side_by_side_are_each_ones_own_and_so_are_gradients(
    combiner: str, one_each: bool
) -> None:
    rows = np.arange(6.0).reshape(3, 2) + 1
    inverse = np.array([2, 0, 2]) if one_each else np.array([2, 0, 1, 2])
    segments = np.arange(3) if one_each else np.array([0, 0, 2, 2])

    def beside(rows: Any, dense: Any) -> Any:
        part = primitives.combination(rows, inverse, segments, None, 3, combiner)
        return primitives.side_by_side(one_by_one([dense, part, dense * 2, part]))

    def apart(rows: Any, dense: Any) -> Any:
        part = primitives.segment_combine(rows, inverse, segments, None, 3, combiner)
        return anp.concatenate([dense, part, dense * 2, part], axis=1)

    dense = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(beside(rows, dense), apart(rows, dense))
    for number in (0, 1):
        found, expected = (
            grad(lambda *xs, of=of: anp.sum(anp.sin(of(*xs))), number)(rows, dense)
            for of in (beside, apart)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert primitives.side_by_side(one_by_one([dense])) is dense


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
def test_columns_added_up_are_the_sum_of_each_and_so_are_gradients(combiner: str) -> None:
    rows = np.arange(6.0).reshape(3, 2) + 1
    inverse, segments = np.array([2, 0, 1, 2]), np.array([0, 0, 2, 2])

    def together(rows: Any, dense: Any) -> Any:
        part = primitives.combination(rows, inverse, segments, None, 3, combiner)
        return primitives.added_up(one_by_one([dense, part, part]))

    def apart(rows: Any, dense: Any) -> Any:
        part = primitives.segment_combine(rows, inverse, segments, None, 3, combiner)
        return dense + part + part

    dense = np.arange(6.0).reshape(3, 2)
    before = dense.copy()
    np.testing.assert_allclose(together(rows, dense), apart(rows, dense), rtol=1e-12)
    for number in (0, 1):
        found, expected = (
            grad(lambda *xs, of=of: anp.sum(anp.sin(of(*xs))), number)(rows, dense)
            for of in (together, apart)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(dense, before)
    assert primitives.added_up(one_by_one([dense])) is dense


def test_a_sum_has_the_dtype_of_its_widest_part() -> None:
    parts = [np.ones((2, 1), kind) for kind in (np.int64, np.float32, np.float64)]
    assert primitives.added_up(one_by_one(parts)).dtype == np.float64
    assert primitives.added_up(one_by_one(parts[1:2] * 2)).dtype == np.float32


def test_add_n_adds() -> None:
    np.testing.assert_allclose(primitives.add_n([X, X, X]), 3 * X)
    check_grads(lambda x: primitives.add_n([x, X, x, x]), modes=["rev"], order=1)(X)


def test_a_bias_is_added_and_has_the_gradient_that_numpy_s_sum_has_bit_for_bit() -> None:
    x, bias = (new_root(one) for one in (F32, F32[0]))
    answer = primitives.add_bias(x[0], bias[0])
    np.testing.assert_array_equal(untraced(answer), F32 + F32[0])
    g = np.sin(F32)
    found = backward(answer, g, {x[1], bias[1]})
    assert found[x[1]].tobytes() == g.tobytes()
    assert found[bias[1]].tobytes() == g.sum(axis=0).tobytes()
    # Of one of them alone, too: a layer may be frozen.
    assert not is_traced(primitives.add_bias(F32, F32[0]))
    (only,) = backward(primitives.add_bias(F32, bias[0]), g, {bias[1]}).values()
    assert only.tobytes() == g.sum(axis=0).tobytes()


def test_a_gradient_within_a_model_is_differentiated_too() -> None:
    """autograd's traces lie above ours: d/dkernel of |d/dx sigmoid(x @ kernel)|², both of ours."""

    def penalty(kernel: Any) -> Any:
        slope = grad(lambda x: anp.sum(primitives.sigmoid(primitives.dense(x, kernel))))
        return anp.sum(slope(X) ** 2)

    box, root = new_root(KERNEL)
    traced = penalty(box)
    assert untraced(traced) == pytest.approx(penalty(KERNEL))
    (found,) = backward(traced, np.ones(()), {root}).values()
    np.testing.assert_allclose(found, grad(penalty)(KERNEL))
    for at in np.ndindex(*KERNEL.shape):
        nudge = np.zeros_like(KERNEL)
        nudge[at] = 1e-6
        numeric = (penalty(KERNEL + nudge) - penalty(KERNEL - nudge)) / 2e-6
        assert found[at] == pytest.approx(numeric, rel=1e-4, abs=1e-8)


def test_extreme_logits_give_finite_losses() -> None:
    logits = np.array([[-200.0], [200.0]], np.float32)
    labels = np.array([[1.0], [0.0]], np.float32)
    np.testing.assert_allclose(primitives.sigmoid_cross_entropy(labels, logits), [[200], [200]])
    wide = np.array([[-1000.0, 1000.0]], np.float32)
    np.testing.assert_allclose(primitives.sparse_softmax_cross_entropy(np.array([0]), wide), [2000])
    np.testing.assert_allclose(primitives.sigmoid(logits), [[0], [1]])


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("weighted", [False, True])
def test_segment_combine_is_the_plain_loop(combiner: str, weighted: bool) -> None:
    for trial in range(20):
        random = np.random.default_rng(trial)
        batch, count = int(random.integers(1, 9)), int(random.integers(0, 20))
        rows = random.normal(size=(6, 3)).astype(np.float32)
        inverse = random.integers(0, 6, count)
        segments = np.sort(random.integers(0, batch, count))
        weights = random.uniform(-0.5, 2, count).astype(np.float32) if weighted else None
        expected = np.zeros((batch, 3))
        for segment in range(batch):
            of_it = [i for i in range(count) if segments[i] == segment]
            each = {i: 1.0 if weights is None else float(weights[i]) for i in of_it}
            if combiner != "sum":
                each = {i: w for i, w in each.items() if w > 0}
            if each:
                total = sum(w * rows[inverse[i]].astype(float) for i, w in each.items())
                divisor = {
                    "sum": 1.0,
                    "mean": sum(each.values()),
                    "sqrtn": np.sqrt(sum(w * w for w in each.values())),
                }[combiner]
                expected[segment] = total / divisor
        actual = primitives.segment_combine(rows, inverse, segments, weights, batch, combiner)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_segment_combine_keeps_wider_rows() -> None:
    rows = RANDOM.normal(size=(3, 2, 2))
    combined = primitives.segment_combine(rows, INVERSE, SEGMENTS, None, 4, "sum")
    assert combined.shape == (4, 2, 2)
    np.testing.assert_allclose(combined[0], rows[1] + rows[0] + rows[2])
    check_grads(
        lambda r: primitives.segment_combine(r, INVERSE, SEGMENTS, None, 4, "mean"),
        modes=["rev"],
        order=1,
    )(rows)


def test_an_unknown_combiner_is_refused() -> None:
    with pytest.raises(ModelError, match="combiner must be"):
        primitives.segment_combine(X, INVERSE, SEGMENTS, None, 4, "max")
