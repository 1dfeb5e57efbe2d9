"""What holds for all tests."""

from hypothesis import settings

# No test is timed: a kernel may be compiled in its first example, on a machine that is busy.
settings.register_profile("psys", deadline=None)
settings.load_profile("psys")
