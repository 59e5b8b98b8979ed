"""The bytes between this server and the praxis-init that listens in a pod: over a websocket that forwards a port.

A websocket of httpx2 lives in the task that has opened it, and a pod that waits is made by one task and called by
another. So each channel has a task of its own, which reads at all times: it notices that the other end is gone while
nothing is expected of it.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import anyio

from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import BackgroundTasks, leaves

if TYPE_CHECKING:
    from httpx2.websockets import AsyncWebSocketSession

MAX_CHANNEL_BUFFER = 1024 * 1024
"""Bytes that are held for a call that does not take them; beyond, the websocket is not read any more."""
CHANNEL_CLOSE_TIMEOUT = 5.0
"""Seconds for the websocket to be closed politely; then its connection is cut."""
CHANNEL_PIECE = 64 * 1024
"""Bytes in one message of ours."""
_DATA, _ERROR = 0, 1
_PORT_NUMBER = 2


class ForwardedChannel:
    """A port of a pod as a channel to its praxis-init (see `engines.init.waiter.Channel`).

    Both streams of a forwarded port come in messages: one byte for the stream, then its bytes. The first message of
    each holds the port's number.
    """

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[AsyncWebSocketSession]]) -> None:
        self._connect = connect
        self._session: AsyncWebSocketSession | None = None
        self._opened = anyio.Event()
        self._ended = anyio.Event()
        self._life = anyio.CancelScope()
        self._failure: Exception | None = None
        self._greeted: set[int] = set()
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._arrived = anyio.Event()
        self._taken = anyio.Event()

    async def open(self, background: BackgroundTasks) -> None:
        """Open it; the caller bounds the time.

        Args:
            background: keeps the channel's task.

        Raises:
            Refusal: the API server will not forward the port.
            ClusterLost: the connection broke.
        """
        background.start(self._run, "a channel to a pod")
        try:
            await self._opened.wait()
        except BaseException:
            await self.aclose()
            raise
        if self._session is None and self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        try:
            with self._life:
                async with self._connect() as session:
                    self._session = session
                    self._opened.set()
                    while True:
                        await self._take(await session.receive_bytes())
        except Exception as exc:  # noqa: BLE001 - each end of a websocket is an exception, alone or in a group
            self._failure = _end_of(exc)
            logger.debug("a channel to a pod ended: {}", self._failure)
        finally:
            self._session = None
            self._ended.set()
            self._opened.set()
            self._arrived.set()

    async def _take(self, message: bytes) -> None:
        if not message:
            return
        stream, data = message[0], message[1:]
        if stream not in self._greeted:
            self._greeted.add(stream)
            data = data[_PORT_NUMBER:]
        if not data:
            return
        if stream == _ERROR:
            raise ClusterLost("", data.decode(errors="replace").strip())
        if stream != _DATA:
            raise ClusterLost("", f"the kubelet sent something on stream {stream}, of which there are two")
        self._pieces.append(data)
        self._held += len(data)
        self._arrived.set()
        while self._held > MAX_CHANNEL_BUFFER:
            self._taken = anyio.Event()
            await self._taken.wait()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """See `Channel`."""
        while not self._pieces:
            if self._ended.is_set():
                raise anyio.EndOfStream
            self._arrived = anyio.Event()
            await self._arrived.wait()
        piece = self._pieces.popleft()
        if len(piece) > max_bytes:
            self._pieces.appendleft(piece[max_bytes:])
            piece = piece[:max_bytes]
        self._held -= len(piece)
        self._taken.set()
        return piece

    def is_silent(self) -> bool:
        """See `Channel`."""
        return self._session is not None and not self._pieces

    async def send(self, item: bytes) -> None:
        """See `Channel`."""
        for start in range(0, len(item), CHANNEL_PIECE):
            session = self._session
            if session is None:
                raise anyio.BrokenResourceError
            try:
                await session.send_bytes(bytes([_DATA]) + item[start : start + CHANNEL_PIECE])
            except Exception as exc:  # of the websocket, its protocol or its connection, which have no common base
                raise anyio.BrokenResourceError from exc

    async def aclose(self) -> None:
        """Hang up: what waits or runs in the pod ends."""
        self._life.cancel()
        with anyio.CancelScope(shield=True):
            # A reader that waits for room would not see the end.
            self._taken.set()
            with anyio.move_on_after(CHANNEL_CLOSE_TIMEOUT):
                await self._ended.wait()
                return
            logger.debug("a channel to a pod was not closed within {} s; its connection is cut", CHANNEL_CLOSE_TIMEOUT)
            session = self._session
            if session is not None:
                with anyio.move_on_after(CHANNEL_CLOSE_TIMEOUT):
                    await session.stream.aclose()


def _end_of(error: Exception) -> Exception:
    """What ended a websocket, as one of ours."""
    import httpx2
    from httpx2.websockets import WebSocketUpgradeError

    for leaf in leaves(error):
        if isinstance(leaf, WebSocketUpgradeError):
            status, phrase = leaf.response.status_code, leaf.response.reason_phrase
            return Refusal(status, phrase, f"the port of the pod is not forwarded ({status} {phrase})")
        if isinstance(leaf, ClusterLost):
            return leaf
        if isinstance(leaf, (httpx2.HTTPError, OSError, ssl.SSLError)):
            return ClusterLost("", str(leaf).strip() or type(leaf).__name__)
    return ClusterLost("", "the channel ended")
