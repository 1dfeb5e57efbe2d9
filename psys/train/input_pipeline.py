"""The input pipeline: from input_fn to prepared batches, in a thread, bounded.

It hashes, crosses and makes unique the ids of the next batch while the present one is being
computed. What input_fn may return: one batch of arrays, or anything that yields batches.
"""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from psys.arrays import Array
from psys.compute.build_store import Prefetch
from psys.compute.features import InputFeatures
from psys.compute.store import unique_ids
from psys.errors import ModelError

BATCHES_AHEAD = 2


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
        rows: for each prefetched table, the sorted unique ids the batch looks up.
    """

    features: Any
    labels: Any
    rows: dict[str, Array] = field(default_factory=dict)
    _prepared: bool = False

    @property
    def size(self) -> int:
        """The number of examples."""
        first = self.features
        while isinstance(first, Mapping):
            first = next(iter(first.values()), ())
        return len(first) if np.ndim(first) else 1

    def prepare(self, prefetches: Iterable[Prefetch]) -> None:
        """Find the ids the batch looks up, once."""
        if self._prepared:
            return
        ids: dict[str, list[Array]] = {}
        for prefetch in prefetches:
            ids.setdefault(prefetch.table, []).append(prefetch.column.transform(self.features).ids)
        self.rows = {
            table: unique_ids(found[0] if len(found) == 1 else np.concatenate(found))[0]
            for table, found in ids.items()
        }
        self._prepared = True


def call_input_fn(input_fn: Callable[..., Any], **available: Any) -> Any:
    """Call ``input_fn`` with those of mode, params, config and input_context it asks for."""
    try:
        parameters = inspect.signature(input_fn).parameters
    except (TypeError, ValueError):
        return input_fn()  # a builtin without a signature
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return input_fn(
        **{name: value for name, value in available.items() if takes_any or name in parameters}
    )


def batches(returned: Any, repeat: bool) -> Iterator[Batch]:
    """Yield batches from whatever an input_fn returned.

    Args:
        returned: one batch (arrays, a dict, or a pair), or an iterable or callable of batches.
        repeat: whether one batch of arrays is given again and again, as a graph would.

    Raises:
        ModelError: if a batch is not features or (features, labels).
    """
    if _is_batch(returned):
        yield _batch(returned)
        while repeat:
            yield _batch(returned)
    elif isinstance(returned, Iterable):
        for one in returned:
            yield _batch(one)
    elif callable(returned):
        while (one := _called(returned)) is not None:
            yield _batch(one)
    else:
        raise ModelError(
            "input_fn should return (features, labels), or an iterable or callable of batches, "
            f"got {type(returned).__name__}."
        )


def _called(source: Callable[[], Any]) -> Any:
    try:
        return source()
    except StopIteration:
        return None


def _is_features(value: Any) -> bool:
    return isinstance(value, Mapping) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def _is_batch(value: Any) -> bool:
    if _is_features(value):
        return True
    return (
        isinstance(value, (tuple, list))
        and bool(value)
        and _is_features(value[0])
        and (len(value) != 2 or value[1] is None or not isinstance(value[1], (tuple, list)))
        and not (isinstance(value, list) and len(value) != 2)
    )


def _batch(value: Any) -> Batch:
    if isinstance(value, Batch):
        return value
    if _is_features(value):
        return Batch(_features(value), None)
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ModelError(
                "input_fn should return (features, labels) as a len 2 tuple, "
                f"got {len(value)} elements."
            )
        return Batch(_features(value[0]), _labels(value[1]))
    raise ModelError(
        "A batch is (features, labels) or features (a dict or an array), "
        f"got {type(value).__name__}."
    )


def _features(value: Any) -> Any:
    if isinstance(value, Mapping):
        return InputFeatures({key: _array(one) for key, one in value.items()})
    return _array(value)


def _labels(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _array(one) for key, one in value.items()}
    return None if value is None else _array(value)


def _array(value: Any) -> Any:
    """Return lists and tensors as arrays; leave richer values (sparse features) alone."""
    if isinstance(value, (list, tuple)) or hasattr(value, "__array__"):
        return np.asarray(value)
    return value


class InputPipeline:
    """Batches of one input, prepared ahead by a thread. Iterate it, then ``close`` it."""

    def __init__(self, source: Callable[[], Iterator[Batch]]) -> None:
        """Start to read.

        Args:
            source: called in the pipeline's thread; yields batches.
        """
        self.prefetches: tuple[Prefetch, ...] = ()
        """The lookups to prepare; set once the model is known."""
        self._queue: queue.Queue[Batch | BaseException | None] = queue.Queue(BATCHES_AHEAD)
        self._closed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(
            target=self._read, args=(source,), name="psys-input", daemon=True
        )
        self._thread.start()

    def next(self) -> Batch | None:
        """Return the next batch, prepared; None when the input ended.

        Raises:
            Exception: whatever input_fn or its iterator raised.
        """
        if self._ended:
            return None
        item = self._queue.get()
        if isinstance(item, Batch):
            item.prepare(self.prefetches)
            return item
        self._ended = True
        if item is not None:
            raise item
        return None

    def close(self) -> None:
        """Stop reading; a read under way is not waited for."""
        self._closed.set()
        self._ended = True
        # Make room: a producer that waits for it must see that it is over.
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                return

    def _read(self, source: Callable[[], Iterator[Batch]]) -> None:
        try:
            for batch in source():
                if self.prefetches:
                    batch.prepare(self.prefetches)
                if not self._put(batch):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Batch | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False
