"""A call of the Docker engine, in a container that waited and in one made for it, compared with the least that Docker's
API takes, ``docker run``, and a bare subprocess."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import h11

from benchmarks.calls import calling, connected, spawning
from benchmarks.measure import Report, Work, in_turns
from benchmarks.startup import serving
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionEngine
from praxis_mcp.engines.docker.engine import DockerSDKExecutionEngine
from praxis_mcp.settings.model import Settings

IMAGE = "busybox:1.36"
SOCKET = "/var/run/docker.sock"
SETTLE = 1.5
"""Seconds of rest before each timing: for removals, and for the next container to be there before a warm call."""

BARE, API, RUN = "bare subprocess", "Docker API, the least: create, attach, start, wait", "docker run --rm"
COLD, WARM, WHOLE = "engine, cold", "engine, warm", "tools/call over stdio, warm"
CONTRACT = f"""\
name: noop
description: Say hi.
image: {IMAGE}
command: [echo, hi]
"""


async def measure(rounds: int) -> list[Report]:
    """The table; none where there is no daemon."""
    cold_engine = DockerSDKExecutionEngine(Settings.model_validate({"warm": {"enabled": False}}))
    warm_engine = DockerSDKExecutionEngine(Settings())
    async with AsyncExitStack() as stack:
        for engine in (cold_engine, warm_engine):
            await stack.enter_async_context(engine)
        status = await warm_engine.probe()
        if not (status.available and Path(SOCKET).is_socket()):
            print(f"docker: left out: {status.detail or SOCKET}", file=sys.stderr)
            return []
        place = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "noop"
        place.mkdir()
        (place / "contract.yaml").write_text(CONTRACT, encoding="utf-8")
        order = {"PRAXIS_ENGINES__ORDER": '["docker"]'}
        client = await stack.enter_async_context(connected(serving(place.parent), order))
        works: dict[str, Work] = {
            BARE: spawning(["/bin/echo", "hi"]),
            RUN: spawning(["docker", "run", "--rm", "--network", "none", IMAGE, "echo", "hi"]),
            API: _least,
            COLD: _executing(cold_engine),
            WARM: _executing(warm_engine),
            WHOLE: calling(client),
        }
        against = {RUN: WHOLE, API: BARE, COLD: API, WARM: BARE, WHOLE: BARE}
        works = {name: _settled(work) for name, work in works.items()}
        rows = await in_turns(works, rounds, against=against)
        warm = warm_engine.warm()
        met = f"{warm.hits} of {warm.hits + warm.misses - 1}" if warm is not None else "none"
    note = (
        f"One at a time, {SETTLE:g} s apart, so that a container waits for a warm call ({met} of them met one). "
        "Bars: a warm tools/call at most 10 ms over the bare subprocess; docker run at least 30 x of it; the cold "
        "engine at most 1.05 x the API's least."
    )
    return [Report(f"Docker: echo in {IMAGE}", rows, note)]


def _echo() -> ToolContract:
    return ToolContract.create_dagger_tool("echo", IMAGE, ["echo", "hi"])


def _executing(engine: ExecutionEngine) -> Work:
    contract = _echo()

    async def work() -> float:
        began = time.perf_counter()
        result = await engine.execute(contract, {})
        seconds = time.perf_counter() - began
        assert result.output == "hi\n", result
        return seconds

    return work


def _settled(work: Work) -> Work:
    """Once nothing is being started or removed that another way's call has left."""

    async def settled() -> float:
        await anyio.sleep(SETTLE)
        return await work()

    return settled


async def _least() -> float:
    """What any client must ask for a container's output and exit code, one plain HTTP connection each; not removed
    within the time: the daemon does that itself."""
    began = time.perf_counter()
    body = (
        b'{"Image":"%s","Cmd":["echo","hi"],"AttachStdout":true,"HostConfig":{"NetworkMode":"none","AutoRemove":true,'
        b'"LogConfig":{"Type":"none"}}}' % IMAGE.encode()
    )
    created = await _ask("POST", "/containers/create", body)
    container = created.split(b'"Id":"')[1][:64].decode()
    async with await anyio.connect_unix(SOCKET) as output, await anyio.connect_unix(SOCKET) as exit_code:
        await output.send(_request("POST", f"/containers/{container}/attach?stream=1&stdout=1", b"", upgrade=True))
        await output.receive()
        await exit_code.send(_request("POST", f"/containers/{container}/wait?condition=next-exit", b""))
        await exit_code.receive()
        await _ask("POST", f"/containers/{container}/start", b"")
        received = await _until_end(output)
        answer = await exit_code.receive()
    seconds = time.perf_counter() - began
    assert b"hi\n" in received, received
    assert b'"StatusCode":0' in answer, answer
    return seconds


def _request(method: str, path: str, body: bytes, *, upgrade: bool = False) -> bytes:
    more = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
    head = f"{method} /v1.41{path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _ask(method: str, path: str, body: bytes) -> bytes:
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=method, target=path, headers=[("Host", "docker"), ("Content-Length", "0")]))
    reader.send(h11.EndOfMessage())
    async with await anyio.connect_unix(SOCKET) as connection:
        await connection.send(_request(method, path, body))
        answer = b""
        while True:
            event: Any = reader.next_event()
            if event is h11.NEED_DATA:
                reader.receive_data(await connection.receive())
            elif isinstance(event, h11.Data):
                answer += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return answer


async def _until_end(stream: anyio.abc.ByteStream) -> bytes:
    received = b""
    try:
        while True:
            received += await stream.receive()
    except anyio.EndOfStream:
        return received
