"""An error that psys raised on purpose and nobody caught: one line instead of a traceback.

Its message says what to do; the frames inside psys would only push it out of sight. A program
that catches the error sees no difference, and an error of the program's own keeps its traceback.
"""

from __future__ import annotations

import sys
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

from psys.environment import wants_tracebacks
from psys.errors import ConfigError, ModelError, PsysError

_PSYS = str(Path(__file__).parent)
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})
# Ubuntu puts this hook into every program of the system's Python; it is nobody's wish.
_APPORT = "apport_python_hook"


def one_line(error: BaseException) -> str:
    """Return an exception as ``<class>: <message>``, its message folded into one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def install() -> None:
    """Show an uncaught PsysError as one line; a hook somebody else installed stays alone.

    The whole traceback is shown in an interactive interpreter and with PSYS_TRACEBACK.
    """
    before = sys.excepthook
    if before is not sys.__excepthook__ and before.__module__ != _APPORT:
        return

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        interactive = hasattr(sys, "ps1") or sys.flags.interactive
        if not isinstance(error, PsysError) or interactive or wants_tracebacks():
            before(kind, error, trace)
            return
        place = place_of(trace) if isinstance(error, (ConfigError, ModelError)) else ""
        print(f"psys: {one_line(error)}{place and f' ({place})'}", file=sys.stderr)

    sys.excepthook = show


def place_of(trace: TracebackType | None) -> str:
    """Return the program's own line nearest to where an error was raised; '' for none."""
    own = [frame for frame in traceback.extract_tb(trace) if _is_program(frame.filename)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""


def _is_program(filename: str) -> bool:
    path = Path(filename)
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not (
        filename.startswith("<")
        or installed
        or path.is_relative_to(_PSYS)
        or any(path.is_relative_to(library) for library in _LIBRARIES)
    )
