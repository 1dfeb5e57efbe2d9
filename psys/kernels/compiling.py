"""Compile a kernel once a machine and user: lazily, cached on disk, one process at a time.

A kernel is a plain Python loop over arrays that numba compiles for one dtype when it is first
asked for. Compiled code holds no Python lock while it runs, unless its kernel is ``short``. It is
kept in the first of these directories that belongs to the user alone: numba's own
(``NUMBA_CACHE_DIR``), then ``~/.cache/psys/kernels``, then ``psys-kernels-<user id>`` below the
temporary directory; in there, in one for these very sources. Where none can be written, every
process compiles for itself and says so.
Nothing here knows what a kernel computes.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np

logger = logging.getLogger("psys")

COMPILE_WAIT_SECS = 60.0
"""How long a process waits for another one that compiles the same kernel."""
LOCK_POLL_SECS = 0.02

_ANY = np.dtype(np.float32)
_numba_settings = threading.Lock()
"""Held while numba's cache directory, a setting of the whole process, is ours."""


class Parameter(NamedTuple):
    """One argument of a kernel.

    Attributes:
        ndim: axes of a C-contiguous array; 0 for a number.
        dtype: None for the dtype the kernel is compiled for.
        changed: whether the kernel writes to it; if not, it may be read-only.
    """

    ndim: int
    dtype: str | None
    changed: bool

    def type(self, dtype: np.dtype[Any]) -> Any:
        """Return numba's type of the argument."""
        element = numba.from_dtype(np.dtype(self.dtype) if self.dtype else dtype)
        if not self.ndim:
            return element
        return numba.types.Array(element, self.ndim, "C", readonly=not self.changed)


def reads(ndim: int, dtype: str | None = None) -> Parameter:
    """Return a parameter that is only read."""
    return Parameter(ndim, dtype, changed=False)


def changes(ndim: int, dtype: str | None = None) -> Parameter:
    """Return a parameter that is written to."""
    return Parameter(ndim, dtype, changed=True)


FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

inner: Callable[[FunctionT], FunctionT] = numba.njit(nogil=True, error_model="numpy")
"""Makes a function that kernels call; it becomes part of their code."""


class Kernel:
    """A loop over arrays, compiled for a dtype by ``kernel[dtype]``.

    Division by zero gives infinity, as in numpy; indices are not checked against the arrays.
    """

    def __init__(
        self, function: Callable[..., Any], parameters: tuple[Parameter, ...], *, short: bool
    ) -> None:
        """Describe a kernel; nothing is compiled.

        Args:
            function: the loop.
            parameters: of the function, in order.
            short: keep Python's lock: for what takes microseconds and is called dozens of times
                a step, where letting another thread in costs more than making it wait.
        """
        self.name = function.__name__
        self._jit: Any = numba.njit(nogil=not short, error_model="numpy")
        self._function = function
        self._parameters = parameters
        self._lock = threading.Lock()
        self._compiled: dict[np.dtype[Any], Callable[..., Any]] = {}

    def __getitem__(self, dtype: np.dtype[Any]) -> Callable[..., Any]:
        """Return the kernel compiled for ``dtype``."""
        if dtype not in self._compiled:
            with self._lock:
                if dtype not in self._compiled:
                    self._compiled[dtype] = self._compile(dtype)
        return self._compiled[dtype]

    def prepare(self, dtype: np.dtype[Any]) -> None:
        """Compile the kernel for ``dtype`` now, if it depends on one."""
        self[dtype if any(one.dtype is None for one in self._parameters) else _ANY]

    def __call__(self, *arguments: Any) -> Any:
        """Run a kernel whose parameters all have a dtype of their own."""
        return self[_ANY](*arguments)

    def _compile(self, dtype: np.dtype[Any]) -> Callable[..., Any]:
        if numba.config.DISABLE_JIT:
            return self._function
        types = tuple(one.type(dtype) for one in self._parameters)
        directory = cache_directory()
        if directory is not None:
            dispatcher: Any = self._jit(self._function)
            try:
                with _alone(directory / f"{self.name}.lock"):
                    _keep_in(directory, dispatcher)
                    dispatcher.compile(types)
            except Exception as error:
                # A damaged file or a full disk; a fault of the kernel itself comes again below.
                logger.warning(
                    "Kernel %s cannot be kept in %s (%s: %s): compiling it for this process "
                    "only. If this happens again, delete that directory.",
                    self.name,
                    directory,
                    type(error).__name__,
                    error,
                )
            else:
                return _finished(dispatcher)
        dispatcher = self._jit(self._function)
        dispatcher.compile(types)
        return _finished(dispatcher)


def kernel(*parameters: Parameter, short: bool = False) -> Callable[[Callable[..., Any]], Kernel]:
    """Return a decorator that makes a function with these parameters a ``Kernel``; see there."""
    return lambda function: Kernel(function, parameters, short=short)


def _finished(dispatcher: Any) -> Callable[..., Any]:
    # From here on an argument of another type is an error, not a silent compilation.
    dispatcher.disable_compile()
    return dispatcher  # type: ignore[no-any-return]


@cache
def cache_directory() -> Path | None:
    """Return where compiled kernels are kept; None, after a warning, if nowhere."""
    candidates = list(_candidates())
    for path in candidates:
        if _is_ours(path) and _is_ours(path / _source_digest()):
            return path / _source_digest()
    logger.warning(
        "No directory to keep compiled kernels in: this process compiles them for itself, which "
        "takes seconds. Tried: %s; set NUMBA_CACHE_DIR to one that can be written.",
        ", ".join(map(str, candidates)) or "none",
    )
    return None


@cache
def _source_digest() -> str:
    """Return a hash of all kernels: numba looks only whether a kernel's own module has changed."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.is_file():  # an editor may have put something else there
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _candidates() -> Iterator[Path]:
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR)
        return
    try:
        yield Path.home() / ".cache" / "psys" / "kernels"
    except RuntimeError:
        logger.debug("This user has no home directory.")
    try:
        yield Path(tempfile.gettempdir()) / f"psys-kernels-{os.getuid()}"
    except FileNotFoundError:
        logger.debug("There is no directory for temporary files.")


def _is_ours(path: Path) -> bool:
    """Return whether this user, and nobody else, can write there: its files are run as code."""
    try:
        # One by one: mkdir(parents=True) gives the mode to the last only, the umask's to others.
        for one in (*reversed(path.parents), path):
            if not one.exists():
                one.mkdir(mode=0o700, exist_ok=True)
        # Who can write to psys's own directory above can put another in the place of this one.
        for one in [path, *(above for above in path.parents[:1] if above.name == "psys")]:
            found = one.stat()
            if found.st_uid != os.getuid() or found.st_mode & 0o022:
                return False
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def _keep_in(directory: Path, dispatcher: Any) -> None:
    """Let numba look for, and keep, what it compiles in ``directory``."""
    with _numba_settings:
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(directory)
        try:
            dispatcher.enable_caching()  # reads the setting now, not later
        finally:
            numba.config.CACHE_DIR = before


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold ``path`` against other processes: the second finds what the first has compiled."""
    with path.open("a") as file:
        give_up = time.monotonic() + COMPILE_WAIT_SECS
        while not _try_lock(file.fileno()) and time.monotonic() < give_up:
            time.sleep(LOCK_POLL_SECS)  # flock waits for ever, or not at all
        yield  # closing the file gives the lock back


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
