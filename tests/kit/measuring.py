"""Coverage of processes that tests start (`make coverage`)."""

import os

_CONFIG = "COVERAGE_PROCESS_CONFIG"  # set by coverage.py (`patch = subprocess`), and read as an interpreter starts


def measured() -> dict[str, str]:
    """What a process's environment needs for its lines to count; nothing where nobody counts. For an environment that
    is not made from this process's own."""
    return {_CONFIG: os.environ[_CONFIG]} if _CONFIG in os.environ else {}
