"""A client of a test's cluster, for what tests make and look at there: JSON by HTTP, and one pod's port."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
from httpx2.websockets import AsyncWebSocketSession

TIMEOUT = 60.0
"""Seconds for one request, on a busy machine."""


class ApiError(Exception):
    """The API server refused.

    Args:
        status: the code of HTTP.
        reason: the word for it, `Forbidden`.
        message: what it says.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


class PodPort:
    """A connection to a port of a pod, over a WebSocket whose messages begin with the number of a channel."""

    def __init__(self, socket: AsyncWebSocketSession) -> None:
        self._socket = socket

    async def begin(self) -> None:
        """Take the port's number, with which each of the two channels begins."""
        for _ in ("data", "errors"):
            await self._socket.receive_bytes(timeout=TIMEOUT)

    async def send(self, data: bytes) -> None:
        await self._socket.send_bytes(b"\0" + data)

    async def receive(self) -> bytes:
        """The next bytes.

        Raises:
            ConnectionError: the API server or the node says why there are none.
        """
        message = await self._socket.receive_bytes(timeout=TIMEOUT)
        if message[:1] == b"\1":
            raise ConnectionError(message[1:].decode(errors="replace"))
        return message[1:]


class Api:
    """A client; a context manager that closes it.

    Args:
        kubeconfig: as `tests.cluster.credentials.kubeconfig` writes it.
    """

    def __init__(self, kubeconfig: Path) -> None:
        content = json.loads(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        self._options: dict[str, Any] = {
            "base_url": cluster["server"],
            "verify": ssl.create_default_context(cafile=cluster["certificate-authority"]),
            "headers": {"Authorization": f"Bearer {content['users'][0]['user']['token']}"},
            "timeout": TIMEOUT,
            "trust_env": False,
        }
        self._client = httpx2.Client(**self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """An object, or a list of them.

        Raises:
            ApiError: refused.
        """
        return self._request("GET", path, None, query)

    def post(self, path: str, body: Mapping[str, Any], **query: str) -> dict[str, Any]:
        """Make an object."""
        return self._request("POST", path, body, query)

    def patch(self, path: str, body: Mapping[str, Any], **query: str) -> dict[str, Any]:
        """Change an object by a JSON merge patch."""
        return self._request("PATCH", path, body, query)

    def delete(self, path: str, **query: str) -> dict[str, Any]:
        """Remove an object."""
        return self._request("DELETE", path, None, query)

    def text(self, path: str, **query: str) -> str:
        """What is no JSON: a pod's log."""
        return self._respond("GET", path, None, query).text

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        try:
            self.get(path)
        except ApiError as exc:
            if exc.status == 404:
                return False
            raise
        return True

    @asynccontextmanager
    async def port(self, where: str, name: str, port: int) -> AsyncIterator[PodPort]:
        """A connection to a port of a pod, through the API server.

        By an asynchronous client: what reads and what writes are threads in the other kind, whose TLS breaks by that
        in Python before 3.13.

        Args:
            where: its namespace.
        """
        path = f"/api/v1/namespaces/{where}/pods/{name}/portforward"
        url = str(self._client.base_url.join(path)).replace("https:", "wss:", 1)
        protocols = ["v4.channel.k8s.io"]
        async with (
            httpx2.AsyncClient(**self._options) as client,
            client.websocket(url, params={"ports": str(port)}, subprotocols=protocols) as socket,
        ):
            connection = PodPort(socket)
            await connection.begin()
            yield connection

    def is_ready(self) -> bool:
        """Whether the API server says that it is."""
        try:
            return self._client.get("/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    def node_is_ready(self, name: str) -> bool:
        """Whether a node is there, says that pods can run on it, and is believed by the scheduler."""
        try:
            node = self.get(f"/api/v1/nodes/{name}")
        except ApiError as exc:
            if exc.status == 404:
                return False
            raise
        conditions = {entry["type"]: entry["status"] for entry in node.get("status", {}).get("conditions", [])}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str]
    ) -> dict[str, Any]:
        return self._respond(method, path, body, query).json()

    def _respond(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str]
    ) -> httpx2.Response:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind} if content is not None else {}
        response = self._client.request(method, path, params=dict(query), content=content, headers=headers)
        if response.is_error:
            try:
                status = response.json()
                reason, message = str(status.get("reason", "")), str(status.get("message", ""))
            except ValueError:
                reason, message = "", response.text
            raise ApiError(response.status_code, reason, message)
        return response
