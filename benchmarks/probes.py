"""Timers around the parts of one step, put in from outside: psys itself knows nothing of them.

``install`` wraps functions by name. Time is exclusive: what an inner part took is not counted
in the outer one again. Both wall time and the thread's own CPU time are kept, so a part that
waits is told from one that works. A name that this version does not have is left out and said.
"""

from __future__ import annotations

import functools
import importlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# (part, module, qualified name). A part may have several functions; generators are timed
# while they run, whichever thread that is.
PARTS: tuple[tuple[str, str, str], ...] = (
    # the trainer
    ("input: wait", "psys.train.input_pipeline", "InputPipeline.next"),
    ("ids: the rest", "psys.train.input_pipeline", "Batch.prepare"),
    ("ids: hash strings, unique", "psys.kernels", "hash_columns"),
    ("ids: hash strings, unique", "psys.kernels", "hash_buckets"),
    ("ids: hash strings, unique", "psys.kernels", "unique"),
    ("model: forward", "psys.train.session", "loss_and_gradients"),
    ("model: forward, gather and add rows", "psys.kernels", "place_rows"),
    ("model: backward", "psys.compute.train_store", "TrainStore._differentiate"),
    ("model: backward, in either thread", "psys.compute.deferred", "Deferred._compute"),
    ("model: backward, sums of rows", "psys.kernels", "sum_placed"),
    ("model: backward, sums of rows", "psys.kernels", "add_rows"),
    ("exchange: prepare, the rest", "psys.parameters", "Parameters.begin"),
    ("exchange: check and split gradients", "psys.spread", "Spread.split_gradients"),
    ("exchange: finite?", "psys.spread", "all_finite"),
    ("exchange: bound and check replies", "psys.parameters", "Parameters._bound_replies"),
    ("exchange: bound and check replies", "psys.parameters", "Parameters._check_replies"),
    ("exchange: send", "psys.rpc.remote_shard", "RemoteShard.begin_exchange"),
    ("exchange: wait for the reply", "psys.rpc.remote_shard", "RemoteShard.finish_exchange"),
    ("exchange: decode the reply", "psys.rpc.codec", "decode_reply"),
    ("exchange: finish, the rest", "psys.parameters", "Parameters.finish"),
    ("exchange: join dense and rows", "psys.spread", "Spread.join_dense"),
    ("exchange: join dense and rows", "psys.spread", "Spread.join_rows"),
    ("hooks and summaries", "psys.train.session", "Session._end_step"),
    # the ps
    ("ps: decode the request", "psys.rpc.codec", "decode_request"),
    ("ps: lock, lead, bookkeeping", "psys.host", "NodeHost.exchange"),
    ("ps: check the request", "psys.ps.memory_shard", "refusal"),
    ("ps: finite?", "psys.ps.slice_state", "all_finite"),
    ("ps: serve, gather rows", "psys.ps.memory_shard", "MemoryShard._serve"),
    ("ps: apply, the rest", "psys.ps.slice_state", "SliceState.apply"),
    ("ps: apply to rows", "psys.optimizers.compiled", "CompiledOptimizer.apply_sparse"),
    ("ps: apply to dense", "psys.optimizers.compiled", "CompiledOptimizer.apply_dense"),
    ("ps: find dense variables that changed", "psys.ps.memory_shard", "dense_values"),
    # both
    ("codec: header and description", "psys.rpc.codec", "describe"),
    ("codec: frames", "psys.rpc.codec", "write_frames"),
    ("codec: copy frames", "psys.rpc.codec", "read_bulk"),
    ("codec: copy to shared memory", "psys.rpc.codec", "write_bulk"),
)


class _Part:
    def __init__(self) -> None:
        self.calls = 0
        self.wall_secs = 0.0
        self.cpu_secs = 0.0


_parts: dict[str, _Part] = {}
_missing: list[str] = []
_stacks = threading.local()
_begun = time.monotonic()
_counting = False


def install(path: Path) -> None:
    """Wrap every part; SIGUSR1 begins to count, SIGUSR2 writes the figures to ``path``."""
    for part, module_name, qualified in PARTS:
        try:
            owner: Any = importlib.import_module(module_name)
            *outer, name = qualified.split(".")
            for one in outer:
                owner = getattr(owner, one)
            original = getattr(owner, name)
        except (ImportError, AttributeError):
            _missing.append(f"{module_name}.{qualified}")
            continue
        wrapped = _timed(_parts.setdefault(part, _Part()), original)
        setattr(owner, name, wrapped)
    signal.signal(signal.SIGUSR1, lambda *_: _begin())
    signal.signal(signal.SIGUSR2, lambda *_: _write(path))


def _begin() -> None:
    global _begun, _counting
    for part in _parts.values():
        part.calls, part.wall_secs, part.cpu_secs = 0, 0.0, 0.0
    _begun = time.monotonic()
    _cpu[0] = time.process_time()
    _counting = True


_cpu = [0.0]


def _write(path: Path) -> None:
    figures = {
        "secs": time.monotonic() - _begun,
        "process_cpu_secs": time.process_time() - _cpu[0],
        "missing": _missing,
        "parts": {
            name: {"calls": p.calls, "wall_secs": p.wall_secs, "cpu_secs": p.cpu_secs}
            for name, p in _parts.items()
            if p.calls
        },
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(figures))
    partial.rename(path)


def _timed(part: _Part, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def timed(*args: Any, **kwargs: Any) -> Any:
        begun = _enter()
        try:
            result = original(*args, **kwargs)
        finally:
            _leave(part, begun)
        return _timed_iterator(part, result) if isinstance(result, Iterator) else result

    return timed


def _timed_iterator(part: _Part, items: Iterator[Any]) -> Iterator[Any]:
    while True:
        begun = _enter()
        try:
            item = next(items)
        except StopIteration:
            return
        finally:
            _leave(part, begun, calls=0)
        yield item


def _enter() -> tuple[float, float]:
    """Return the clocks, and open a frame for what inner parts take."""
    frames = getattr(_stacks, "frames", None)
    if frames is None:
        frames = _stacks.frames = []
    frames.append([0.0, 0.0])
    return time.perf_counter(), time.thread_time()


def _leave(part: _Part, begun: tuple[float, float], calls: int = 1) -> None:
    wall, cpu = time.perf_counter() - begun[0], time.thread_time() - begun[1]
    inner_wall, inner_cpu = _stacks.frames.pop()
    if _stacks.frames:
        _stacks.frames[-1][0] += wall
        _stacks.frames[-1][1] += cpu
    if _counting:
        part.calls += calls
        part.wall_secs += wall - inner_wall
        part.cpu_secs += cpu - inner_cpu
