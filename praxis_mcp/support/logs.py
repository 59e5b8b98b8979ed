"""The logger of every module here, silent until the application enables it; and exceptions as the log shows them.

A library writes nothing by itself. An application that wants the log enables it as loguru's documentation says for
libraries, ``logger.enable("praxis_mcp")``, before or after it imports this package; the command line does so too.
"""

from __future__ import annotations

import secrets
import traceback

from loguru import logger  # noqa: TID251 - the one place

__all__ = ["NAME", "logger", "places"]

NAME = "praxis_mcp"
"""What `logger.enable` and `logger.disable` are given."""

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
    """Log an exception that nobody expected; returns the text for the client.

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


def _is_decided() -> bool:
    """Whether the application has enabled or disabled the log already. Modules are imported when they are first used,
    which may be long after that, and loguru has no public way to ask."""
    activations = getattr(getattr(logger, "_core", None), "activation_list", ())
    return any(name == f"{NAME}." for name, _ in activations)


if not _is_decided():
    logger.disable(NAME)
