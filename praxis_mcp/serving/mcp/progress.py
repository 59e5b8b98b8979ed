"""Progress of one call, from what the tool writes, what the engine is busy with, and silence.

A tool reports numbers on standard error, one line each::

    progress: 3/10 resizing cat.png
    progress: 45% halfway there
    {"progress": 3, "total": 10, "message": "resizing cat.png"}

Every other line of its output is a message without numbers. A client that reads slowly never holds up the run: what
it has not taken yet is replaced by what is newer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from praxis_mcp.engines.output import StreamName
from praxis_mcp.serving.mcp.media import decode_text
from praxis_mcp.support.tasks import unwrapped

MIN_INTERVAL = 0.1
"""Seconds between two notifications."""
FLUSH_TIMEOUT = 1.0
"""Seconds that the last numbers of a run that has ended may take to be sent."""
MAX_PROGRESS_MESSAGE = 200
"""Characters of a message."""
STEP = 0.001
"""What a notification without numbers of its own adds, because progress must increase with each (specification
2025-11-25, basic/utilities/progress): little, so that the tool's own numbers, when they come, are still larger."""

_MAX_PROGRESS_LINE = 4096
_NUMBERS = re.compile(r"^progress:\s*(\d+(?:\.\d+)?)\s*(?:/\s*(\d+(?:\.\d+)?)|(%))?\s*[:,-]?\s*(.*)$", re.IGNORECASE)
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x1f\x7f]")

Send = Callable[[float, float | None, str | None], Awaitable[None]]
"""Sends progress, total and message to the client."""


class ProgressReporter:
    """Takes lines and states in without ever waiting; sends the latest of them from a task of its own.

    Args:
        send: sends one notification.
        heartbeat: seconds without a notification after which one says that the call lives on.
        stdout_is_data: standard output is data, not messages (``output: json``).

    Its listeners must be called on the event loop.
    """

    def __init__(self, send: Send, *, heartbeat: float, stdout_is_data: bool = False) -> None:
        self._send = send
        self._heartbeat = heartbeat
        self._ignored: StreamName | None = "stdout" if stdout_is_data else None
        self._partial: dict[StreamName, bytes] = {}
        self._wake = anyio.Event()
        self._message: str | None = None
        self._numbers: tuple[float, float | None] | None = None
        self._total: float | None = None
        self._sent = 0.0

    def on_output(self, stream: StreamName, data: bytes) -> None:
        """Take a piece of the tool's output."""
        if stream == self._ignored:
            return
        # A progress bar redraws its line by a carriage return.
        lines = (self._partial.get(stream, b"") + data).replace(b"\r", b"\n").split(b"\n")
        self._partial[stream] = lines.pop()[-_MAX_PROGRESS_LINE:]
        if stream == "stdout":
            self._plain(lines)
            return
        self._plain([line for line in lines if not self._read_numbers(line)])

    def on_status(self, text: str) -> None:
        """Take what the engine is busy with."""
        self._say(text)

    async def run(self) -> None:
        """Send what there is to send, until cancelled."""
        began = anyio.current_time()
        while True:
            with anyio.move_on_after(self._heartbeat):
                await self._wake.wait()
            if self._message is None and self._numbers is None:
                self._message = f"running for {anyio.current_time() - began:.0f} s"
            await self._send_latest()
            await anyio.sleep(MIN_INTERVAL)

    async def flush(self) -> None:
        """The run has ended: send its last numbers, if they are still to be sent, and nothing else."""
        if self._numbers is not None:
            with anyio.move_on_after(FLUSH_TIMEOUT):
                await self._send_latest()

    async def _send_latest(self) -> None:
        self._wake = anyio.Event()
        message, self._message = self._message, None
        numbers, self._numbers = self._numbers, None
        await self._send(*self._next(numbers), message)

    def _plain(self, lines: list[bytes]) -> None:
        for line in reversed(lines):
            if line.strip():
                self._say(decode_text(line[:_MAX_PROGRESS_LINE], cut=True) or "")
                return

    def _read_numbers(self, line: bytes) -> bool:
        if len(line) > _MAX_PROGRESS_LINE or line.strip()[:1].lower() not in (b"p", b"{"):
            return False
        found = parse_progress(line.decode(errors="replace").strip())
        if found is None:
            return False
        progress, total, message = found
        self._numbers = (progress, total)
        self._message = _tidy(message) or self._message
        self._wake.set()
        return True

    def _say(self, text: str) -> None:
        tidy = _tidy(text)
        if tidy:
            self._message = tidy
            self._wake.set()

    def _next(self, numbers: tuple[float, float | None] | None) -> tuple[float, float | None]:
        least = max(self._sent + STEP, math.nextafter(self._sent, math.inf))
        if numbers is not None:
            self._total = numbers[1]
        self._sent = max(numbers[0], least) if numbers is not None else least
        return self._sent, self._total if self._total is not None and self._total >= self._sent else None


@asynccontextmanager
async def reporting(reporter: ProgressReporter | None) -> AsyncIterator[None]:
    """Run a reporter around a call. No notification leaves after this, as the specification demands."""
    if reporter is None:
        yield
        return
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reporter.run)
            yield
            tasks.cancel_scope.cancel()
    await reporter.flush()


MAX_PROGRESS = 2.0**53
"""Progress and totals above are ignored: up to here floats count in whole steps, and the next one is not infinity,
which JSON cannot carry."""


def parse_progress(line: str) -> tuple[float, float | None, str] | None:
    """Progress, total and message that a line of standard error reports; None where it reports none."""
    if line.startswith("{"):
        return _parse_json(line)
    match = _NUMBERS.match(line)
    progress = _number(match[1]) if match else None
    if match is None or progress is None:
        return None
    return progress, 100.0 if match[3] else _number(match[2]), match[4]


def _parse_json(line: str) -> tuple[float, float | None, str] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    progress, message = _number(value.get("progress")), value.get("message")
    if progress is None or isinstance(value["progress"], str):
        return None
    return progress, _number(value.get("total")), message if isinstance(message, str) else ""


def _number(value: object) -> float | None:
    """A number from zero to `MAX_PROGRESS`; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= MAX_PROGRESS else None


def _tidy(text: str) -> str:
    text = _CONTROLS.sub(" ", text).strip()
    return text if len(text) <= MAX_PROGRESS_MESSAGE else text[: MAX_PROGRESS_MESSAGE - 1] + "…"
