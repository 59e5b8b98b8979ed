"""The API server of the double: what it answers to which request, and the lives of its pods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h11

from praxis_mcp.support.praxis_init import praxis_init_path
from tests.kubernetes_double.forward import Cut, Forwarding, Traffic
from tests.kubernetes_double.http import JSON, Answer, Asked, Connection, status_body
from tests.kubernetes_double.pods import DoublePod
from tests.kubernetes_double.store import Refused, Store

TOKEN = "the-token"
NAMESPACE = "tools"


def write_kubeconfig(path: Path, server: str) -> None:
    """Write the configuration of a client for a server at this URL, whose certificate nobody has checked."""
    named = {"name": "double"}
    found = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{**named, "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{**named, "user": {"token": TOKEN}}],
        "contexts": [{**named, "context": {"cluster": "double", "user": "double", "namespace": NAMESPACE}}],
        "current-context": "double",
    }
    path.write_text(json.dumps(found))


class KubernetesDouble:
    """An API server with one namespace. A context manager: what it has started ends with it.

    Args:
        place: where its kubeconfig is written.

    Attributes:
        on_request: is asked before each request is done; None: it is done.
        on_forward: is asked before each port is forwarded.
        serves: further API groups, as paths below /apis, and the resources of each.
        life: what becomes of a new pod.
        asked: all requests, in their order.
        forwarded: all that was carried to ports of pods.
        pods: all pods that there ever were.
    """

    def __init__(self, place: Path) -> None:
        binary = praxis_init_path()
        assert binary is not None, "tests of the double are marked native"
        self.kubeconfig = place / "kubeconfig"
        self.store = Store()
        self.asked: list[Asked] = []
        self.forwarded: list[Traffic] = []
        self.pods: dict[str, DoublePod] = {}
        self.on_request: Callable[[Asked], Answer | None] = lambda asked: None
        self.on_forward: Callable[[DoublePod], Cut | None] = lambda pod: None
        self.serves: dict[str, list[str]] = {}
        self.life: Callable[[DoublePod], Awaitable[None]] = DoublePod.live
        self._binary = binary
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()
        for pod in self.pods.values():
            await pod.stop()

    async def begin(self) -> None:
        """Listen, once more on the same port after `end`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        write_kubeconfig(self.kubeconfig, f"http://127.0.0.1:{self.port}")

    async def end(self) -> None:
        """Be gone, with all connections; objects and pods stay."""
        assert self._server is not None
        self._server.close()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def start(self, work: Awaitable[None]) -> None:
        """Have something done meanwhile, which ends with the double."""

        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            connection = Connection(reader, writer)
            while (asked := await connection.next_request()) is not None:
                self.asked.append(asked)
                if not await self._respond(connection, asked):
                    return
        except (ConnectionError, h11.RemoteProtocolError):
            pass  # the client has hung up
        except asyncio.CancelledError:
            if task.cancelling() > 1:  # by another than `end`
                raise
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _respond(self, connection: Connection, asked: Asked) -> bool:
        answer = self.on_request(asked)
        if answer is None:
            return await self._do(connection, asked)
        if answer.done:
            with suppress(Refused):
                self._act(asked)
        await asyncio.sleep(answer.after)
        if not answer.status:
            connection.cut()
            return False
        if answer.ends:
            return await connection.answer(answer.status, answer.body, answer.retry_after)
        await connection.begin(answer.status, [("Transfer-Encoding", "chunked"), JSON])
        await connection.send(h11.Data(data=answer.body))
        await connection.until_closed()
        return False

    async def _do(self, connection: Connection, asked: Asked) -> bool:
        if (b"authorization", f"Bearer {TOKEN}".encode()) not in asked.headers:
            return await connection.answer(401, status_body(401, "Unauthorized"))
        try:
            if asked.verb == "watch":
                await self._watch(connection, asked)
                return False
            if asked.resource == "pods/portforward":
                await self._forward(connection, asked)
                return False
            found, status = self._act(asked)
        except Refused as exc:
            return await connection.answer(exc.status, status_body(exc.status, exc.message, exc.reason))
        return await connection.answer(status, json.dumps(found).encode())

    def _act(self, asked: Asked) -> tuple[Mapping[str, Any], int]:
        store = self.store
        match asked.verb, asked.resource:
            case "list", "version":
                return {"gitVersion": "v1.34.4"}, 200
            case "create", "selfsubjectaccessreviews":
                return {**asked.body, "status": {"allowed": True}}, 201
            case "list", _ if asked.target.startswith("/apis/") and "/namespaces/" not in asked.target:
                group = asked.target.removeprefix("/apis/")
                if group not in self.serves:
                    raise Refused(404, "NotFound", "the server could not find the requested resource")
                return {"kind": "APIResourceList", "resources": [{"name": name} for name in self.serves[group]]}, 200
            case "list", resource:
                items, first = store.find(resource, asked.query), int(asked.query.get("continue") or 0)
                after = first + int(asked.query.get("limit") or len(items))
                more = {"continue": str(after)} if after < len(items) else {}
                metadata = {"resourceVersion": store.version, **more}
                return {"kind": "List", "metadata": metadata, "items": items[first:after]}, 200
            case "get", resource:
                return store.get(resource, asked.name), 200
            case "create", resource:
                made = store.create(resource, {"status": {"phase": "Pending"}, **asked.body})
                if resource == "pods":
                    name = made["metadata"]["name"]
                    self.pods[name] = DoublePod(store, name, self._binary, lambda: self.delete("pods", name))
                    self.start(self.life(self.pods[name]))
                if store.is_orphan(made):
                    self.delete(resource, made["metadata"]["name"])
                return made, 201
            case "patch", resource:
                return store.merge(resource.removesuffix("/status"), asked.name, asked.body), 200
            case "delete", resource:
                return self.delete(resource, asked.name), 200
            case _:
                raise AssertionError(f"the double does not know {asked.verb} {asked.resource}")

    def delete(self, resource: str, name: str) -> Mapping[str, Any]:
        """Remove an object, and what it owns; a pod when its process has ended."""
        item = self.store.get(resource, name)
        if resource == "pods":
            if "deletionTimestamp" not in item["metadata"]:
                self.store.merge(resource, name, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
                self.start(self._remove(self.pods[name]))
            return item
        self.store.remove(resource, name)
        for kind, owned in self.store.owned_by(item["metadata"]["uid"]):
            self.delete(kind, owned)
        return item

    async def _remove(self, pod: DoublePod) -> None:
        await pod.stop()
        self.store.remove("pods", pod.name)

    async def _watch(self, connection: Connection, asked: Asked) -> None:
        await connection.begin(200, [("Transfer-Encoding", "chunked"), JSON])

        async def show() -> None:
            async for event in self.store.watch(asked.resource, asked.query):
                line = json.dumps({"type": event.kind, "object": event.item}).encode() + b"\n"
                await connection.send(h11.Data(data=line))

        ways = [asyncio.create_task(show()), asyncio.create_task(connection.until_closed())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _forward(self, connection: Connection, asked: Asked) -> None:
        self.store.get("pods", asked.name)
        pod = self.pods[asked.name]
        forwarding = Forwarding(connection, pod, self.on_forward(pod))
        self.forwarded.append(forwarding.traffic)
        await forwarding.run(asked)
