"""What libraries log through Python's own logging, in our log, without the values that they put into it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from praxis_mcp.support.defects import places
from praxis_mcp.support.logs import logger

_NAMES = ("uvicorn.error", "mcp", "sse_starlette")
_SECRETS = re.compile(r"[0-9a-fA-F-]{32,36}")
"""Ids of sessions, which let whoever knows one take part in it."""


class _ToOurLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = _SECRETS.sub("…", record.getMessage().strip())[:500]
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {places(record.exc_info[1])}"
        logger.log("ERROR" if record.levelno >= logging.ERROR else "WARNING", "{}: {}", record.name, text)


@contextmanager
def library_logs() -> Iterator[None]:
    """Meanwhile warnings and errors of the web server and the SDK go to our log, and nothing else of theirs anywhere:
    below that level they log what clients send."""
    handler = _ToOurLog(logging.WARNING)
    found = [(log := logging.getLogger(name), log.level, log.propagate) for name in _NAMES]
    for log, _, _ in found:
        log.addHandler(handler)
        log.setLevel(logging.WARNING)
        log.propagate = False
    try:
        yield
    finally:
        for log, level, propagate in found:
            log.removeHandler(handler)
            log.setLevel(level)
            log.propagate = propagate
