"""Summaries: what TensorBoard shows, as event files.

One ``SummaryWriter`` writes one file in one directory: the chief's in model_dir (``loss``,
``global_step/sec``), an evaluation's in ``eval`` or ``eval_<name>``. Framing and messages are
tensorboardX's; its own writer is not used, because it puts events through a queue that
``flush`` does not wait for, and two of them in one second share one file. Nothing here decides
what is worth writing.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

import numpy as np
from tensorboardX import RecordWriter
from tensorboardX import summary as messages
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import HistogramProto, Summary

FILE_VERSION = "brain.Event:2"

_numbers = itertools.count()


class SummaryWriter:
    """Writes event files into a directory. Both are created at the first summary.

    Safe to use from several threads. A write after ``close`` opens a new file.

    Args:
        directory: where the event file goes.
        purge_step: where an earlier run, rolled back since, wrote summaries of this step or
            later, TensorBoard drops them; after a restore at step n give n + 1.
        flush_secs: the longest that a summary stays in memory while others are written.
        clock: unix time in seconds.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        purge_step: int | None = None,
        flush_secs: float = 120.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = os.fspath(directory)
        self._purge_step = purge_step
        self._flush_secs = flush_secs
        self._clock = clock
        self._lock = threading.Lock()
        self._records: RecordWriter | None = None
        self._flushed_at = clock()

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Write one number.

        Args:
            tag: the curve's name, e.g. ``loss``.
            value: its value; NaN and infinity are written as such.
            step: the global step it belongs to.
        """
        self.scalars({tag: value}, step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write several numbers of one step as one event, as an evaluation's metrics are."""
        summary = Summary(
            value=[Summary.Value(tag=tag, simple_value=float(v)) for tag, v in values.items()]
        )
        self._write(Event(step=step, summary=summary))

    def text(self, tag: str, text: str, step: int) -> None:
        """Write a text; TensorBoard shows it, as Markdown, under its Text tab."""
        summary = messages.text(tag, text)
        for value in summary.value:
            value.tag = tag  # tensorboardX appends a word of its own
        self._write(Event(step=step, summary=summary))

    def histogram(self, tag: str, times: Mapping[int, int], step: int) -> None:
        """Write how often each of some counts occurs; from 64 on in ranges.

        Args:
            tag: the histogram's name, e.g. ``staleness``.
            times: count → how often, in ascending order, at least one.
            step: the global step it belongs to.
        """
        values, often = np.array(list(times.items()), np.int64).T
        limits = np.unique([2.0 ** int(v).bit_length() if v >= 64 else v + 0.5 for v in values])
        where = np.searchsorted(limits, values)
        histogram = HistogramProto(
            min=float(values[0]),
            max=float(values[-1]),
            num=float(often.sum()),
            sum=float((values * often).sum()),
            sum_squares=float((values.astype(float) ** 2 * often).sum()),
            bucket_limit=limits.tolist(),
            bucket=np.bincount(where, often, len(limits)).tolist(),
        )
        summary = Summary(value=[Summary.Value(tag=tag, histo=histogram)])
        self._write(Event(step=step, summary=summary))

    def flush(self) -> None:
        """Force everything written so far to the disk."""
        with self._lock:
            if self._records is not None:
                self._records.flush()
                self._flushed_at = self._clock()

    def close(self) -> None:
        """Flush and close the file; again is no error."""
        with self._lock:
            if self._records is not None:
                self._records.flush()
                self._records.close()
                self._records = None

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, event: Event) -> None:
        with self._lock:
            if self._records is None:
                self._records = self._open()
            now = self._append(self._records, event)
            if now - self._flushed_at >= self._flush_secs:
                self._records.flush()
                self._flushed_at = now

    def _open(self) -> RecordWriter:
        os.makedirs(self.directory, exist_ok=True)
        # Seconds and host alone would let the next writer truncate this one's file.
        name = (
            f"events.out.tfevents.{int(self._clock()):010d}.{socket.gethostname()}"
            f".{os.getpid()}.{next(_numbers)}"
        )
        records = RecordWriter(os.path.join(self.directory, name))
        self._append(records, Event(file_version=FILE_VERSION))
        if self._purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._append(records, Event(step=self._purge_step, session_log=start))
            self._purge_step = None
        return records

    def _append(self, records: RecordWriter, event: Event) -> float:
        """Write an event, stamped with the time, which is returned."""
        event.wall_time = now = self._clock()
        records.write(event.SerializeToString())
        return now
