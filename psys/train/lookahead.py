"""Batches that are taken from the input and not yet trained on, in order.

A batch leaves only once its step is known to be applied: when the model goes back, what it
learned of the others is gone, and they are trained on again.
"""

from __future__ import annotations

from collections import deque

from psys.train.input_pipeline import Batch, InputPipeline


class Lookahead:
    """The next batches of an input pipeline, by number: 0 is the one to train on next."""

    def __init__(self, first: Batch, pipeline: InputPipeline) -> None:
        """Begin with ``first``, which was taken from the pipeline already."""
        self._batches: deque[Batch] = deque([first])
        self._pipeline = pipeline

    def at(self, number: int) -> Batch | None:
        """Return batch ``number`` from here, taking it from the input; None if that ended."""
        while len(self._batches) <= number:
            batch = self._pipeline.next(read_on=False)
            if batch is None:
                return None
            self._batches.append(batch)
        return self._batches[number]

    def at_once(self, number: int, wait_secs: float = 0.0) -> Batch | None:
        """Return batch ``number`` if it is there in time; None if not, or if the input ended."""
        while len(self._batches) <= number:
            batch = self._pipeline.next_if_ready(wait_secs)
            if batch is None:
                return None
            self._batches.append(batch)
        return self._batches[number]

    def read_on(self) -> None:
        """Let the input read on, in the place of what was taken.

        Whoever takes batches says when: the thread that reads is not to take the interpreter from
        a step that is being sent. An input that is late is never kept back.
        """
        self._pipeline.read_on()

    def ends_before(self, number: int) -> bool:
        """Return whether it is known that there is no batch ``number``."""
        return len(self._batches) <= number and self._pipeline.ended

    def trained(self) -> None:
        """Let batch 0 go: its step is applied."""
        self._batches.popleft()
