"""Questions to the daemon over a connection that is kept: 0.3 ms, where the SDK takes 4 ms in a thread of its own.

For what a warm call must know before it begins, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import anyio

from praxis_mcp.engines.docker.stream import Address, Refusal, answer_message
from praxis_mcp.support.http1 import ConnectionLost, HttpConnection

MAX_IMAGE_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer."""
ANSWER_TIMEOUT = 5.0
"""Seconds for one; the one that asks can do without."""


class DockerInquiry:
    """One kept connection; questions wait for each other."""

    def __init__(self, address: Address, prefix: str) -> None:
        self._address = address
        self._prefix = prefix
        self._lock = anyio.Lock()
        self._http: HttpConnection | None = None

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
            raise Refusal(status, answer_message(body))
        return json.loads(body)

    async def aclose(self) -> None:
        """Close the connection; the next question opens another."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def _get(self, path: str) -> tuple[int, bytes]:
        async with self._lock:
            with anyio.fail_after(ANSWER_TIMEOUT):
                kept = self._http is not None
                try:
                    return await self._ask(path)
                except (ConnectionLost, OSError):
                    # The daemon may close what is idle, or have been started again.
                    if not kept:
                        raise
                    return await self._ask(path)

    async def _ask(self, path: str) -> tuple[int, bytes]:
        if self._http is None:
            self._http = HttpConnection(await self._address.connect())
        http, is_kept = self._http, False
        try:
            await http.send("GET", self._prefix + path, [("Host", "docker")])
            status = (await http.head()).status_code
            body = await http.body(MAX_IMAGE_ANSWER)
            is_kept = http.restart()
            return status, body
        finally:
            if not is_kept:
                await self.aclose()
