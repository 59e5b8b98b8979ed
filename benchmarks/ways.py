"""Ways of running one command: each engine's, and the bare ones that it is compared with."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2

from benchmarks.calls import launchers
from benchmarks.sandbox import raw_bubblewrap
from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.engines.base import ExecutionContext, ExecutionEngine
from praxis_mcp.engines.docker.connections import Address, open_attached, open_wait
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.engines.host.local import LocalExecutionEngine
from praxis_mcp.engines.host.sandbox import SandboxExecutionEngine
from praxis_mcp.engines.host.sandbox_images import SandboxImages
from praxis_mcp.settings.model import Settings

READY_LIMIT = 10.0
"""Seconds for a container to be made ready before a call that is to meet one."""


@dataclass(frozen=True)
class Task:
    """What is run: a command in an image, how many bytes it writes, its input; and the command on the host, where that
    is another one."""

    name: str
    image: str
    command: tuple[str, ...]
    output: int
    stdin: bytes | None = None
    on_host: tuple[str, ...] | None = None

    def of_the_host(self) -> Task:
        """The same for the host."""
        return self if self.on_host is None else replace(self, command=self.on_host)


@dataclass(frozen=True)
class Sample:
    """One run: seconds until the first byte of its output, and until its end."""

    first: float
    total: float


Run = Callable[[Task], Awaitable[Sample]]


async def _nothing(task: Task) -> None:
    return


@dataclass(frozen=True)
class Way:
    """One way: its name, how it runs a task, the name of the bare way that it is compared with, and what is waited for
    before a run that has been announced."""

    name: str
    run: Run
    against: str | None = None
    ready: Callable[[Task], Awaitable[None]] = field(default=_nothing)


@asynccontextmanager
async def ways() -> AsyncIterator[list[Way]]:
    """All that this machine has."""
    bare = "bare subprocess"
    async with AsyncExitStack() as stack:
        found = [Way(bare, lambda task: _spawn(task.of_the_host(), ()))]
        plain = await stack.enter_async_context(LocalExecutionEngine(_cold(local={"sandbox": "off"})))
        found.append(Way("local, plain process", _by(plain, _on_host), bare))
        if shutil.which("bwrap"):
            images = SandboxImages(Settings())

            async def raw(task: Task) -> Sample:
                root = (await images.ensure(task.image)).image.root
                return await _spawn(task, raw_bubblewrap(root))

            found.append(Way("raw bwrap over the image", raw, bare))
        for launcher in await launchers():
            local = LocalExecutionEngine(_cold(local={"sandbox": launcher}))
            sandbox = SandboxExecutionEngine(_cold(sandbox={"launcher": launcher}))
            for name, engine, make in (("local", local, _on_host), ("sandbox", sandbox, _in_image)):
                found.append(Way(f"{name}, {launcher}", _by(await stack.enter_async_context(engine), make), bare))
        if await has_docker():
            cold = await stack.enter_async_context(DockerSDKExecutionEngine(_cold()))
            warm = await stack.enter_async_context(DockerSDKExecutionEngine(Settings()))
            api = await stack.enter_async_context(DockerApi.open())

            async def ready(task: Task) -> None:
                with anyio.move_on_after(READY_LIMIT):
                    while not ((pool := warm.warm()) and pool.waiting):
                        await anyio.sleep(0.01)

            found.append(Way("docker run", lambda task: _spawn(task, ("docker", *_DOCKER_RUN, task.image))))
            found.append(Way("Docker API, the minimum", api.run, "docker run"))
            found.append(Way("docker, cold", _by(cold, _in_image), "Docker API, the minimum"))
            found.append(Way("docker, warm", _by(warm, _in_image), "docker run", ready))
        yield found


_DOCKER_RUN = ("run", "--rm", "--interactive", "--network", "none")


async def has_docker() -> bool:
    """Whether a daemon answers."""
    if not shutil.which("docker"):
        return False
    return (await anyio.run_process(["docker", "version"], check=False)).returncode == 0


def _cold(**engines: object) -> Settings:
    """Nothing is started ahead of a call."""
    return Settings.model_validate({"engines": engines, "warm": {"enabled": False}})


async def _spawn(task: Task, prefix: tuple[str, ...] | list[str]) -> Sample:
    """Run the command behind a prefix, its streams piped."""
    began = time.perf_counter()
    first, taken = 0.0, 0
    stdin = subprocess.PIPE if task.stdin is not None else subprocess.DEVNULL
    async with await anyio.open_process([*prefix, *task.command], stdin=stdin) as process:

        async def feed() -> None:
            if process.stdin is not None and task.stdin is not None:
                await process.stdin.send(task.stdin)
                await process.stdin.aclose()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            assert process.stdout is not None
            async for piece in process.stdout:
                first = first or time.perf_counter()
                taken += len(piece)
        code = await process.wait()
    assert (code, taken) == (0, task.output), (prefix, code, taken)
    return Sample(first - began, time.perf_counter() - began)


_CONTRACTS: dict[tuple[str, str], ToolContract] = {}
_STDIN = [ToolParameter(name="text", bind=Binding(kind=BindKind.STDIN))]


def _in_image(task: Task) -> ToolContract:
    fields: dict[str, Any] = {"parameters": _STDIN} if task.stdin is not None else {}
    return ToolContract.create_dagger_tool("benchmark", task.image, list(task.command), **fields)


def _on_host(task: Task) -> ToolContract:
    fields: dict[str, Any] = {"parameters": _STDIN} if task.stdin is not None else {}
    return ToolContract.create_local_tool("benchmark", list(task.of_the_host().command), **fields)


def _by(engine: ExecutionEngine, contract_for: Callable[[Task], ToolContract]) -> Run:
    async def run(task: Task) -> Sample:
        key = (contract_for.__name__, task.name)
        if key not in _CONTRACTS:
            _CONTRACTS[key] = contract_for(task)
        arguments = {"text": task.stdin.decode()} if task.stdin is not None else {}
        first_output = 0.0

        def hear(*_: object) -> None:
            nonlocal first_output
            first_output = first_output or time.perf_counter()

        began = time.perf_counter()
        result = await engine.execute(_CONTRACTS[key], arguments, ExecutionContext(on_output=hear))
        ended = time.perf_counter()
        assert result.success, result.stderr.text
        assert result.stdout.total == task.output, result.stdout.total
        return Sample(first_output - began, ended - began)

    return run


class DockerApi:
    """The fewest requests that run a command and take its output: create, attach, wait, start, remove."""

    def __init__(self, client: httpx2.AsyncClient, address: Address) -> None:
        self._client = client
        self._address = address

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[DockerApi]:
        """Over the daemon's Unix socket."""
        path = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")).path
        transport = httpx2.AsyncHTTPTransport(uds=path)
        async with httpx2.AsyncClient(transport=transport, base_url="http://docker", timeout=60) as client:
            yield cls(client, Address(path))

    async def run(self, task: Task) -> Sample:
        """See `Way`. Its end is the exit code; the removal is not waited for in it, as no engine does."""
        began = time.perf_counter()
        first = 0.0
        taken, code = 0, -1
        fed = task.stdin is not None
        body = {
            "Image": task.image, "Entrypoint": list(task.command[:1]), "Cmd": list(task.command[1:]),
            "AttachStdout": True, "AttachStderr": True, "AttachStdin": fed, "OpenStdin": fed, "StdinOnce": fed,
            "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}},
        }  # fmt: skip
        container = (await self._client.post("/containers/create", json=body)).raise_for_status().json()["Id"]
        place = f"/containers/{container}"
        stream = await open_attached(self._address, f"{place}/attach?stream=1&stdout=1&stderr=1&stdin={int(fed)}")
        pending = await open_wait(self._address, f"{place}/wait?condition=next-exit")
        (await self._client.post(f"{place}/start")).raise_for_status()

        async def hear() -> None:
            nonlocal first, taken
            async for _, piece in stream.pieces():
                first = first or time.perf_counter()
                taken += len(piece)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hear)
            if task.stdin is not None:
                tasks.start_soon(stream.feed, task.stdin)
            code = await pending.status()
        ended = time.perf_counter()
        await pending.aclose()
        await stream.aclose()
        (await self._client.delete(place, params={"force": "1"})).raise_for_status()
        assert (code, taken) == (0, task.output), (code, taken)
        return Sample(first - began, ended - began)
