"""The input pipeline: from input_fn to prepared batches, in a thread, bounded.

It hashes, crosses and makes unique the ids of the next batch while the present one is being
computed. What input_fn may return: one batch of arrays, or anything that yields batches.
"""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from psys.arrays import Array
from psys.compute.features import InputFeatures
from psys.errors import ModelError
from psys.train.foreseen import Lookups

BATCHES_AHEAD = 2
CLOSE_LIMIT_SECS = 1.0
SIGNAL_SECS = 0.5
"""A wait for the next batch begins anew so often. A signal that comes just before a wait begins, or
to another thread, is seen by Python only when that wait ends."""


@dataclass(frozen=True)
class InputContext:
    """Which part of the input this trainer may take (tf.distribute.InputContext's fields).

    Attributes:
        num_input_pipelines: the number of trainers.
        input_pipeline_id: this one's index, the chief's being 0.
        num_replicas_in_sync: always 1: trainers do not wait for each other.
    """

    num_input_pipelines: int = 1
    input_pipeline_id: int = 0
    num_replicas_in_sync: int = 1


@dataclass
class Batch:
    """One batch.

    Attributes:
        features: a dict of arrays ``[batch, ...]``, or one array.
        labels: as input_fn gave them; None without any.
        rows: for each table or stack that is prefetched, the rows the batch looks up, sorted and
            unique.
    """

    features: Any
    labels: Any
    rows: dict[str, Array] = field(default_factory=dict)
    _prepared: bool = False

    @cached_property
    def size(self) -> int:
        """The number of examples."""
        first = self.features
        while isinstance(first, Mapping):
            first = next(iter(first.values()), ())
        if isinstance(rows := getattr(first, "batch", None), int):
            return rows  # a sparse feature
        return len(first) if np.ndim(first) else 1

    def prepare(self, lookups: Lookups) -> None:
        """Find the rows the batch looks up, once it is known which lookups there are."""
        if not self._prepared and lookups.prefetches:
            self.rows = lookups.find(self.features)
            self._prepared = True


def call_input_fn(input_fn: Callable[..., Any], **available: Any) -> Any:
    """Call ``input_fn`` with those of mode, params, config and input_context it names."""
    try:
        parameters = inspect.signature(input_fn).parameters
    except (TypeError, ValueError):
        return input_fn()  # a builtin without a signature
    return input_fn(**{name: value for name, value in available.items() if name in parameters})


def batches(returned: Any, repeat: bool) -> Generator[Batch]:
    """Yield batches from whatever an input_fn returned.

    Args:
        returned: one batch (arrays, a dict, or a pair), or an iterable or callable of batches.
        repeat: whether one batch of arrays is given again and again, as a graph would.

    Raises:
        ModelError: if a batch is not features or (features, labels).
    """
    if _is_batch(returned):
        yield as_batch(returned)
        while repeat:
            yield as_batch(returned)
    elif isinstance(returned, Iterable):
        for one in returned:
            yield as_batch(one, copied=True)
    elif callable(returned):
        while (one := _called(returned)) is not None:
            yield as_batch(one, copied=True)
    else:
        raise ModelError(
            "input_fn should return (features, labels), or an iterable or callable of batches, "
            f"got {type(returned).__name__}."
        )


def as_batch(value: Any, *, copied: bool = False) -> Batch:
    """Return features or (features, labels) as a batch, with arrays for lists and tensors.

    Its arrays are only to be read.

    Args:
        value: features or (features, labels).
        copied: whether the batch shall not change with the arrays that were given: batches are
            read ahead, and an input may put the next one into the memory of the last.

    Raises:
        ModelError: if it is neither.
    """
    features, labels = value, None
    if isinstance(value, (tuple, list)) and not _is_features(value):
        if len(value) != 2:
            raise ModelError(
                "input_fn should return (features, labels) as a len 2 tuple, "
                f"got {len(value)} elements."
            )
        features, labels = value
    if not _is_features(features):
        raise ModelError(
            "A batch is (features, labels) or features, and features are a dict or an array, "
            f"got {type(features).__name__}."
        )
    if isinstance(features, Mapping):
        features = InputFeatures(_arrays("Feature", features, copied))
    else:
        features = _array("The features", features, copied)
    if isinstance(labels, Mapping):
        return Batch(features, _arrays("Label", labels, copied))
    return Batch(features, None if labels is None else _array("The labels", labels, copied))


def _called(source: Callable[[], Any]) -> Any:
    try:
        return source()
    except StopIteration:
        return None


def _is_features(value: Any) -> bool:
    """Return whether it is a dict, an array or tensor, or nested lists of plain values."""
    if isinstance(value, Mapping) or hasattr(value, "__array__"):
        return True
    if not isinstance(value, list):
        return False
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, (int, float, complex, str, bytes, np.generic))


def _is_batch(value: Any) -> bool:
    """Return whether an input_fn gave one batch, and not a collection of them.

    A tuple that begins with features is always one. A list of two is (features, labels) too, as
    data loaders have it; other lists that begin with a dict or an array hold batches.
    """
    if isinstance(value, tuple):
        return bool(value) and _is_features(value[0])
    if isinstance(value, list):
        return _is_features(value) or (len(value) == 2 and _is_features(value[0]))
    return _is_features(value)


def _arrays(what: str, values: Mapping[Any, Any], copied: bool) -> dict[Any, Any]:
    found = {}
    for key, value in values.items():
        if copied and type(value) is np.ndarray:  # as nearly always; there are dozens in a batch
            found[key] = array = value.copy()
            array.setflags(write=False)
        else:
            found[key] = _array(f"{what} {key!r}", value, copied)
    return found


def _array(what: str, value: Any, copied: bool) -> Any:
    """Return lists and tensors as arrays; leave richer values (sparse features) alone."""
    listed = isinstance(value, (list, tuple))
    if not listed and not hasattr(value, "__array__"):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ModelError(f"{what} cannot be made an array [batch, ...]: {error}") from error
    # Only to be read: ids are found ahead of model_fn, which may also see a batch twice.
    array = array.copy() if copied and not listed else array.view()
    array.flags.writeable = False
    return array


class InputPipeline:
    """Batches of one input, prepared ahead by a thread. Iterate it, then ``close`` it."""

    def __init__(self, source: Callable[[], Generator[Batch]]) -> None:
        """Start to read.

        Args:
            source: called in the pipeline's thread; yields batches.
        """
        self.lookups = Lookups()
        """What to prepare; set once the model is known."""
        self._queue: queue.SimpleQueue[Batch | BaseException | None] = queue.SimpleQueue()
        self._places = threading.Semaphore(BATCHES_AHEAD)
        """Of those that may wait in the queue, how many are free."""
        self._left = 0
        """So many places were left by what was taken, and are not free yet."""
        self._closed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(
            target=self._read, args=(source,), name="psys-input", daemon=True
        )
        self._thread.start()

    def next(self, *, read_on: bool = True) -> Batch | None:
        """Return the next batch, prepared; None when the input ended.

        Args:
            read_on: whether another one may be read in its place at once; if not, then from
                ``read_on`` on, or as soon as there is none left to be taken.

        Raises:
            Exception: whatever input_fn or its iterator raised.
        """
        return None if self._ended else self._taken(self._get(None), read_on=read_on)

    def next_if_ready(self, wait_secs: float = 0.0) -> Batch | None:
        """Return the next batch if it is there in time; None if not, or when the input ended.

        Another one is read in its place as after ``next(read_on=False)``.
        """
        if self._ended:
            return None
        try:
            item = self._get(wait_secs)
        except queue.Empty:
            return None
        return self._taken(item, read_on=False)

    def read_on(self) -> None:
        """Let others be read in the place of all batches that were taken."""
        left, self._left = self._left, 0
        if left:
            self._places.release(left)

    @property
    def ended(self) -> bool:
        """Whether the input is known to have ended."""
        return self._ended

    def _taken(self, item: Batch | BaseException | None, *, read_on: bool) -> Batch | None:
        self._left += 1
        if read_on:
            self.read_on()
        if isinstance(item, Batch):
            item.prepare(self.lookups)
            return item
        self._ended = True
        if item is not None:
            raise item
        return None

    def _get(self, wait_secs: float | None) -> Batch | BaseException | None:
        if self._queue.empty():
            self.read_on()
        if wait_secs is not None:
            return self._queue.get(block=wait_secs != 0.0, timeout=wait_secs)
        while True:
            with suppress(queue.Empty):
                return self._queue.get(timeout=SIGNAL_SECS)

    def close(self) -> None:
        """Stop reading; a read under way is waited for, but not for long."""
        self._closed.set()
        self._ended = True
        self._places.release()  # whoever waits for one must see that it is over
        with suppress(queue.Empty):
            while True:  # a read that does not end keeps this queue, and need not keep batches
                self._queue.get_nowait()
        self._thread.join(CLOSE_LIMIT_SECS)

    def _read(self, source: Callable[[], Generator[Batch]]) -> None:
        try:
            with closing(source()) as read:
                for batch in read:
                    batch.prepare(self.lookups)
                    if not self._put(batch):
                        return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Batch | BaseException | None) -> bool:
        """Put it where it is taken from, when there is a place; return False once it is over."""
        self._places.acquire()
        if self._closed.is_set():
            self._places.release()  # there may be more to be put: what closing the source raises
            return False
        self._queue.put(item)
        return True
