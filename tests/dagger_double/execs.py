"""Commands of the double, run on the local Docker daemon: known by what goes into them, kept, killed when unwanted."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from graphql import GraphQLError

from tests.dagger_double.store import Content, Store, ids

LABEL = "praxis-mcp.dagger-double"
KEPT_OF_FAILURE = 100 * 1024
PIECE = 512 * 1024
OWN_VARIABLES = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    "OTEL_EXPORTER_OTLP_TRACES_LIVE": "1",
    "BAGGAGE": "global-logs-span=0",
    "TRACEPARENT": "00-0-0-01",
}
"""Some of what a real engine gives every exec, over variables of these names."""
Publish = Callable[[str, int, bytes], None]


@dataclass(frozen=True)
class MountPoint:
    """`source` is a Content, or the key of a cache."""

    target: str
    source: Content | str
    owner: str = ""
    read_only: bool = False


@dataclass(frozen=True)
class SocketPoint:
    """A socket of the host's at `source`, seen at `target`."""

    target: str
    source: str
    owner: str


@dataclass(frozen=True)
class NewFile:
    path: str
    content: Content
    mode: int
    owner: str


@dataclass(frozen=True)
class Recipe:
    """All that goes into an exec."""

    image: str = ""
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str, str], ...] = ()  # variable, name, plaintext
    mounts: tuple[MountPoint, ...] = ()
    files: tuple[NewFile, ...] = ()
    sockets: tuple[SocketPoint, ...] = ()
    user: str = ""
    workdir: str = ""
    exec: dict[str, Any] = field(default_factory=dict, hash=False)

    def key(self) -> str:
        parts: list[Any] = [
            self.image,
            sorted(dict(self.env).items()),
            sorted(item[:2] for item in self.secrets),
            [
                (item.target, item.owner, item.read_only, *_identity(item.source))
                for item in sorted(self.mounts, key=lambda item: item.target)
            ],
            [(item.path, item.content.digest, item.mode, item.owner) for item in self.files],
            [(item.target, item.source, item.owner) for item in self.sockets],
            self.user,
            self.workdir,
            self.exec,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _identity(source: Content | str) -> tuple[str, str]:
    return ("cache", source) if isinstance(source, str) else (source.digest, source.owner)


@dataclass(frozen=True)
class Done:
    """A finished exec: its streams are files beside `result.json` in `place`."""

    place: Path
    container: str
    exit_code: int
    mounts: dict[str, str]


@asynccontextmanager
async def forwarded(point: SocketPoint) -> AsyncIterator[str]:
    """A socket of the double's own, its owner's alone, that is connected to the host's; as a bind for Docker. As with
    Dagger, the exec does not hear that the host's end was closed."""
    with tempfile.TemporaryDirectory(prefix="double-") as directory:
        place = Path(directory) / "socket"
        connections: set[asyncio.Task[None]] = set()

        def connected(*inner: Any) -> None:
            connections.add(asyncio.create_task(_forward(point.source, *inner)))

        server = await asyncio.start_unix_server(connected, place)
        place.chmod(0o600)
        os.chown(place, *ids(point.owner or "0:0"))
        try:
            yield f"{place}:{point.target}"
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)


async def _forward(source: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        outer_reader, outer_writer = await asyncio.open_unix_connection(source)
        try:
            towards = asyncio.create_task(_pump(outer_reader, writer))
            await _pump(reader, outer_writer)
            towards.cancel()
        finally:
            outer_writer.close()
    finally:
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(64 * 1024):
            writer.write(piece)
            await writer.drain()


class Execs:
    def __init__(self, store: Store, publish: Publish) -> None:
        self.store = store
        self.trace: ContextVar[str] = ContextVar("trace", default="")
        self._publish = publish
        self._running: dict[str, tuple[asyncio.Task[Done], list[object]]] = {}
        self.docker = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds="/var/run/docker.sock"), base_url="http://docker", timeout=60
        )

    async def close(self) -> None:
        for task, _ in self._running.values():
            task.cancel()
        await asyncio.gather(*(task for task, _ in self._running.values()), return_exceptions=True)
        await self.docker.aclose()

    async def result(self, recipe: Recipe) -> Done:
        """The exec's result: kept, awaited with others, or made."""
        key = recipe.key()
        place = self.store.state / "execs" / key
        if (place / "result.json").exists():
            kept = json.loads((place / "result.json").read_text())
            return Done(place, kept["container"], kept["exit_code"], kept["mounts"])
        if key not in self._running:
            self._running[key] = (asyncio.create_task(self._run(recipe, place, self.trace.get())), [])
        task, waiters = self._running[key]
        me = object()
        waiters.append(me)
        try:
            return await asyncio.shield(task)
        finally:
            waiters.remove(me)
            if not waiters:
                if not task.done():
                    task.cancel()
                    await asyncio.wait([task])
                if self._running.get(key, (None,))[0] is task:
                    del self._running[key]

    async def _run(self, recipe: Recipe, place: Path, trace: str) -> Done:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        async with AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(forwarded(item)) for item in recipe.sockets]
            return await self._run_with(recipe, place, trace, sockets)

    async def _run_with(self, recipe: Recipe, place: Path, trace: str, sockets: list[str]) -> Done:
        binds, mounts = self._binds(recipe)
        container = await self._create(recipe, [*binds, *sockets])
        try:
            if recipe.files:
                await self._call("PUT", f"/containers/{container}/archive", params={"path": "/"}, content=_tar(recipe))
            await self._attach(recipe, container, place, trace)
            state = (await self._call("GET", f"/containers/{container}/json")).json()["State"]
        except BaseException:
            with contextlib.suppress(httpx.HTTPError, GraphQLError):
                await asyncio.shield(self._call("DELETE", f"/containers/{container}", params={"force": "true"}))
            raise
        if state["Error"]:
            raise GraphQLError(f"failed to start: {state['Error']}")
        done = Done(place, container, int(state["ExitCode"]), mounts)
        failed = recipe.exec["expect"] != "ANY" or 128 <= done.exit_code <= 191
        if failed and done.exit_code != 0:
            raise GraphQLError(
                f"exit code: {done.exit_code} [traceparent:{'0' * 32}-{'0' * 16}]",
                extensions={
                    "_type": "EXEC_ERROR",
                    "cmd": recipe.exec["args"],
                    "exitCode": done.exit_code,
                    "stdout": _last(place / "stdout"),
                    "stderr": _last(place / "stderr"),
                },
            )
        kept = {"container": container, "exit_code": done.exit_code, "mounts": mounts}
        (place / "result.json").write_text(json.dumps(kept))
        return done

    def _binds(self, recipe: Recipe) -> tuple[list[str], dict[str, str]]:
        binds: list[str] = []
        mounts: dict[str, str] = {}
        for item in sorted(recipe.mounts, key=lambda item: item.target):
            if isinstance(item.source, str):
                path = self.store.state / "caches" / item.source
                if not path.exists():
                    path.mkdir()
                    uid, gid = ids(item.owner or "0:0")
                    shutil.chown(path, uid, gid)
            else:
                path = self.store.work(Content(item.source.path, "", item.owner or item.source.owner))
            mounts[item.target] = str(path)
            binds.append(f"{path}:{item.target}:{'ro' if item.read_only else 'rw'}")
        return binds, mounts

    async def _create(self, recipe: Recipe, binds: list[str]) -> str:
        wanted = recipe.exec
        env = {**dict(recipe.env), **{name: value for name, _, value in recipe.secrets}, **OWN_VARIABLES}
        has_stdin = bool(wanted["stdin"] or wanted["redirectStdin"])
        body = {
            "Image": recipe.image,
            "Entrypoint": [],
            "Cmd": wanted["args"],
            "Env": [f"{name}={value}" for name, value in env.items()],
            "User": recipe.user,
            "WorkingDir": recipe.workdir,
            "Labels": {LABEL: self.store.state.name},
            "OpenStdin": has_stdin,
            "StdinOnce": has_stdin,
            "HostConfig": {
                "Binds": binds,
                "Init": not wanted["noInit"],
                "LogConfig": {"Type": "none"},  # Docker would write all output to a file of its own, as JSON
                # Not all of them: Docker in a virtual machine may not have them to give.
                "CapAdd": ["SYS_ADMIN"] if wanted["insecureRootCapabilities"] else [],
            },
        }
        return (await self._call("POST", "/containers/create", json=body)).json()["Id"]

    async def _attach(self, recipe: Recipe, container: str, place: Path, trace: str) -> None:
        stdin: Any = asyncio.subprocess.DEVNULL
        if recipe.exec["redirectStdin"]:
            source = next(item.source for item in recipe.mounts if item.target == recipe.exec["redirectStdin"])
            assert isinstance(source, Content)
            stdin = source.path.open("rb")
        elif recipe.exec["stdin"]:
            (place / "stdin").write_text(recipe.exec["stdin"], newline="")
            stdin = (place / "stdin").open("rb")
        flags = ["--interactive"] if stdin is not asyncio.subprocess.DEVNULL else []
        process = await asyncio.create_subprocess_exec(
            *("docker", "start", "--attach", *flags, container),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=PIECE,
        )
        try:
            await asyncio.gather(
                self._copy(process.stdout, place / "stdout", trace, 1),
                self._copy(process.stderr, place / "stderr", trace, 2),
                process.wait(),
            )
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _copy(self, stream: asyncio.StreamReader | None, file: Path, trace: str, number: int) -> None:
        assert stream is not None
        with file.open("wb") as opened:
            while piece := await stream.read(PIECE):
                opened.write(piece)
                self._publish(trace, number, piece)

    async def commit(self, done: Done) -> str:
        """The id of the image that the exec has left."""
        made = await self._call("POST", "/commit", params={"container": done.container})
        return made.json()["Id"]

    async def read(self, done: Done, path: str) -> Content:
        """What a path holds in the container after the exec."""
        response = await self._call("GET", f"/containers/{done.container}/archive", params={"path": path})
        with tarfile.open(fileobj=io.BytesIO(response.content)) as tar:
            member = tar.getmembers()[0]
            opened = tar.extractfile(member)
            if opened is None:
                raise GraphQLError(f"the double reads files of a container, not {path}")
            return self.store.add_bytes(opened.read(), member.mode)

    async def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = await self.docker.request(method, path, **options)
        if response.is_error:
            raise GraphQLError(f"docker: {response.json().get('message', response.status_code)}")
        return response


def _tar(recipe: Recipe) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for item in recipe.files:
            data = item.content.path.read_bytes()
            info = tarfile.TarInfo(item.path.lstrip("/"))
            info.size, info.mode = len(data), item.mode
            info.uid, info.gid = ids(item.owner or "0:0")
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _last(file: Path) -> str:
    data = file.read_bytes()
    if len(data) >= KEPT_OF_FAILURE:
        message = f"[omitting {len(data) - KEPT_OF_FAILURE} bytes]...".encode()
        data = message + data[-KEPT_OF_FAILURE:][len(message) :]
    return data.decode(errors="replace").strip()
