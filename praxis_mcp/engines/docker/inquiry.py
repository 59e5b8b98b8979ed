"""Questions to the daemon over a connection that is kept: 0.3 ms, where the SDK takes 4 ms in a thread of its own.

For what a warm call must know before it begins, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import anyio
import h11

from praxis_mcp.engines.docker.stream import CHUNK, Address, ConnectionLost, Duplex, Refusal

MAX_IMAGE_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer."""
ANSWER_TIMEOUT = 5.0
"""Seconds for one; whoever asks can do without."""


class DockerInquiry:
    """One kept connection; questions wait for each other."""

    def __init__(self, address: Address, prefix: str) -> None:
        self._address = address
        self._prefix = prefix
        self._lock = anyio.Lock()
        self._connection: Duplex | None = None
        self._http = h11.Connection(h11.CLIENT)

    async def image(self, reference: str) -> Mapping[str, Any] | None:
        """What the daemon knows of an image; None where it has none of that name.

        Raises:
            ConnectionLost, OSError: the daemon is gone.
            Refusal: it will not tell.
            TimeoutError: it does not tell within `ANSWER_TIMEOUT`.
        """
        status, body = await self._get(f"/images/{quote(reference, safe='/:@')}/json")
        if status == 404:
            return None
        if status != 200:
            raise Refusal(status, body.decode(errors="replace"))
        return json.loads(body)

    async def aclose(self) -> None:
        """Close the connection; the next question opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _get(self, path: str) -> tuple[int, bytes]:
        async with self._lock:
            with anyio.fail_after(ANSWER_TIMEOUT):
                kept = self._connection is not None
                try:
                    return await self._ask(path)
                except (ConnectionLost, OSError):
                    # The daemon may close what is idle, or have been started anew.
                    if not kept:
                        raise
                    return await self._ask(path)

    async def _ask(self, path: str) -> tuple[int, bytes]:
        done = False
        try:
            if self._connection is None:
                self._connection = await self._address.connect()
                self._http = h11.Connection(h11.CLIENT)
            request = h11.Request(method="GET", target=self._prefix + path, headers=[("Host", "docker")])
            await self._connection.send(
                (self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b"")
            )
            answer = await self._answer(self._connection)
            self._http.start_next_cycle()
            done = True
            return answer
        except h11.ProtocolError as exc:
            raise ConnectionLost("the daemon's answer is broken, or its last") from exc
        finally:
            if not done:
                with anyio.CancelScope(shield=True):
                    await self.aclose()

    async def _answer(self, connection: Duplex) -> tuple[int, bytes]:
        status, body = 0, bytearray()
        while len(body) <= MAX_IMAGE_ANSWER:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                try:
                    self._http.receive_data(await connection.receive(CHUNK))
                except anyio.EndOfStream:
                    raise ConnectionLost("the daemon closed the connection") from None
                except anyio.BrokenResourceError as exc:
                    raise ConnectionLost("the connection broke") from exc
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(body)
        raise ConnectionLost("the daemon's answer is endless")
