"""What holds for all tests."""

import signal

from hypothesis import settings

# A script's background job ignores Ctrl-C, and so would every process the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test is timed: a kernel may be compiled in its first example, on a machine that is busy.
settings.register_profile("psys", deadline=None)
settings.load_profile("psys")
