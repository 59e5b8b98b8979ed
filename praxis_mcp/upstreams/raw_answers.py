"""Requests whose answers are taken as they are, whatever the SDK's models think of them, next to the SDK's own traffic.

The SDK checks every answer against the schema of the protocol revision, so that one wrong tool costs a whole
``tools/list``, and a tool's result with a block of an unknown type is an exception. So calls are asked here, under ids
that the SDK does not use, and it sees neither question nor answer; that also spares them its way through four streams
and three tasks. Lists it asks for itself, because it learns from them which arguments travel as headers too: it gets a
stand-in that any revision accepts.
"""

from __future__ import annotations

import contextvars
import itertools
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import find_invalid_x_mcp_header
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import (
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from pydantic import ValidationError

from praxis_mcp.support.logs import logger
from praxis_mcp.support.mcp_sdk import ReadStream, Transport, TransportStreams, WriteStream
from praxis_mcp.upstreams.messages import Failure, failed, id_as_sent, received_anyway
from praxis_mcp.upstreams.spec import ProgressListener

MAX_UPSTREAM_MESSAGE = 64 * 1024 * 1024
"""Bytes of one message of another server; one that sends more is cut off."""
CANCEL_TIMEOUT = 1.0
"""Seconds that telling a server of a cancelled request may take."""
FIRST_ID = 2**30
"""Ids of requests that are asked here; the SDK counts from zero."""

Inner = TypeVar("Inner", ReadStream[SessionMessage | Exception], WriteStream[SessionMessage])

_KEY = "io.github.praxis-mcp/answer"
_EMPTY_PAGE: Mapping[str, Any] = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": []}


class _Answer(str):
    """Text to the SDK, which hands it on untouched; carries what the server really sent."""

    __slots__ = ("result",)
    result: dict[str, Any]


def answer_in(meta: Any) -> dict[str, Any]:
    """What the server really said, from the `_meta` of the stand-in."""
    answer = (meta or {}).get(_KEY)
    return answer.result if isinstance(answer, _Answer) else {}


@dataclass(slots=True)
class _Pending:
    on_progress: ProgressListener | None
    done: anyio.Event = field(default_factory=anyio.Event)
    outcome: dict[str, Any] | ErrorData | None = None

    def resolve(self, outcome: dict[str, Any] | ErrorData) -> None:
        self.outcome = outcome
        self.done.set()


class RawAnswers(AbstractAsyncContextManager[TransportStreams]):
    """A transport around another one.

    Args:
        inner: the transport.
        on_received: is called for each message that arrives.
        on_end: is called when no more messages will arrive; why, where that is known.
    """

    def __init__(self, inner: Transport, on_received: Callable[[], None], on_end: Callable[[str], None]) -> None:
        self._inner = inner
        self._on_received = on_received
        self._on_end = on_end
        self._ids = itertools.count(FIRST_ID)
        self._lists: set[RequestId] = set()
        self._pending: dict[RequestId, _Pending] = {}
        self._outgoing: WriteStream[SessionMessage] | None = None

    async def __aenter__(self) -> TransportStreams:
        incoming, self._outgoing = await self._inner.__aenter__()
        return _Incoming(self, incoming), _Outgoing(self, self._outgoing)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        self._abandon()
        return await self._inner.__aexit__(exc_type, exc_val, exc_tb)

    async def ask(
        self, method: str, params: dict[str, Any], headers: dict[str, str], on_progress: ProgressListener | None
    ) -> dict[str, Any]:
        """The result of a request, as its JSON says. Cancelling cancels it at the server.

        Args:
            method: what is asked.
            params: goes out as it is, with a token for progress where there is a listener.
            headers: of the HTTP request, where there is one.
            on_progress: receives progress.

        Raises:
            MCPError: the answer is an error, or there will be none.
        """
        identity = next(self._ids)
        if on_progress is not None:
            params["_meta"]["progressToken"] = identity
        pending = self._pending[identity] = _Pending(on_progress)
        request = JSONRPCRequest(jsonrpc="2.0", id=identity, method=method, params=params)
        try:
            await self._send(SessionMessage(request, metadata=ClientMessageMetadata(headers=headers)))
            await pending.done.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(CANCEL_TIMEOUT, shield=True), suppress(MCPError):
                about = {"requestId": identity, "reason": "nobody waits for it any more"}
                notification = JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params=about)
                await self._send(SessionMessage(notification))
            raise
        finally:
            self._pending.pop(identity, None)
        if isinstance(pending.outcome, ErrorData):
            raise MCPError.from_error_data(pending.outcome)
        return pending.outcome or {}

    def sent(self, message: SessionMessage) -> None:
        """Note which lists the SDK asks for, so that their answers are known for what they are."""
        sent = message.message
        if isinstance(sent, JSONRPCRequest) and sent.method == "tools/list":
            self._lists.add(sent.id)
        elif isinstance(sent, JSONRPCNotification) and sent.method == "notifications/cancelled":
            self._lists.discard((sent.params or {}).get("requestId", ""))

    def received(self, item: SessionMessage | Exception) -> SessionMessage | Exception | None:
        """The message for the SDK; None where it does not concern it."""
        self._on_received()
        try:
            return self._sorted(item)
        except Exception as exc:  # noqa: BLE001 - one odd message must not end the connection, and with it every call
            logger.warning("a message of another server is passed over: {} while it was read", type(exc).__name__)
            return None

    def _sorted(self, item: SessionMessage | Exception) -> SessionMessage | Exception | None:
        if isinstance(item, ValidationError):
            item = received_anyway(item)
        message = item.message if isinstance(item, SessionMessage) else None
        if isinstance(message, JSONRPCNotification):
            return None if self._is_progress(message) else item
        if not isinstance(message, JSONRPCResponse | JSONRPCError) or message.id is None:
            return item
        pending = self._pending.get(id_as_sent(message.id))
        if pending is not None:
            pending.resolve(message.error if isinstance(message, JSONRPCError) else message.result)
            return None
        identity = id_as_sent(message.id)
        if identity not in self._lists:
            return item
        self._lists.discard(identity)
        if isinstance(message, JSONRPCError) or not isinstance(item, SessionMessage):
            return item
        answer = _Answer()
        answer.result = message.result
        stand_in = {**_EMPTY_PAGE, "_meta": {_KEY: answer}, **_page(message.result)}
        return SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=identity, result=stand_in), metadata=item.metadata)

    def ended(self, reason: str) -> None:
        """The stream has ended."""
        self._on_end(reason)
        self._abandon()

    def _is_progress(self, message: JSONRPCNotification) -> bool:
        if message.method != "notifications/progress" or message.params is None:
            return False
        about = message.params
        token = about.get("progressToken")
        pending = self._pending.get(id_as_sent(token)) if isinstance(token, int | str) else None
        if pending is None:
            return False
        if pending.on_progress is not None:
            report_progress(pending.on_progress, about)
        return True

    async def _send(self, message: SessionMessage) -> None:
        assert self._outgoing is not None
        try:
            await self._outgoing.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as exc:
            raise MCPError.from_error_data(_closed()) from exc

    def _abandon(self) -> None:
        for pending in self._pending.values():
            if not pending.done.is_set():
                pending.resolve(_closed())


def _closed() -> ErrorData:
    return failed(Failure.LOST, "Connection closed")


def report_progress(listener: ProgressListener, params: Mapping[str, Any]) -> None:
    """Call a listener with the params of a ``notifications/progress``, where they hold anything."""
    progress, message = _float(params.get("progress")), params.get("message")
    if progress is not None:
        listener(progress, _float(params.get("total")), message if isinstance(message, str) else None)


def _float(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None  # JSON's integers have no end


def _page(result: dict[str, Any]) -> dict[str, Any]:
    """What the SDK needs of a page of tools: the cursor, and the schemas that name arguments which travel as headers
    too (specification 2026-07-28, transports, "Mcp-Param")."""
    tools = result.get("tools")
    kept = [
        stand_in for tool in (tools if isinstance(tools, list) else []) if (stand_in := _stand_in(tool)) is not None
    ]
    cursor = result.get("nextCursor")
    return {"tools": kept} | ({"nextCursor": cursor} if isinstance(cursor, str) else {})


def _stand_in(tool: Any) -> dict[str, Any] | None:
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        return None
    schema = tool.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    parts = properties.items() if isinstance(properties, dict) else ()
    known = {name: part for name, part in parts if isinstance(part, dict | bool)}
    return {"name": tool["name"], "inputSchema": {"type": "object", "properties": known}}


def why_left_out(tool: Any, usable: Collection[str]) -> str | None:
    """Why a tool of a list cannot be used by any client; None where it can.

    Args:
        tool: as it is listed.
        usable: names of the tools that the SDK has accepted of that page.
    """
    stand_in = _stand_in(tool)
    if stand_in is None:
        return "its name is missing, or not text" if isinstance(tool, dict) else "it is not an object"
    if stand_in["name"] in usable:
        return None
    reason = find_invalid_x_mcp_header(stand_in["inputSchema"])
    return f"its input schema names a header that is not valid: {reason}" if reason else "the MCP SDK refuses it"


class _Around(Generic[Inner]):
    """A stream of a transport, whose messages are seen as they pass."""

    def __init__(self, owner: RawAnswers, inner: Inner) -> None:
        self._owner = owner
        self._inner = inner

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(exc_type, exc_val, exc_tb)


class _Incoming(_Around[ReadStream[SessionMessage | Exception]]):
    @property
    def last_context(self) -> contextvars.Context | None:
        """The SDK asks for it, to run handlers in the context of the sender."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        while True:
            try:
                item = await self._inner.receive()
            except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError) as exc:
                self._owner.ended(str(exc))
                raise anyio.EndOfStream from exc
            passed = self._owner.received(item)
            if passed is not None:
                return passed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None


class _Outgoing(_Around[WriteStream[SessionMessage]]):
    async def send(self, item: SessionMessage, /) -> None:
        self._owner.sent(item)
        try:
            await self._inner.send(item)
        except anyio.BrokenResourceError as exc:
            if reason := str(exc):
                self._owner.ended(reason)
            raise
