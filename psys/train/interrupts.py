"""Ctrl-C and SIGTERM in training on one machine: the step under way is finished and saved."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger("psys")

SIGNALS = ("SIGINT", "SIGTERM")
"""Reasons to stop that leave the job to be gone on with: what is saved then is not its end."""

SIGTERM_EXIT_CODE = 143


@contextmanager
def saving_on_signal(request_stop: Callable[[str], bool]) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM stop training after its step; a second ends it at once.

    So does the first one while there is nothing to save. Where the program has a handler of its
    own for a signal, that stays.

    Args:
        request_stop: asks training to stop, with a reason; False if it has not begun.

    Raises:
        KeyboardInterrupt: after SIGINT, when the block is done.
        SystemExit: 143 after SIGTERM, likewise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: one for number, one in defaults.items() if signal.getsignal(number) == one}
    received: list[int] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, _frame: FrameType | None) -> None:
        restore()
        name = signal.Signals(number).name
        if not request_stop(name):
            raise _end_of(number)
        logger.warning("%s: saving after this step; once more ends at once.", name)
        received.append(number)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
    if received:
        raise _end_of(received[0])


def _end_of(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(SIGTERM_EXIT_CODE)
