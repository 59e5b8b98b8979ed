"""Logs: to standard error only, never with a value that a caller, a secret or an environment gave."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from loguru import Record

_FORMAT = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> {message}<dim>{extra[run]}</dim>"


def configure_logging(level: str) -> None:
    """Send logs of at least `level` to standard error."""
    logger.remove()
    logger.configure(extra={"run": ""}, patcher=_mark_run)
    # diagnose would print the values of local variables into tracebacks: arguments and secrets among them.
    logger.add(sys.stderr, level=level, format=_FORMAT, backtrace=False, diagnose=False)


def _mark_run(record: Record) -> None:
    run = record["extra"].get("run", "")
    if run and not run.startswith(" "):
        record["extra"]["run"] = f" run={run[:8]}"
