"""One line of the log for each call: which tool, for whom, where, how it ended, how long it took, and its run."""

from __future__ import annotations

import json
import re

from praxis_mcp.support.logs import logger

_WORD = re.compile(r"[!#-<>-~]+")
"""What stands without quotation marks: printable ASCII but for blanks, ``"`` and ``=``."""
_MAX_LOGGED_NAME = 128


def log_call(tool: str, caller: str, engine: str, outcome: str, seconds: float, run_id: str = "") -> None:
    """Log how a call ended, at INFO; none of its arguments.

    Args:
        tool: the name that was called, whether or not there is such a tool.
        caller: who called; empty is anonymous.
        engine: what carried it out, ``upstream:NAME`` for a republished tool; empty where it did not get so far.
        outcome: see `CallTally`; or ``unknown_tool``, ``forbidden`` (the caller's scopes do not cover it), or
            ``held_back`` (an upstream's tool that waits for approval).
        seconds: from the call to its end.
        run_id: of its record; empty where it has none.
    """
    facts = {"tool": tool[:_MAX_LOGGED_NAME], "caller": caller[:_MAX_LOGGED_NAME], "engine": engine, "outcome": outcome}
    milliseconds = round(seconds * 1000, 1)
    line = " ".join(f"{name}={_word(value)}" for name, value in facts.items())
    logger.bind(event="call", **facts, ms=milliseconds, run=run_id).info("call {} ms={}", line, milliseconds)


def _word(value: str) -> str:
    """As it is, or in quotation marks: no name of others adds a field."""
    return value if _WORD.fullmatch(value) else json.dumps(value, ensure_ascii=False) if value else "-"
