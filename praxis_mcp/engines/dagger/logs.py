"""What commands write, read while they run: Dagger's log stream, split up by trace ids.

``GET /v1/logs`` of a session is a stream of server-sent events, each with OTLP log records as JSON. Dagger does not
document it, and drops from it what is not UTF-8, so it serves listeners only: results are read from the container.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from praxis_mcp.engines.dagger.cli import SessionAddress
from praxis_mcp.engines.output import StreamName
from praxis_mcp.support.logs import logger

PieceListener = Callable[[StreamName, bytes], None]
"""Is called with each piece of output. Must not block."""

_STREAMS: dict[int, StreamName] = {1: "stdout", 2: "stderr"}
_SCOPE = "dagger.io/engine.buildkit"
"""The instrumentation scope of what commands write; records of other scopes are Dagger's own."""
_MAX_LOG_EVENT = 4 * 1024 * 1024
_TRIES = 3
_LOG_RECONNECT_PAUSE = 0.5


class LogTap:
    """One call's part of the log stream: what belongs to the trace that `traceparent` names."""

    def __init__(self, listener: PieceListener) -> None:
        trace = secrets.token_bytes(16)
        self.traceparent = f"00-{trace.hex()}-{secrets.token_hex(8)}-01"
        self.key = base64.b64encode(trace)
        self.listener = listener


class LogReader:
    """Reads the log stream of one session, all the time: a reader that comes later gets all that was written before,
    be it hundreds of megabytes that nobody wants."""

    def __init__(self, address: SessionAddress) -> None:
        self._address = address
        self._taps: dict[bytes, LogTap] = {}
        self._last_id = ""
        self._line = bytearray()
        self._skipping = False

    @contextmanager
    def listen(self, tap: LogTap) -> Iterator[None]:
        """Pass on to a tap what the query that carries its trace runs."""
        self._taps[tap.key] = tap
        try:
            yield
        finally:
            del self._taps[tap.key]

    async def run(self) -> None:
        """Read until cancelled, or until the stream cannot be opened: calls then go on without it."""
        import httpx

        url = f"http://127.0.0.1:{self._address.port}/v1/logs"
        auth = (self._address.token, "")
        async with httpx.AsyncClient(auth=auth, timeout=None) as client:  # noqa: S113 - the stream has no end
            for _ in range(_TRIES):
                headers = {"X-Last-Event-ID": self._last_id} if self._last_id else {}
                try:
                    async with client.stream("GET", url, headers=headers) as response:
                        if response.status_code != httpx.codes.OK:
                            logger.debug("Dagger's log stream answers {}", response.status_code)
                            return
                        async for piece in response.aiter_bytes():
                            self.feed(piece)
                except httpx.HTTPError as exc:
                    logger.debug("Dagger's log stream broke off: {}", type(exc).__name__)
                self._line.clear()
                await anyio.sleep(_LOG_RECONNECT_PAUSE)

    def feed(self, piece: bytes) -> None:
        """Take in the next piece of the stream, wherever it was cut."""
        *ends, rest = piece.split(b"\n")
        for end in ends:
            if not self._skipping:
                self._end_of_line(bytes(self._line) + end)
            self._line.clear()
            self._skipping = False
        # What nobody listens to is not even kept until the end of its line, nor is what would take long to parse.
        if (len(self._line) > 16 and not self._taps) or len(self._line) > _MAX_LOG_EVENT:
            self._line.clear()
            self._skipping = True
        if not self._skipping:
            self._line += rest

    def _end_of_line(self, line: bytes) -> None:
        if line.startswith(b"id:"):
            self._last_id = line[3:].strip().decode(errors="replace")
        elif line.startswith(b"data:") and any(key in line for key in self._taps):
            self._take(line[5:])

    def _take(self, data: bytes) -> None:
        try:
            event = json.loads(data)
        except ValueError:
            logger.debug("Dagger's log stream holds an event that is not JSON")
            return
        for record in _records(event):
            tap = self._taps.get(str(record.get("traceId", "")).encode())
            if tap is None:
                continue
            attributes = {item["key"]: item.get("value", {}) for item in record.get("attributes") or ()}
            name = _STREAMS.get(int(attributes.get("stdio.stream", {}).get("intValue", 0)))
            text = str(record.get("body", {}).get("stringValue", ""))
            if name is not None and text:
                tap.listener(name, text.encode())


def _records(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in event.get("resourceLogs") or ():
        for scope in resource.get("scopeLogs") or ():
            if scope.get("scope", {}).get("name") == _SCOPE:
                yield from scope.get("logRecords") or ()
