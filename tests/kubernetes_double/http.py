"""HTTP/1.1 as far as the double needs it: requests are read whole, answers can be anything."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11

JSON = ("Content-Type", "application/json")
"""A header."""
REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
           422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable",
           504: "Timeout"}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        verb: what RBAC calls it: ``get``, ``list``, ``watch``, ``create``, ``patch``, ``delete``.
        resource: ``pods``, ``pods/portforward``, ``configmaps``, ``leases``, ``version`` …
        name: of the object; empty for a list.
        query: its parameters.
        body: the JSON that it carries.
        headers: its headers.
        target: path and parameters.
    """

    verb: str
    resource: str
    name: str
    query: Mapping[str, str]
    body: Mapping[str, Any]
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    target: str


@dataclass(frozen=True)
class Answer:
    """What is answered instead of what should be.

    Attributes:
        status: code of HTTP; 0: the connection is closed without an answer.
        body: what is sent.
        after: seconds until it is sent.
        done: whether the request has been done before.
        ends: whether the answer ends; else its connection stays open.
        retry_after: when it wants to be asked again, in seconds.
    """

    status: int = 200
    body: bytes = b""
    after: float = 0.0
    done: bool = False
    ends: bool = True
    retry_after: str = ""

    @classmethod
    def refusal(cls, status: int, message: str, reason: str = "", **more: Any) -> Answer:
        """What an API server refuses with (meta/v1 Status)."""
        return cls(status, status_body(status, message, reason), **more)


def status_body(status: int, message: str, reason: str = "") -> bytes:
    """A Status of the API."""
    found = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
             "reason": reason or REASONS.get(status, ""), "code": status}  # fmt: skip
    return json.dumps(found).encode()


class Connection:
    """One connection of a client.

    Args:
        reader, writer: as `asyncio.start_server` gives them.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)

    async def next_request(self) -> Asked | None:
        """The next one; None: there is none any more."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self.reader.read(1 << 16))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return _asked(head, bytes(body))
            else:
                return None

    async def answer(self, status: int, body: bytes, retry_after: str = "") -> bool:
        """Send an answer; whether the connection can be used further."""
        more = [("Retry-After", retry_after)] if retry_after else []
        await self.begin(status, [("Content-Length", str(len(body))), JSON, *more])
        await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())
        return self._http.our_state is h11.DONE

    async def begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send an answer's head."""
        await self.send(h11.Response(status_code=status, reason=HTTPStatus(status).phrase, headers=headers))

    async def send(self, event: h11.Event) -> None:
        """Send a part of an answer."""
        data = self._http.send(event)
        if data:
            self.writer.write(data)
            await self.writer.drain()

    async def until_closed(self) -> None:
        """Wait until the client hangs up."""
        with suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass

    def cut(self, *, resets: bool = False) -> None:
        """Hang up at once.

        Args:
            resets: by RST; else by FIN.
        """
        if resets:
            self.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self.writer.transport.abort()


def _asked(head: h11.Request, body: bytes) -> Asked:
    target = head.target.decode()
    url = urlsplit(target)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    resource, name = _object_of(url.path)
    verb = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}[
        head.method.decode()
    ]
    if "watch" in query:
        verb = "watch"
    found = json.loads(body) if body else {}
    return Asked(verb, resource, name, query, found, tuple(head.headers), target)


def _object_of(path: str) -> tuple[str, str]:
    """Resource and name of ``/api/v1/namespaces/NAMESPACE/RESOURCE[/NAME[/PART]]``, and the like."""
    parts = path.strip("/").split("/")
    if "namespaces" not in parts:
        return parts[-1], ""
    resource, *rest = parts[parts.index("namespaces") + 2 :]
    name = rest[0] if rest else ""
    return ("/".join([resource, *rest[1:]]), name)
