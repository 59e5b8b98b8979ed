"""Logs: to standard error only, one line an entry, and never with a value that a caller, a secret or an environment
gave."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Literal

from praxis_mcp.support.logs import NAME, logger
from praxis_mcp.support.text import printable

if TYPE_CHECKING:
    from loguru import Message, Record

_FORMAT = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> {message}<dim>{extra[in_run]}</dim>"


def configure_logging(level: str, form: Literal["text", "json"] = "text") -> None:
    """Send logs of at least `level` to standard error.

    Args:
        level: the least severe that is shown.
        form: ``text`` for people, or ``json``: an object a line, with ``time`` (RFC 3339), ``level``, ``message``, and
            what else is known, such as ``run`` and ``tool``.
    """
    logger.enable(NAME)
    logger.remove()
    # Whatever text of others a message holds: it begins no line of its own, and steers no terminal.
    logger.configure(extra={"in_run": ""}, patcher=_make_safe)
    # diagnose would print the values of local variables into tracebacks: arguments and secrets among them.
    if form == "json":
        logger.add(_write_json, level=level, format="{message}", backtrace=False, diagnose=False)
    else:
        logger.add(sys.stderr, level=level, format=_FORMAT, backtrace=False, diagnose=False)


def hold_logs() -> list[tuple[str, str]]:
    """Show no logs until `configure_logging`; what is logged meanwhile, level and text, comes into the list. loguru's
    own form would be neither safe to show nor an object a line."""
    held: list[tuple[str, str]] = []
    logger.enable(NAME)
    logger.remove()
    logger.add(lambda message: held.append((message.record["level"].name, message.record["message"])), format="")
    return held


def _make_safe(record: Record) -> None:
    record["message"] = printable(record["message"])
    run = record["extra"].get("run", "")
    if run:
        record["extra"]["in_run"] = f" run={run[:8]}"


def _write_json(message: Message) -> None:
    record = message.record
    known = {name: value for name, value in record["extra"].items() if name != "in_run"}
    entry = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "message": record["message"],
        **{name: printable(value) if isinstance(value, str) else value for name, value in known.items()},
    }
    # In one write, so that two processes with one log do not end up in each other's lines.
    sys.stderr.write(json.dumps(entry) + "\n")
