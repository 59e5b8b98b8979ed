"""The process's standard input and output, taken for MCP so that nothing else can write between its messages.

Imports nothing but the standard library: a process takes its wire before it imports anything that might print.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wire:
    """Private descriptors of what were standard input and output. They stay open until the process ends, because a
    thread may be blocked on them."""

    stdin: int
    stdout: int


@contextmanager
def take_wire() -> Iterator[Wire]:
    """Take standard input and output for MCP.

    Meanwhile file descriptor 0 is the null device, so that no child reads the client's messages, and 1 is standard
    error, so that a stray ``print``, of this process or of a child, lands in the log.
    """
    sys.stdout.flush()
    # dup gives descriptors that children do not inherit (PEP 446).
    wire = Wire(_dup_above_standard(0), _dup_above_standard(1))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    try:
        yield wire
    finally:
        sys.stdout.flush()
        os.dup2(wire.stdin, 0)
        os.dup2(wire.stdout, 1)


def _dup_above_standard(descriptor: int) -> int:
    # With standard error closed, dup could give number 2, and every log line would land on the wire.
    low: list[int] = []
    try:
        while (copy := os.dup(descriptor)) <= 2:
            low.append(copy)
        return copy
    finally:
        for number in low:
            os.close(number)
