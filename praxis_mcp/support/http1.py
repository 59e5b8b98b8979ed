"""HTTP/1.1 over one connection, as a client: a request, its answer, and the bytes that follow an upgrade.

For the exchanges that a call waits for. A general client passes each request through a pool and sends its head and its
body one after the other; this sends both at once, and nothing stands between it and the socket.

How long an answer takes depends on what was asked, so each wait is the caller's to bound (`anyio.fail_after`). What is
held is bounded here. A wait that is cancelled loses nothing of the answer, and a connection takes another request only
when the exchange on it was completed.
"""

from __future__ import annotations

from typing import Any

import anyio
import h11
from anyio.abc import ByteStream

MAX_HEAD = 100 * 1024
"""Bytes of a head, or of what stands between the pieces of a body, that are held while the rest is missing."""
MAX_INTERIM_ANSWERS = 100
"""Answers with a status below 200 that may come before the final one."""
_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
_END = h11.EndOfMessage()


class ConnectionLost(Exception):
    """A connection is of no more use: it broke, or was closed before what was due had come."""


class MalformedAnswer(ConnectionLost):
    """What came over a connection is not an answer of HTTP/1.1, or is larger than it may be."""


class InvalidRequest(ValueError):
    """A request cannot be written as HTTP/1.1, a header with a line break for example; nothing was sent."""


class HttpConnection:
    """Requests over a connection, one after the other. All that waits raises `ConnectionLost` or `MalformedAnswer`.

    Attributes:
        stream: the connection, for the caller's own use after an upgrade.
    """

    def __init__(self, stream: ByteStream, *, receive_size: int = 64 * 1024) -> None:
        """Args: receive_size: bytes to receive at once, at most."""
        self.stream = stream
        self._receive_size = receive_size
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._body = bytearray()

    async def send(
        self,
        method: str,
        target: bytes | str,
        headers: list[tuple[bytes, bytes]] | list[tuple[str, str]],
        body: bytes = b"",
    ) -> None:
        """Send a request with exactly these headers; a body needs its Content-Length among them.

        Raises:
            InvalidRequest: no connection can send it.
        """
        state = self._state
        try:
            data = state.send(h11.Request(method=method, target=target, headers=headers))
            if body:
                data += state.send(h11.Data(data=body))
            data += state.send(_END)
        except h11.LocalProtocolError as exc:
            raise InvalidRequest(str(exc)) from exc
        try:
            await self.stream.send(data)
        except BaseException as exc:
            state.send_failed()  # part of it may be on its way
            if isinstance(exc, _BROKEN):
                raise _lost(exc) from exc
            raise

    async def head(self) -> h11.Response | h11.InformationalResponse:
        """The head of the answer: the final one, or 101 (Switching Protocols)."""
        for _ in range(MAX_INTERIM_ANSWERS + 1):
            head = await self._event()
            if isinstance(head, h11.Response) or head.status_code == 101:
                return head
        raise MalformedAnswer(f"more than {MAX_INTERIM_ANSWERS} interim answers came before the final one")

    async def piece(self) -> bytes:
        """The next piece of the answer's body; empty at its end."""
        if self._state.their_state is not h11.SEND_BODY:
            return b""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def body(self, limit: int) -> bytes:
        """The whole body of the answer, of `limit` bytes at most."""
        body = self._body
        while self._state.their_state is h11.SEND_BODY and isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > limit:
                raise MalformedAnswer(f"the answer has more than {limit} bytes")
        return bytes(body)

    def trailing(self) -> bytes:
        """What was received after the head of an answer that upgrades the connection."""
        return self._state.trailing_data[0]

    def restart(self) -> bool:
        """Be ready for another request; False where the connection takes none: the exchange is not complete, one side
        closes after it, or more than its answer was received."""
        state = self._state
        if state.our_state is not h11.DONE or state.their_state is not h11.DONE or any(state.trailing_data):
            return False
        state.start_next_cycle()
        self._body.clear()
        return True

    async def aclose(self) -> None:
        """Close the connection at once."""
        # Nothing that is still to be sent is of use, and a peer that hangs must not hold this up.
        with anyio.CancelScope(shield=True) as scope:
            scope.cancel()
            await self.stream.aclose()

    async def _event(self) -> Any:
        state = self._state
        while True:
            try:
                event = state.next_event()
            except h11.RemoteProtocolError as exc:
                if state.trailing_data[1]:
                    raise ConnectionLost("the connection was closed before the end of the answer") from exc
                raise MalformedAnswer(str(exc)) from exc
            if event is not h11.NEED_DATA:
                return event
            try:
                state.receive_data(await self.stream.receive(self._receive_size))
            except anyio.EndOfStream:
                state.receive_data(b"")
            except _BROKEN as exc:
                raise _lost(exc) from exc


def _lost(exc: BaseException) -> ConnectionLost:
    return ConnectionLost(str(exc.__cause__ or exc) or "the connection broke")
