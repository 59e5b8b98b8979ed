"""A connected client of another MCP server, over whatever transport reaches it."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from io import TextIOWrapper
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import Implementation, ToolListChangedNotification
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from praxis_mcp.plans.secrets import Masker
from praxis_mcp.support.logs import logger
from praxis_mcp.support.mcp_sdk import stamp
from praxis_mcp.support.telemetry import inject_ambient
from praxis_mcp.support.tracing import sending
from praxis_mcp.upstreams.loops import DEPTH_VARIABLE, child_depth
from praxis_mcp.upstreams.raw_answers import MAX_UPSTREAM_MESSAGE, RawAnswers
from praxis_mcp.upstreams.spec import ProgressListener, UpstreamSpec
from praxis_mcp.upstreams.transports.http import Posts, http_client
from praxis_mcp.upstreams.transports.sse import sse_streams
from praxis_mcp.upstreams.transports.stdio import stdio_streams

_KEPT_ERROR_LINES = 10
_MAX_ERROR_LINE = 500
_LAST_LINES_TIMEOUT = 1.0
"""Seconds for reading what a command wrote before it ended; a process that it left behind may hold the file."""
_MOST_LOGGED = 1000
"""Lines of one server's standard error that go to the log; a server may write without end."""


class Errors:
    """The last lines that a server wrote to standard error, secrets masked."""

    def __init__(self, name: str, masker: Masker) -> None:
        self._name = name
        self._masker = masker
        self._lines: deque[str] = deque(maxlen=_KEPT_ERROR_LINES)
        self._logged = 0
        self._has_ended = threading.Event()
        self._has_ended.set()

    def begin(self) -> None:
        """Lines will come, until `end`."""
        self._has_ended.clear()

    def end(self) -> None:
        """No more lines will come. May be called in any thread, as may `add`."""
        self._has_ended.set()

    async def wait_for_last(self) -> None:
        """Wait until the last line is there, for a second at most."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._has_ended.wait, _LAST_LINES_TIMEOUT)

    @property
    def text(self) -> str | None:
        """The last lines; None where there are none."""
        return "\n".join(self._lines) or None

    def add(self, line: bytes) -> None:
        """One more line."""
        text = self._masker.text(line[:_MAX_ERROR_LINE].decode(errors="replace").rstrip())
        if text:
            self._lines.append(text)
        if text and self._logged < _MOST_LOGGED:
            self._logged += 1
            logger.debug("{}: {}", self._name, text)


@dataclass(frozen=True, slots=True)
class Channel:
    """A connected client, and requests whose answers come back as they are.

    Attributes:
        client: the SDK's client.
        about: what spans of requests say about the way to the server.
    """

    client: Client
    _asker: RawAnswers | Posts
    about: Mapping[str, str | int] = field(default_factory=dict)

    async def ask(
        self, method: str, params: dict[str, Any], on_progress: ProgressListener | None = None
    ) -> dict[str, Any]:
        """The result of a request, as its JSON says. Cancelling cancels it at the server.

        Args:
            method: what is asked.
            params: with a ``_meta``, which gets what the protocol wants there.
            on_progress: receives progress.

        Raises:
            MCPError: the answer is an error, or there will be none.
        """
        headers = stamp(self.client.session, method, params)
        inject_ambient(params["_meta"])
        about = {**self.about, "mcp.protocol.version": str(self.client.protocol_version)}
        with sending(method, str(params.get("name", "")), about) as sent:
            params["_meta"].update(sent.context.carrier())
            try:
                answer = await self._asker.ask(method, params, headers, on_progress)
            except MCPError as exc:
                sent.failed(str(exc.error.code))
                raise
            if answer.get("isError") is True:
                sent.failed("tool_error")
            return answer


@asynccontextmanager
async def open_client(
    spec: UpstreamSpec,
    *,
    masker: Masker,
    errors: Errors,
    on_received: Callable[[], None],
    on_end: Callable[[str], None],
    on_tools_changed: Callable[[], None],
) -> AsyncIterator[Channel]:
    """A client that has agreed on a protocol revision with the server. Must be left by the task that entered it.

    Args:
        spec: the server.
        masker: learns the tokens that are fetched for it.
        errors: takes in what a command writes to standard error.
        on_received: called for each message that arrives.
        on_end: called when no more will arrive; why, where that is known.
        on_tools_changed: called when a server of an older revision says that its tools have changed.

    Raises:
        Exception: whatever the SDK and its transport raise; the caller translates it.
    """
    _quieten_sdk()

    async def on_message(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            on_tools_changed()

    async with _transport(spec, masker, errors) as (inner, http):
        answers = RawAnswers(inner, on_received, on_end)
        client = Client(
            answers,
            cache=None,
            message_handler=on_message,
            client_info=Implementation(name="praxis-mcp", version=version("praxis-mcp")),
        )
        async with client:
            if http is None or client.protocol_version not in MODERN_PROTOCOL_VERSIONS:
                yield Channel(client, answers, _about(spec))
                return
            posts = Posts(http, str(spec.address), on_received)
            try:
                yield Channel(client, posts, _about(spec))
            finally:
                posts.close()


def _about(spec: UpstreamSpec) -> Mapping[str, str | int]:
    if spec.words:
        return {"network.transport": "pipe"}
    found: dict[str, str | int] = {"network.transport": "tcp", "network.protocol.name": "http"}
    address = urlsplit(str(spec.address))
    if address.hostname:
        port = address.port or (443 if address.scheme == "https" else 80)
        found |= {"server.address": address.hostname, "server.port": port}
    return found


@asynccontextmanager
async def _transport(
    spec: UpstreamSpec, masker: Masker, errors: Errors
) -> AsyncIterator[tuple[Any, httpx2.AsyncClient | None]]:
    """The transport, and what sends the requests of Streamable HTTP."""
    if spec.kind == "stdio":
        with _standard_error(errors) as stream:
            yield stdio_streams(spec.words, _environment(spec), spec.directory, stream), None
        return
    async with http_client(spec, masker) as client:
        address = str(spec.address)
        if spec.kind == "sse":
            yield sse_streams(client, address), None
        else:
            yield streamable_http_client(address, http_client=client, max_sse_event_size=MAX_UPSTREAM_MESSAGE), client


def _environment(spec: UpstreamSpec) -> Mapping[str, str]:
    # Except PATH, HOME and the few others of the SDK's list, nothing of our environment gets there.
    return {**dict(spec.env), DEPTH_VARIABLE: str(child_depth())}


@contextmanager
def _standard_error(errors: Errors) -> Iterator[TextIOWrapper]:
    """A file for a child's standard error, read by a thread, because a child that is not read stops. The thread ends
    when the last process that holds the file has ended."""
    read_end, write_end = os.pipe()
    errors.begin()

    def read() -> None:
        try:
            with os.fdopen(read_end, "rb") as stream:
                while line := stream.readline(64 * 1024):
                    errors.add(line)
        finally:
            errors.end()

    threading.Thread(target=read, name=f"stderr-{threading.active_count()}", daemon=True).start()
    with os.fdopen(write_end, "w") as stream:
        yield stream


def _quieten_sdk() -> None:
    # Its tracebacks hold what servers sent. What matters of them comes back as an exception or an error anyway.
    for name in ("mcp.client", "client", "mcp.shared"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
