"""A client of a test's cluster, for what tests make and look at there: JSON by HTTP, and one pod's port."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

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


class Api:
    """A client; a context manager that closes it.

    Args:
        kubeconfig: as `tests.cluster.credentials.kubeconfig` writes it.
    """

    def __init__(self, kubeconfig: Path) -> None:
        content = json.loads(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        self._client = httpx2.Client(
            base_url=cluster["server"],
            verify=ssl.create_default_context(cafile=cluster["certificate-authority"]),
            headers={"Authorization": f"Bearer {content['users'][0]['user']['token']}"},
            timeout=TIMEOUT,
            trust_env=False,
        )

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
