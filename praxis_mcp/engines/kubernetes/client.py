"""The API server of a cluster: where it is and who we are (lightkube reads that), requests, watches and websockets.

The only module that knows lightkube. Of it, configuration and authentication are used: objects travel as the plain JSON
that the API documents, which needs no model of each and is what messages and tests show.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.to_thread

from praxis_mcp.engines.kubernetes.answers import ClusterLost, Refusal, WatchExpired
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.settings.kubernetes import KubernetesSettings
from praxis_mcp.support.installation import install_command_for_extra

if TYPE_CHECKING:
    import httpx2
    from httpx2.websockets import AsyncWebSocketSession

API_CONNECT_TIMEOUT = 10.0
"""Seconds to connect to the API server."""
API_ANSWER_TIMEOUT = 30.0
"""Seconds that the API server may take to answer a request, whole."""
MAX_API_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer, and of one event of a watch; an object of the API has 1.5 MiB at most."""
MOST_API_TRIES, MOST_RETRY_PAUSE = 4, 2.0
"""How often a request is sent that the API server asks for again (``Retry-After``), and seconds before each."""
MOST_CONNECTIONS = 512
"""Connections at once: each pod that waits or runs holds one."""
PING_EVERY, PING_TIMEOUT = 20.0, 30.0
"""Seconds between pings on a channel, which balancers would close for silence, and for the answer to one."""
MAX_CHANNEL_MESSAGE = 1024 * 1024
"""Bytes of one message of a channel; the kubelet sends 32 KiB."""
CHANNEL_PROTOCOL = "v4.channel.k8s.io"
"""The subprotocol of port forwarding over a websocket (k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go)."""
_MERGE_PATCH = "application/merge-patch+json"
_GONE = 410
_LATE = "it did not answer in time"

Query = Mapping[str, str | int]


class Cluster:
    """One API server, as one user, in one namespace. Made by `connect`; `close` ends its connections.

    Requests raise `Refusal` where the server will not, and `ClusterLost` where it cannot be reached or does not answer.

    Attributes:
        address: the server's URL.
        namespace: where everything is made.
        context: the name of the context; ``in-cluster`` for a pod's own account.
    """

    def __init__(self, client: httpx2.AsyncClient, address: str, namespace: str, context: str) -> None:
        self._client = client
        self.address = address
        self.namespace = namespace
        self.context = context

    @classmethod
    async def connect(cls, options: KubernetesSettings) -> Cluster:
        """A client of the cluster that the configuration names; nothing is asked of it yet.

        Args:
            options: the engine's settings.

        Raises:
            EngineUnavailable: lightkube is missing, or the configuration cannot be used; says how to fix it.
        """
        return await anyio.to_thread.run_sync(_connect, options)

    async def get(self, path: str, query: Query | None = None) -> dict[str, Any]:
        """An object, or a list of them."""
        return await self._request("GET", path, query)

    async def create(self, path: str, body: Mapping[str, Any], query: Query | None = None) -> dict[str, Any]:
        """Make an object; as it was made."""
        return await self._request("POST", path, query, body)

    async def merge(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change an object by a JSON merge patch (RFC 7396)."""
        return await self._request("PATCH", path, None, body, _MERGE_PATCH)

    async def delete(self, path: str, query: Query | None = None, body: Mapping[str, Any] | None = None) -> None:
        """Have an object removed."""
        await self._request("DELETE", path, query, body)

    async def watch(self, path: str, query: Query) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """The events of a watch, as type and object, until the server ends it.

        Args:
            path: of a list.
            query: with `resourceVersion`, from where on.

        Raises:
            WatchExpired: the server does not have that version any more (410).
        """
        import httpx2

        timeout = httpx2.Timeout(API_ANSWER_TIMEOUT, connect=API_CONNECT_TIMEOUT, read=None)
        try:
            async with self._client.stream(
                "GET", path, params={**query, "watch": "1"}, timeout=timeout, extensions=_closing()
            ) as response:
                if response.is_error:
                    refusal = _refusal(response, await self._read(response))
                    raise WatchExpired(refusal.message) if refusal.status == _GONE else refusal
                rest = b""
                async for piece in response.aiter_bytes():
                    *lines, rest = (rest + piece).split(b"\n")
                    if len(rest) > MAX_API_ANSWER:
                        raise self._too_large()
                    for line in lines:
                        if line:
                            yield _event(line)
        except httpx2.HTTPError as exc:
            raise ClusterLost(self.address, _reason(exc)) from exc

    def forward(self, path: str, port: int) -> AbstractAsyncContextManager[AsyncWebSocketSession]:
        """A websocket to a port of a pod, by port forwarding.

        Args:
            path: of the pod.
            port: number of the port, on the loopback of the pod.
        """
        return self._client.websocket(
            f"{path}/portforward",
            params={"ports": str(port)},
            subprotocols=[CHANNEL_PROTOCOL],
            max_message_size_bytes=MAX_CHANNEL_MESSAGE,
            keepalive_ping_interval_seconds=PING_EVERY,
            keepalive_ping_timeout_seconds=PING_TIMEOUT,
            extensions=_closing(),
        )

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()

    def pods(self, name: str = "") -> str:
        """The path of the namespace's pods, or of one of them."""
        return self.objects("api/v1", "pods", name)

    def config_maps(self, name: str = "") -> str:
        """The path of the namespace's ConfigMaps, or of one of them."""
        return self.objects("api/v1", "configmaps", name)

    def leases(self, name: str = "") -> str:
        """The path of the namespace's Leases, or of one of them."""
        return self.objects("apis/coordination.k8s.io/v1", "leases", name)

    def objects(self, group: str, kind: str, name: str = "") -> str:
        """The path of the namespace's objects of a kind, or of one of them.

        Args:
            group: path of the API group with its version, ``apis/example.org/v1``.
            kind: as paths have it: in the plural.
        """
        path = f"/{group}/namespaces/{self.namespace}/{kind}"
        return f"{path}/{name}" if name else path

    async def _request(
        self,
        method: Literal["GET", "POST", "PATCH", "DELETE"],
        path: str,
        query: Query | None,
        body: Mapping[str, Any] | None = None,
        kind: str = "application/json",
    ) -> dict[str, Any]:
        request: dict[str, Any] = {"params": dict(query) if query else None}
        if body is not None:
            request |= {"content": json.dumps(body).encode(), "headers": {"Content-Type": kind}}
        for tries_left in reversed(range(MOST_API_TRIES)):
            try:
                with anyio.fail_after(API_CONNECT_TIMEOUT + API_ANSWER_TIMEOUT):
                    return await self._send(method, path, request)
            except TimeoutError as exc:
                raise ClusterLost(self.address, _LATE) from exc
            except Refusal as exc:
                if exc.retry_after is None or not tries_left:
                    raise
                await anyio.sleep(min(exc.retry_after, MOST_RETRY_PAUSE))
        raise AssertionError  # the last try returns or raises

    async def _send(self, method: str, path: str, request: dict[str, Any]) -> dict[str, Any]:
        import httpx2

        try:
            async with self._client.stream(method, path, **request, extensions=_closing()) as response:
                body = await self._read(response)
        except httpx2.HTTPError as exc:
            raise ClusterLost(self.address, _reason(exc)) from exc
        if response.is_error:
            raise _refusal(response, body)
        try:
            found = json.loads(body)
        except ValueError as exc:
            raise ClusterLost(self.address, "it answers with something that is not JSON") from exc
        if not isinstance(found, dict) or ("/namespaces/" in path and not isinstance(found.get("metadata"), dict)):
            raise ClusterLost(self.address, "it answers with what is not an object of the Kubernetes API")
        return found

    async def _read(self, response: httpx2.Response) -> bytes:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_API_ANSWER:
                raise self._too_large()
        return bytes(body)

    def _too_large(self) -> ClusterLost:
        return ClusterLost(self.address, f"it answers with more than {MAX_API_ANSWER // 1024**2} MiB")


def _closing() -> dict[str, Any]:
    """For a request: closes its connection where the TLS handshake is cancelled, which httpcore (2.16) leaves open."""
    opened: list[Any] = []

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(info["return_value"])
        elif event == "connection.start_tls.failed":
            with anyio.CancelScope(shield=True):
                await opened.pop().aclose()

    return {"trace": trace}


def _connect(options: KubernetesSettings) -> Cluster:
    try:
        import httpx2
        import lightkube
        import wsproto  # noqa: F401 - what httpx2 opens websockets with, and names only when it does
        from lightkube.config.client_adapter import ConnectionParams
    except ImportError as exc:
        raise EngineUnavailable(
            f"The Kubernetes engine needs lightkube, which {sys.executable} lacks.",
            remedy=f"Install it: {install_command_for_extra('kubernetes')}",
        ) from exc
    try:
        # A file that is named comes before a pod's own account, as kubectl has it.
        named = options.kubeconfig or os.environ.get("KUBECONFIG")
        if named or options.context is not None:
            found = lightkube.KubeConfig.from_file(named or "~/.kube/config")
        else:
            found = lightkube.KubeConfig.from_env()
        config = found.get(options.context)
        assert config is not None  # it is for a default that was given
        parameters = ConnectionParams(timeout=httpx2.Timeout(API_ANSWER_TIMEOUT, connect=API_CONNECT_TIMEOUT))
        limits = httpx2.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=32)
        client = httpx2.AsyncClient(**parameters.httpx_params(config), limits=limits)
    except lightkube.ConfigError as exc:
        raise _unusable(str(exc)) from exc
    except ssl.SSLError as exc:
        raise _unusable(f"a certificate in it cannot be read ({exc.strerror or exc})") from exc
    except OSError as exc:
        place = f" ({exc.filename})" if exc.filename else ""
        raise _unusable(f"{exc.strerror or exc}{place}") from exc
    except Exception as exc:
        # Of YAML, of msgspec, a key that is not there: the file is not what it should be. What it holds is not shown.
        raise _unusable(f"it cannot be read ({type(exc).__name__})") from exc
    return Cluster(client, config.cluster.server, options.namespace or config.namespace, config.context_name)


def _unusable(why: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"The configuration for Kubernetes cannot be used: {why}.",
        remedy="Check that `kubectl version` works for the server's user: KUBECONFIG names one file, else it is "
        "~/.kube/config; engines.kubernetes.context in the settings names a context of it.",
    )


def _refusal(response: httpx2.Response, body: bytes) -> Refusal:
    """What an API server answers with (meta/v1 Status); a proxy before it answers with anything."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    # Said only of a request that was not done (429 of the server's flow control, 503 of one that starts).
    pause = response.headers.get("Retry-After", "")
    status = found if isinstance(found, dict) else {}
    details = status.get("details") or {}
    return Refusal(
        response.status_code,
        str(status.get("reason") or response.reason_phrase),
        str(status.get("message") or body[:500].decode(errors="replace").strip() or response.reason_phrase),
        kind=str(details.get("kind") or ""),
        name=str(details.get("name") or ""),
        retry_after=float(pause) if pause.isdecimal() and response.status_code in (429, 503) else None,
    )


def _event(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        found = json.loads(line)
        kind, item = str(found["type"]), dict(found["object"])
    except (ValueError, KeyError, TypeError) as exc:
        raise ClusterLost("", "a watch brought what is not an event") from exc
    if kind == "ERROR":
        if item.get("code") == _GONE:
            raise WatchExpired(str(item.get("message", "")))
        raise Refusal(int(item.get("code") or 500), str(item.get("reason", "")), str(item.get("message", "")))
    return kind, item


def _reason(error: httpx2.HTTPError) -> str:
    """Why, in words: the exceptions of timeouts have none of their own."""
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        return _LATE
    return str(error).strip() or type(error).__name__
