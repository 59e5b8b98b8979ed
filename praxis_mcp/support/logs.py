"""The logger of every module here, silent until whoever runs the process wants to hear it.

A library writes nothing by itself. An application that wants the log enables it as loguru's documentation says for
libraries, ``logger.enable("praxis_mcp")``, before or after it imports this package; the command line does so too.
"""

from __future__ import annotations

from loguru import logger  # noqa: TID251 - the one place

__all__ = ["NAME", "logger"]

NAME = "praxis_mcp"
"""What `logger.enable` and `logger.disable` are given."""


def _is_decided() -> bool:
    """Whether the application has enabled or disabled the log already. Modules are imported when they are first used,
    which may be long after that, and loguru has no public way to ask."""
    activations = getattr(getattr(logger, "_core", None), "activation_list", ())
    return any(name == f"{NAME}." for name, _ in activations)


if not _is_decided():
    logger.disable(NAME)
