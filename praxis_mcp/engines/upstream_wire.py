"""Answers of other servers taken as they are, whatever the SDK's models think of them.

The SDK checks every answer against the schema of the protocol revision, so that one wrong tool costs a whole
``tools/list``, and a tool's result with a block of an unknown type is an exception. Here the answers that are passed on
are taken out of the stream before it sees them; it gets a stand-in that any revision accepts.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

import anyio
from mcp.client._transport import Transport, TransportStreams
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, RequestId

_KEY = "io.github.praxis-mcp/answer"
_CACHE = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
_STAND_INS: dict[str, dict[str, Any]] = {
    "tools/call": {"resultType": "complete", "content": []},
    "tools/list": {**_CACHE, "tools": []},
    "resources/read": {**_CACHE, "contents": []},
}


class _Answer(str):
    """Text to the SDK, which hands it on untouched; carries what the server really said."""

    __slots__ = ("result",)
    result: dict[str, Any]


def answer_in(meta: Any) -> dict[str, Any]:
    """What the server really said, from the `_meta` of the stand-in."""
    answer = (meta or {}).get(_KEY)
    return answer.result if isinstance(answer, _Answer) else {}


class RawAnswers(AbstractAsyncContextManager[TransportStreams]):
    """A transport around another one.

    Args:
        inner: the transport.
        on_heard: is called for each message that arrives.
        on_end: is called when no more messages will arrive.
    """

    def __init__(self, inner: Transport, on_heard: Callable[[], None], on_end: Callable[[], None]) -> None:
        self._inner = inner
        self._on_heard = on_heard
        self._on_end = on_end
        self._methods: dict[RequestId, str] = {}

    async def __aenter__(self) -> TransportStreams:
        incoming, outgoing = await self._inner.__aenter__()
        return _Incoming(self, incoming), _Outgoing(self, outgoing)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(exc_type, exc_val, exc_tb)

    def sent(self, message: SessionMessage) -> None:
        """Note what is asked, so that its answer is known for what it is."""
        sent = message.message
        if isinstance(sent, JSONRPCRequest) and sent.method in _STAND_INS:
            self._methods[sent.id] = sent.method
        elif isinstance(sent, JSONRPCNotification) and sent.method == "notifications/cancelled":
            self._methods.pop((sent.params or {}).get("requestId", ""), None)

    def received(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        """The message for the SDK."""
        self._on_heard()
        message = item.message if isinstance(item, SessionMessage) else None
        if isinstance(message, JSONRPCError) and message.id is not None:
            self._methods.pop(message.id, None)
        if not isinstance(message, JSONRPCResponse) or not isinstance(item, SessionMessage):
            return item
        method = self._methods.pop(message.id, None)
        if method is None:
            return item
        answer = _Answer()
        answer.result = message.result
        stand_in = {**_STAND_INS[method], "_meta": {_KEY: answer}}
        if method == "tools/list":
            stand_in |= _page(message.result)
        return SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=message.id, result=stand_in), metadata=item.metadata)

    def ended(self) -> None:
        """The stream has ended."""
        self._on_end()


def _page(result: dict[str, Any]) -> dict[str, Any]:
    """What the SDK needs of a page of tools: the cursor, and the schemas that name arguments which travel as headers
    too (specification 2026-07-28, transports, "Mcp-Param")."""
    tools = result.get("tools")
    kept = [
        {"name": tool["name"], "inputSchema": {"type": "object", "properties": properties}}
        for tool in (tools if isinstance(tools, list) else [])
        if isinstance(tool, dict)
        and isinstance(tool.get("name"), str)
        and isinstance(tool.get("inputSchema"), dict)
        and isinstance(properties := tool["inputSchema"].get("properties", {}), dict)
        and all(isinstance(part, dict | bool) for part in properties.values())
    ]
    cursor = result.get("nextCursor")
    return {"tools": kept} | ({"nextCursor": cursor} if isinstance(cursor, str) else {})


class _Incoming:
    def __init__(self, owner: RawAnswers, inner: ReadStream[SessionMessage | Exception]) -> None:
        self._owner = owner
        self._inner = inner

    @property
    def last_context(self) -> contextvars.Context | None:
        """The SDK asks for it, to run handlers in the context of the sender."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        try:
            return self._owner.received(await self._inner.receive())
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._owner.ended()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(exc_type, exc_val, exc_tb)


class _Outgoing:
    def __init__(self, owner: RawAnswers, inner: WriteStream[SessionMessage]) -> None:
        self._owner = owner
        self._inner = inner

    async def send(self, item: SessionMessage, /) -> None:
        self._owner.sent(item)
        await self._inner.send(item)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(exc_type, exc_val, exc_tb)
