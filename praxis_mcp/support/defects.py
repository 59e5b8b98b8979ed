"""Unexpected exceptions: where one came from, for the log, and its number, which is all that a client gets."""

from __future__ import annotations

import secrets
import traceback

from praxis_mcp.support.logs import logger

_MAX_PLACES = 30
"""Places of one exception; of a deep recursion its end is shown."""


def places(exc: BaseException) -> str:
    """An exception's type and the places that it came through, on one line, outermost first. Its message is left out:
    it may hold arguments or secrets."""
    frames = traceback.extract_tb(exc.__traceback__)
    through = " > ".join(f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames[-_MAX_PLACES:])
    cut = "… > " if len(frames) > _MAX_PLACES else ""
    return f"{type(exc).__name__} at {cut}{through}" if through else type(exc).__name__


def report_defect(doing: str, exc: Exception) -> str:
    """Log an exception that nobody expected; returns what the client is told.

    Args:
        doing: what was being done, such as ``a tool was called``; holds no values.
        exc: the exception.
    """
    incident = secrets.token_hex(6)
    logger.error("internal error {} while {}: {}", incident, doing, places(exc))
    return (
        f"Internal error {incident} in praxis-mcp while {doing}. It is not the fault of your arguments; the server's "
        "log says more under that number."
    )
