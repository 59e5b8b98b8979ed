"""Messages from a client on a pipe, a socket or a file, one JSON text a line; anything else is answered."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import ObjectReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import INVALID_REQUEST, PARSE_ERROR, JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

from praxis_mcp.serving.stdio_writing import SERVER_ENDED, Outgoing, refusal
from praxis_mcp.serving.wire import Wire, tells_readiness
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import settle

MAX_STDIO_MESSAGE = 64 * 1024 * 1024
"""Bytes of one message; a longer one is refused, and skipped to its end."""
_READ_SIZE = 256 * 1024
_DECODED_AT_ONCE = 256 * 1024
"""Bytes of a message that is decoded on the event loop, at most: milliseconds. A longer one may take seconds."""
_IN_A_ROW = 32
"""Messages of one read after which others get their turn: there may be thousands."""

ReadStream = ObjectReceiveStream[SessionMessage | Exception]


class Incoming(ObjectReceiveStream[SessionMessage | Exception]):
    """Messages from the client, read when they are asked for. Any other line is refused.

    Args:
        wire: where they come from.
        outgoing: where refusals go.
    """

    def __init__(self, wire: Wire, outgoing: Outgoing) -> None:
        self._descriptor = wire.stdin
        self._outgoing = outgoing
        self._lines = _Lines()
        self._found = self._lines.take(wire.read) if wire.read else iter(())
        self._in_a_row = 0
        self._is_closed = self._is_over = False
        self._ready: asyncio.Future[None] | None = None
        self._pieces: MemoryObjectReceiveStream[bytes] | None = None

    async def receive(self) -> SessionMessage | Exception:
        """The next message; at the end of standard input, or of this, `anyio.EndOfStream`."""
        while not self._is_closed:
            for line in self._found:
                self._in_a_row += 1
                if self._in_a_row % _IN_A_ROW == 0:
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                message = await _decode_somewhere(line)
                if isinstance(message, JSONRPCError):
                    await self._refuse(message)
                elif message is not None:
                    return message
            if self._is_over:
                break
            data = await self._next()
            self._in_a_row = 0
            self._is_over = not data
            self._found = self._lines.take(data)
        raise anyio.EndOfStream

    def close(self) -> None:
        """Who waits for a message finds the end."""
        self._is_closed = True
        if self._ready is not None:
            settle(self._ready)
        if self._pieces is not None:
            self._pieces.close()

    async def aclose(self) -> None:
        """See `close`."""
        self.close()

    async def _refuse(self, answer: JSONRPCError) -> None:
        try:
            await self._outgoing.send(SessionMessage(answer))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise anyio.EndOfStream from None  # nobody reads any more what is answered

    async def _next(self) -> bytes:
        """The next bytes; none at the end."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        if not tells_readiness(self._descriptor):
            return await self._next_of_thread()
        loop = asyncio.get_running_loop()
        while not self._is_closed:
            ready = self._ready = loop.create_future()
            loop.add_reader(self._descriptor, settle, ready)
            try:
                await ready
            finally:
                loop.remove_reader(self._descriptor)
            try:
                return b"" if self._is_closed else _read_some(self._descriptor)
            except BlockingIOError:  # the client has made its end of the same socket non-blocking, and ours with it
                continue
        return b""

    async def _next_of_thread(self) -> bytes:
        if self._is_closed:
            return b""
        if self._pieces is None:
            send, self._pieces = anyio.create_memory_object_stream[bytes](0)
            arguments = (send, anyio.lowlevel.current_token())
            threading.Thread(target=self._read, args=arguments, name="mcp-stdin", daemon=True).start()
        try:
            return await self._pieces.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            return b""

    def _read(self, pieces: MemoryObjectSendStream[bytes], token: anyio.lowlevel.EventLoopToken) -> None:
        try:
            while data := _read_some(self._descriptor):
                anyio.from_thread.run(pieces.send, data, token=token)
            anyio.from_thread.run_sync(pieces.close, token=token)
        except SERVER_ENDED:
            logger.debug("the server ended before its standard input")


async def _decode_somewhere(line: bytes | None) -> SessionMessage | JSONRPCError | None:
    if line is not None and len(line) > _DECODED_AT_ONCE:
        return await anyio.to_thread.run_sync(_decode, line)
    return _decode(line)


def _read_some(descriptor: int) -> bytes:
    """The next bytes; none where it ended or broke."""
    try:
        return os.read(descriptor, _READ_SIZE)
    except BlockingIOError:
        raise
    except OSError as exc:
        logger.debug("standard input broke: {}", exc.strerror)
        return b""


class _Lines:
    """Cuts what is read into lines."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> Iterator[bytes | None]:
        """The lines that the next bytes complete, without their end; None for one that was too long. No bytes are the
        end."""
        if not data and self._size:
            yield self._line()
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._add(data[start:end])
            yield self._line()
            start = end + 1
        self._add(data[start:])

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_STDIO_MESSAGE:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    def _line(self) -> bytes | None:
        line = b"".join(self._pieces) if self._size <= MAX_STDIO_MESSAGE else None
        self._pieces.clear()
        self._size = 0
        return line


def _decode(line: bytes | None) -> SessionMessage | JSONRPCError | None:
    """A message, the answer to something else, or nothing for a blank line."""
    if line is None:
        return refusal(None, INVALID_REQUEST, f"A message has at most {MAX_STDIO_MESSAGE} bytes.")
    if not line.strip():
        return None
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValidationError:
        pass
    try:
        # Python refuses a number of more than 4,300 digits; the client is answered under its id all the same.
        value = json.loads(line, parse_int=lambda digits: int(digits) if len(digits) < 100 else digits)
    except (ValueError, RecursionError):
        return refusal(None, PARSE_ERROR, "Parse error: a line is one JSON-RPC message in UTF-8.")
    if isinstance(value, list):
        return refusal(None, INVALID_REQUEST, "Batches are not supported: send one message a line.")
    identity = value.get("id") if isinstance(value, dict) else None
    if isinstance(identity, bool) or not isinstance(identity, int | str) or not _is_text(identity):
        identity = None
    return refusal(identity, INVALID_REQUEST, "Invalid request: this is not a JSON-RPC 2.0 message in valid Unicode.")


def _is_text(value: int | str) -> bool:
    try:
        str(value).encode()
    except (UnicodeEncodeError, ValueError):
        return False
    return True
