"""A task as the store keeps it: a call that its client need not wait for (MCP tasks extension, SEP-2663)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

WORKING = "working"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"
INTERNAL_ERROR = -32603
"""The code of the error of a task whose server did not live to its end (JSON-RPC 2.0, 5.1)."""


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A row.

    Attributes:
        id: of the task, 128 random bits in hexadecimal.
        server: id of the process that runs it, or ran it.
        caller: who called; only they may see it. Empty is anonymous.
        tool: what was called.
        status: ``working``, ``completed`` (there is a result, be it that of a failed call), ``failed`` (there is a
            JSON-RPC error) or ``cancelled``.
        message: what it is busy with, or why it ended; None where there is nothing to say.
        created, updated: in seconds since 1970 (UTC).
        expires: when it is forgotten, at the latest; until it has ended, when its server ends it.
        kept: seconds for which its result is kept.
        attempts: how often it was begun.
        is_cancelled: whether somebody has asked for its end.
        request: JSON of what is needed to run it again; None where that is not allowed, or no longer needed.
        result: JSON of the result, once it is there.
        error: JSON of the error that ended it.
        size: bytes of the result.
    """

    id: str
    server: str
    caller: str
    tool: str
    status: str
    message: str | None
    created: float
    updated: float
    expires: float
    kept: float
    attempts: int = 1
    is_cancelled: int = 0
    request: str | None = None
    result: str | None = None
    error: str | None = None
    size: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether its status is the last one."""
        return self.status != WORKING

    def values(self) -> tuple[Any, ...]:
        """What its columns hold, in the order of `COLUMNS`."""
        return tuple(getattr(self, name) for name in COLUMNS)


COLUMNS = tuple(field.name for field in dataclasses.fields(StoredTask))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task's work has ended.

    Attributes:
        result: JSON of the result; None where there is an error.
        error: JSON of a JSON-RPC error; None where there is a result.
        message: what there is to say of it; None for nothing.
    """

    result: str | None = None
    error: str | None = None
    message: str | None = None
