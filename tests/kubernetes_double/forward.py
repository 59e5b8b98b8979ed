"""The port of a pod over a websocket, as API server and kubelet forward it, to be cut at any byte."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request
from wsproto.utilities import LocalProtocolError

from tests.kubernetes_double.http import Asked, Connection
from tests.kubernetes_double.pods import DoublePod

PROTOCOL = "v4.channel.k8s.io"
PORT = (7031).to_bytes(2, "little")
PIECE = 32 * 1024


@dataclass(frozen=True)
class Cut:
    """When a websocket is cut.

    Attributes:
        down: bytes that reach the client, from the answer to its request on; None: all.
        up: bytes that are taken of the client's, behind its request; None: all.
        resets: by RST; else by FIN.
        freeze: once it is set, nothing more moves, and the connection stays open.
    """

    down: int | None = None
    up: int | None = None
    resets: bool = False
    freeze: asyncio.Event | None = None


@dataclass
class Traffic:
    """Bytes that one websocket has carried.

    Attributes:
        pod: whose port it reaches.
        down: bytes sent to the client, from the answer to its request on.
        up: bytes taken of the client's, behind its request.
        hello: `down` when the first message of praxis-init's was sent, which is its hello; 0: none was.
        is_cut: whether it was cut.
    """

    pod: str
    down: int = 0
    up: int = 0
    hello: int = 0
    is_cut: bool = False


class _Severed(Exception):
    pass


class Forwarding:
    """One websocket to a port of a pod.

    Args:
        connection: the client's, whose request has been read.
        pod: the pod.
        cut: when it is cut.
    """

    def __init__(self, connection: Connection, pod: DoublePod, cut: Cut | None) -> None:
        self._connection = connection
        self._pod = pod
        self._cut = cut or Cut()
        self._socket = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        self._begins = True
        self.traffic = Traffic(pod.name)

    async def run(self, asked: Asked) -> None:
        """Carry bytes until one of both ends has hung up, or it is cut."""
        try:
            self._socket.initiate_upgrade_connection(list(asked.headers), asked.target)
            assert isinstance(next(self._socket.events()), Request)
            await self._say(AcceptConnection(subprotocol=PROTOCOL))
            for stream in (b"\0", b"\1"):
                await self._say(BytesMessage(stream + PORT))
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._pod.port)
            except OSError:
                why = b"error forwarding port 7031 to pod: dial tcp4 127.0.0.1:7031: connect: connection refused"
                await self._say(BytesMessage(b"\1" + why))
                await self._say(CloseConnection(1000))
                return
            try:
                await self._carry(reader, writer)
            finally:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
        except _Severed:
            self.traffic.is_cut = True
            self._connection.cut(resets=self._cut.resets)
        except ConnectionError:
            pass  # the client has hung up

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ways = [asyncio.create_task(self._down(reader)), asyncio.create_task(self._up(writer))]
        if self._cut.freeze is not None:
            ways.append(asyncio.create_task(self._freeze(self._cut.freeze, ways[:])))
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if self._cut.freeze is not None and self._cut.freeze.is_set():
                await ways[-1]
            for way in ways:
                if way.done() and not way.cancelled():
                    way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _freeze(self, begin: asyncio.Event, ways: list[asyncio.Task[None]]) -> None:
        await begin.wait()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await self._connection.until_closed()

    async def _down(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionResetError):
            while data := await reader.read(PIECE):
                await self._say(BytesMessage(b"\0" + data))
                self.traffic.hello = self.traffic.hello or self.traffic.down
        await self._say(CloseConnection(1000))

    async def _up(self, writer: asyncio.StreamWriter) -> None:
        while True:
            if self._cut.up is not None and self.traffic.up >= self._cut.up:
                raise _Severed
            most = PIECE if self._cut.up is None else self._cut.up - self.traffic.up
            data = await self._connection.reader.read(min(most, PIECE))
            if not data:
                return
            self.traffic.up += len(data)
            self._socket.receive_data(data)
            for event in self._socket.events():
                match event:
                    case BytesMessage(data=piece):
                        # A message may come in several of these; its first byte is the stream.
                        writer.write(bytes(piece[1:] if self._begins else piece))
                        self._begins = event.message_finished
                        with suppress(ConnectionError):
                            await writer.drain()
                    case Ping():
                        await self._say(event.response())
                    case CloseConnection():
                        with suppress(LocalProtocolError):
                            await self._say(event.response())
                        return
                    case _:
                        raise AssertionError(f"the client sent {event}")

    async def _say(self, event: wsproto.events.Event) -> None:
        data = self._socket.send(event)
        most = self._cut.down
        if most is not None and self.traffic.down + len(data) > most:
            data, is_last = data[: most - self.traffic.down], True
        else:
            is_last = False
        self.traffic.down += len(data)
        self._connection.writer.write(data)
        await self._connection.writer.drain()
        if is_last:
            raise _Severed
