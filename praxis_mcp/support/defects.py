"""Where an exception came from, for the log."""

from __future__ import annotations

import traceback

_MAX_PLACES = 30
"""Places of one exception; of a deep recursion its end is shown."""


def places(exc: BaseException) -> str:
    """An exception's type and the places that it came through, on one line, outermost first. Its message is left out:
    it may hold arguments or secrets."""
    frames = traceback.extract_tb(exc.__traceback__)
    through = " > ".join(f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames[-_MAX_PLACES:])
    cut = "… > " if len(frames) > _MAX_PLACES else ""
    return f"{type(exc).__name__} at {cut}{through}" if through else type(exc).__name__
