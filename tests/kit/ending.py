"""What tests have made for the whole run goes when it ends."""

import atexit
from contextlib import ExitStack

at_end = ExitStack()
"""Closed by tests/conftest.py when the last test has ended. A leaving worker of pytest-xdist is killed after ten
seconds, which on a busy machine is too early for what is registered with `atexit`."""

atexit.register(at_end.close)  # for processes that are none of pytest's, and does nothing a second time
