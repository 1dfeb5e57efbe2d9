"""What an input_fn may return, and how its batches are read ahead."""

from __future__ import annotations

import itertools
import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
import pytest

from psys import feature_column as fc
from psys import inputs
from psys.compute.build_store import Prefetch
from psys.compute.features import InputFeatures
from psys.errors import ModelError
from psys.feature_column.sparse_ids import SparseFeature
from psys.train.foreseen import Lookups
from psys.train.input_pipeline import (
    BATCHES_AHEAD,
    Batch,
    InputContext,
    InputPipeline,
    as_batch,
    batches,
    call_input_fn,
)

X = np.array([[1.0], [2.0]], np.float32)
Y = np.array([0, 1])


class Tensor:
    """What numpy makes of another library's tensor."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self._values, dtype)


class Loader:
    """An iterable of lists [features, labels], as torch's DataLoader is."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self._count):
            yield [Tensor([[1.0], [2.0]]), Tensor([0, 1])]


def read(returned: Any) -> list[Any]:
    """(features, labels) as lists of what an input_fn returned, at most three batches."""
    return [
        (_listed(batch.features), _listed(batch.labels))
        for batch in itertools.islice(batches(returned, repeat=False), 3)
    ]


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(one) for key, one in value.items()}
    assert value is None or type(value) is np.ndarray
    return None if value is None else value.tolist()


def three() -> Callable[[], Any]:
    left = iter([({"x": X}, Y)] * 3)
    return lambda: next(left)


def refilled(count: int) -> Iterator[Any]:
    """Batches that all lie in the same memory."""
    features, labels = {"x": np.zeros((2, 1), np.float32)}, np.zeros(2, np.int64)
    for number in range(count):
        features["x"][:], labels[:] = number, number
        yield features, labels


@pytest.mark.parametrize("how", ["iterator", "callable", "arrays"])
def test_a_batch_that_was_read_ahead_keeps_its_values(how: str) -> None:
    given = refilled(5)
    returned = {
        "iterator": given,
        "callable": lambda: next(given),
        "arrays": ((one["x"], labels) for one, labels in given),
    }[how]
    found = list(batches(returned, repeat=False))
    numbers = [
        one.features["x"] if isinstance(one.features, dict) else one.features for one in found
    ]
    assert [one.tolist() for one in numbers] == [[[n], [n]] for n in range(5)]
    assert [one.labels.tolist() for one in found] == [[n, n] for n in range(5)]


DICT = ({"x": [[1.0], [2.0]]}, [0, 1])
ARRAY = ([[1.0], [2.0]], [0, 1])


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        pytest.param(({"x": X}, Y), [DICT], id="one batch"),
        pytest.param([{"x": X}, Y], [DICT], id="one batch as a list"),
        pytest.param((X, Y), [ARRAY], id="one batch of arrays"),
        pytest.param({"x": X}, [(DICT[0], None)], id="features alone"),
        pytest.param(X, [(ARRAY[0], None)], id="one array alone"),
        pytest.param(({"x": X}, None), [(DICT[0], None)], id="no labels"),
        pytest.param(DICT, [DICT], id="lists within a batch"),
        pytest.param(ARRAY, [ARRAY], id="a tuple of lists"),
        pytest.param([[1.0], [2.0]], [(ARRAY[0], None)], id="a list of rows"),
        pytest.param(({"x": X}, {"a": [0, 1]}), [(DICT[0], {"a": [0, 1]})], id="labels by name"),
        pytest.param(({"x": Tensor([[1.0], [2.0]])}, Tensor([0, 1])), [DICT], id="tensors"),
        pytest.param(({"x": pd.Series([1, 2])}, pd.Series([3, 4])), [({"x": [1, 2]}, [3, 4])]),
        pytest.param(iter([({"x": X}, Y)] * 2), [DICT] * 2, id="iterator"),
        pytest.param((one for one in [({"x": X}, Y)]), [DICT], id="generator"),
        pytest.param([({"x": X}, Y)] * 3, [DICT] * 3, id="list of batches"),
        pytest.param([({"x": X}, Y)] * 2, [DICT] * 2, id="list of two batches"),
        pytest.param((({"x": X}, Y),) * 3, [DICT] * 3, id="tuple of batches"),
        pytest.param([(X, Y)] * 2, [ARRAY] * 2, id="list of batches of arrays"),
        pytest.param([{"x": X}] * 3, [(DICT[0], None)] * 3, id="list of features"),
        pytest.param(three(), [DICT] * 3, id="callable"),
        pytest.param(Loader(2), [ARRAY] * 2, id="data loader"),
        pytest.param([], [], id="no batch"),
    ],
)
def test_what_an_input_fn_may_return(returned: Any, expected: list[Any]) -> None:
    assert read(returned) == expected


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (({"x": X}, Y, Y), "as a len 2 tuple, got 3 elements"),
        (({"x": X},), "as a len 2 tuple, got 1 elements"),
        (iter([({"x": X}, Y, Y)]), "as a len 2 tuple, got 3 elements"),
        (7, "input_fn should return .* got int"),
        (None, "input_fn should return .* got NoneType"),
        (iter([7]), "a dict or an array, got int"),
        (iter([(7, Y)]), "a dict or an array, got int"),
        (iter([None]), "a dict or an array, got NoneType"),
        (({"x": [[1], [2, 3]]}, Y), "Feature 'x' cannot be made an array"),
        ((X, [[1], [2, 3]]), "The labels cannot be made an array"),
    ],
)
def test_what_it_may_not_return(returned: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(returned)


def test_one_batch_is_given_again_and_again_to_train() -> None:
    source = batches(({"x": X}, Y), repeat=True)
    first, second = next(source), next(source)
    assert first.features is not second.features
    np.testing.assert_array_equal(second.features["x"], X)


def test_pandas_input_fn_is_one_of_them() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    source = inputs.pandas_input_fn(frame, pd.Series([0, 1, 0]), batch_size=2, shuffle=False)
    assert read(source()) == [({"a": [1.0, 2.0]}, [0, 1]), ({"a": [3.0]}, [0])]


def test_an_input_fn_is_given_what_it_names() -> None:
    given = {"mode": "train", "params": {}, "config": 1, "input_context": InputContext(3, 1)}
    assert call_input_fn(lambda: "nothing", **given) == "nothing"
    assert call_input_fn(lambda params, mode: (params, mode), **given) == ({}, "train")
    assert call_input_fn(lambda input_context: input_context, **given) == InputContext(3, 1)
    # What is passed on blindly might reach a function that does not take it.
    assert call_input_fn(lambda **others: others, **given) == {}
    with pytest.raises(TypeError, match="batch_size"):
        call_input_fn(lambda batch_size: batch_size, **given)


def test_the_size_of_a_batch() -> None:
    assert as_batch(({"x": X}, Y)).size == 2
    assert as_batch(X).size == 2
    bags = SparseFeature(np.array(["a", "b"]), np.array([0, 4]), 5)
    assert as_batch({"tags": bags}).size == 5


# ---------------------------------------------------------------- reading ahead


def numbered(count: int | None) -> Callable[[], Any]:
    """A source of batches whose feature n is their number."""
    numbers = itertools.count() if count is None else range(count)
    return lambda: batches(iter({"n": [n]} for n in numbers), repeat=False)


def reading() -> bool:
    return "psys-input" in {thread.name for thread in threading.enumerate()}


def test_batches_come_in_order_and_then_none() -> None:
    pipeline = InputPipeline(numbered(5))
    got = []
    while (batch := pipeline.next()) is not None:
        got.append(batch.features["n"][0])
    assert got == [0, 1, 2, 3, 4]
    assert pipeline.next() is None
    pipeline.close()


def test_it_does_not_run_far_ahead_and_stops_when_closed() -> None:
    taken: list[Any] = []

    def endless() -> Iterator[Any]:
        try:
            for n in itertools.count():
                taken.append(n)
                yield {"n": [n]}
        finally:
            taken.append("closed")

    pipeline = InputPipeline(lambda: batches(endless(), repeat=False))
    for _ in range(3):
        assert pipeline.next() is not None
    pipeline.close()
    assert taken[-1] == "closed"
    # Three were taken, so many wait, one is held, and one may be read while it closes.
    assert len(taken) - 1 <= 3 + BATCHES_AHEAD + 2
    assert not reading()
    assert pipeline.next() is None
    pipeline.close()


def test_what_was_taken_makes_room_when_the_taker_says_so() -> None:
    read, changed = [], threading.Condition()

    def endless() -> Iterator[Any]:
        for n in itertools.count():
            with changed:
                read.append(n)
                changed.notify_all()
            yield {"n": [n]}

    def has_read(count: int, within_secs: float) -> bool:
        with changed:
            return changed.wait_for(lambda: len(read) >= count, within_secs)

    full = BATCHES_AHEAD + 1  # so many wait, and one is held
    with closing(InputPipeline(lambda: batches(endless(), repeat=False))) as pipeline:
        assert has_read(full, 10.0)
        assert pipeline.next(read_on=False) is not None
        assert not has_read(full + 1, 0.2)
        pipeline.read_on()
        assert has_read(full + 1, 10.0)
        # Nobody waits for what nobody reads, even if nothing is said any more.
        for n in range(1, 10):
            batch = pipeline.next(read_on=False)
            assert batch is not None
            assert batch.features["n"][0] == n


def test_a_source_that_raises_when_it_is_closed_leaves_no_thread_behind() -> None:
    read = threading.Semaphore(0)

    def source() -> Generator[Batch]:
        try:
            for n in itertools.count():
                read.release()
                yield as_batch({"n": [n]})
        finally:
            raise OSError("the file is gone")

    pipeline = InputPipeline(source)
    for _ in range(BATCHES_AHEAD + 1):  # for the last there is no place any more
        assert read.acquire(timeout=10.0)
    pipeline.close()
    assert not reading()


def test_a_read_that_does_not_end_keeps_no_batches() -> None:
    reads, ended = threading.Semaphore(0), threading.Event()

    def source() -> Iterator[Any]:
        for n in range(BATCHES_AHEAD):
            yield {"n": [n]}
        reads.release()
        ended.wait()

    pipeline = InputPipeline(lambda: batches(source(), repeat=False))
    assert reads.acquire(timeout=10.0)
    pipeline.close()
    assert pipeline._queue.empty()
    assert reading()
    ended.set()
    pipeline._thread.join(10.0)
    assert not reading()


def test_what_the_input_raises_comes_as_itself_after_the_batches_before() -> None:
    class Broken(Exception):
        pass

    def source() -> Iterator[Any]:
        yield {"n": [0]}
        raise Broken("the third file")

    pipeline = InputPipeline(lambda: batches(source(), repeat=False))
    assert pipeline.next() is not None
    with pytest.raises(Broken, match="the third file"):
        pipeline.next()
    assert pipeline.next() is None
    pipeline.close()
    assert not reading()


def test_it_prepares_the_ids_of_each_table() -> None:
    word = fc.categorical_column_with_identity("word", 10)
    other = fc.categorical_column_with_identity("other", 10)
    source = [{"word": [3, 1, 3], "other": [5, 1, 5]}] * 4
    pipeline = InputPipeline(lambda: batches(source, repeat=False))
    first = pipeline.next()
    assert first is not None
    assert first.rows == {}
    pipeline.lookups = Lookups((Prefetch("a", word), Prefetch("b", word), Prefetch("b", other)))
    batch = pipeline.next()
    assert batch is not None
    assert {table: rows.tolist() for table, rows in batch.rows.items()} == {
        "a": [1, 3],
        "b": [1, 3, 5],
    }
    ids, unique, inverse = batch.features.uniques[word]
    assert ids is word.transform(batch.features).ids
    assert unique[inverse].tolist() == ids.tolist() == [3, 1, 3]
    pipeline.close()


def test_a_batch_is_prepared_once() -> None:
    word = fc.categorical_column_with_identity("word", 10)
    batch = Batch(InputFeatures(word=np.array([3, 1, 3])), None)
    batch.prepare(Lookups((Prefetch("a", word),)))
    rows = batch.rows["a"]
    batch.prepare(Lookups((Prefetch("a", word),)))
    assert batch.rows["a"] is rows


def test_what_a_column_cannot_read_is_left_to_the_model_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    word, other = (fc.categorical_column_with_identity(name, 10) for name in ("word", "x"))
    pipeline = InputPipeline(lambda: batches([{"x": [1]}] * 9, repeat=False))
    pipeline.lookups = Lookups((Prefetch("a", word), Prefetch("b", other)))
    with caplog.at_level("INFO", "psys"):
        read = [*iter(pipeline.next, None)]
    # What was read before the model was known is prepared when it is taken.
    assert [{name: ids.tolist() for name, ids in one.rows.items()} for one in read] == [
        {"b": [1]}
    ] * 9
    (said,) = (one.getMessage() for one in caplog.records)
    assert said == (
        "Column 'word' is looked up when model_fn comes to it, which makes a step longer: Feature "
        "'word' is not in the features dictionary (has: x); column 'word' needs it."
    )
    pipeline.close()


class Told(Exception):
    """What a signal handler raises here."""


def test_a_signal_is_heard_while_the_input_is_waited_for() -> None:
    """Even where another thread of the process got it, which wakes nobody."""
    asked, heard = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def handle(*_: object) -> None:
        heard.set()
        raise Told

    def source() -> Generator[Batch]:
        asked.wait(20)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        in_time.append(heard.wait(20))
        yield as_batch({"x": [1]})

    def wait_for_a_batch() -> None:
        asked.set()
        pipeline.next()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        with closing(InputPipeline(source)) as pipeline, pytest.raises(Told):
            wait_for_a_batch()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert in_time == [True]


@pytest.mark.parametrize("copied", [False, True])
def test_a_batch_is_only_to_be_read_and_what_was_given_is_as_it_was(copied: bool) -> None:
    given = {"x": X.copy(), "listed": [1, 2]}, Y.copy()
    batch = as_batch(given, copied=copied)
    for one in (*batch.features.values(), batch.labels):
        with pytest.raises(ValueError, match="read-only"):
            one[0] = 0
    assert given[0]["x"].flags.writeable
    assert given[1].flags.writeable
    assert np.shares_memory(given[0]["x"], batch.features["x"]) is not copied


def test_what_the_input_raises_is_told_whatever_it_is() -> None:
    def source() -> Generator[Batch]:
        raise queue.Empty("of the program's own")
        yield

    with closing(InputPipeline(source)) as pipeline, pytest.raises(queue.Empty, match="own"):
        pipeline.next_if_ready(20.0)
