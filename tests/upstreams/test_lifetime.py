"""Connections to other servers in the long run: back-off, idleness, hundreds of calls, tokens from OAuth."""

import gc
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.upstreams.connection import LONGEST_DELAY, THRESHOLD, CircuitBreaker
from praxis_mcp.upstreams.spec import OAuthClient, UpstreamSpec
from praxis_mcp.upstreams.transports.kept_connections import KeptConnections
from praxis_mcp.upstreams.upstream import UpstreamPool
from tests.kit.raw_upstream import served
from tests.kit.until import until
from tests.kit.upstreams import ROOT, TRANSPORTS, upstream_at, words

pytestmark = pytest.mark.anyio

LIMIT = 60.0


@pytest.fixture
async def pool(anyio_backend: str) -> AsyncIterator[UpstreamPool]:
    pool = UpstreamPool()
    try:
        yield pool
    finally:
        await pool.close()


def spec(address: Any, **fields: Any) -> UpstreamSpec:
    address = tuple(address) if isinstance(address, list) else address
    return UpstreamSpec("the server", address, directory=ROOT, **fields)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock, failures: int) -> CircuitBreaker:
    breaker = CircuitBreaker("x", clock=clock, chance=lambda: 0.0)
    for _ in range(failures):
        breaker.record_failure("it is down")
    return breaker


def test_the_first_failure_costs_no_wait_and_further_ones_wait_longer_and_longer() -> None:
    clock = Clock()
    waits = [broken(clock, failures).admit() for failures in range(THRESHOLD)]
    assert waits == [0, 0, 0.25, 0.5]


def test_an_open_circuit_refuses_at_once_and_lets_one_call_try_when_it_is_time() -> None:
    clock = Clock()
    breaker = broken(clock, THRESHOLD)
    with pytest.raises(EngineUnavailable, match="without trying"):
        breaker.admit()
    clock.now += 1.0
    assert breaker.admit() == 0
    with pytest.raises(EngineUnavailable, match="tried now"):
        breaker.admit()
    breaker.record_failure("still down")
    with pytest.raises(EngineUnavailable, match="still down"):
        breaker.admit()
    clock.now += LONGEST_DELAY
    breaker.admit()
    breaker.record_success()
    assert (breaker.admit(), breaker.is_open) == (0, False)


def test_delays_are_capped_and_shortened_by_chance() -> None:
    clock = Clock()
    breaker = CircuitBreaker("x", clock=clock, chance=lambda: 1.0)
    for _ in range(50):
        breaker.record_failure("down")
    clock.now += LONGEST_DELAY / 2
    assert breaker.admit() == 0


async def test_an_idle_server_is_ended_and_started_again_by_the_next_call(pool: UpstreamPool) -> None:
    upstream = pool.get(spec(words("stdio"), idle_timeout=0.2))

    async def pid() -> int:
        with anyio.fail_after(LIMIT):
            answer = await upstream.call("about", {}, timeout=60)
        return json.loads(answer["content"][0]["text"])["pid"]

    first = await pid()
    await until(lambda: not Path(f"/proc/{first}").exists())
    assert await pid() != first


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_hundreds_of_calls_leave_nothing_behind(pool: UpstreamPool, kind: str, tmp_path: Path) -> None:
    with upstream_at(kind, "modern", tmp_path) as place:
        upstream = pool.get(spec(place.address))

        async def calls(number: int) -> None:
            for _ in range(number):
                await upstream.call("echo", {"text": "x" * 1000}, timeout=60)

        async def burst(number: int) -> None:
            with anyio.fail_after(LIMIT):
                async with anyio.create_task_group() as tasks:
                    for _ in range(8):
                        tasks.start_soon(calls, number // 8)

        def held() -> tuple[int, int]:
            gc.collect()
            return len(gc.get_objects()), len(os.listdir("/proc/self/fd"))

        await burst(80)
        objects, files = held()
        await burst(800)

        def is_like_before() -> bool:
            objects_after, files_after = held()
            return objects_after - objects < 400 and files_after <= files + 1

        await until(is_like_before, every=0.2, what="one object a call would be 800")


async def test_cancelled_and_late_calls_leave_nothing_behind(pool: UpstreamPool, tmp_path: Path) -> None:
    with upstream_at("stdio", "modern", tmp_path) as place:
        upstream = pool.get(spec(place.address))

        async def give_up(number: int) -> None:
            for _ in range(number):
                with anyio.move_on_after(0.005):
                    await upstream.call("slow", {"seconds": 0.02}, timeout=60)

        await upstream.call("echo", {"text": "x"}, timeout=60)
        with anyio.fail_after(LIMIT):
            await give_up(20)
            gc.collect()
            before = len(gc.get_objects())
            await give_up(150)
        await upstream.call("echo", {"text": "x"}, timeout=60)

        def grown() -> int:
            gc.collect()
            return len(gc.get_objects()) - before

        # Their answers may still be on the way.
        await until(lambda: grown() < 120, every=0.2, what="one object a call would be 150")


@asynccontextmanager
async def authorization_server(seen: list[dict[str, str]]) -> AsyncIterator[str]:
    """An OAuth server that gives out one token, and an MCP endpoint that wants it, and then tells it."""
    import uvicorn

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def resource(request: Request) -> Response:
        return JSONResponse({"resource": f"{origin}/mcp", "authorization_servers": [origin]})

    async def metadata(request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": origin,
                "authorization_endpoint": f"{origin}/authorize",
                "token_endpoint": f"{origin}/token",
                "response_types_supported": ["code"],
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
        )

    async def token(request: Request) -> Response:
        form = {key: str(value) for key, value in (await request.form()).items()}
        seen.append({**form, "authorization": request.headers.get("authorization", "")})
        return JSONResponse({"access_token": "the-token", "token_type": "Bearer", "expires_in": 600})

    async def mcp(request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer the-token":
            place = f"{origin}/.well-known/oauth-protected-resource/mcp"
            return Response(status_code=401, headers={"WWW-Authenticate": f'Bearer resource_metadata="{place}"'})
        seen.append({"reached": "mcp"})
        error = {"code": -32600, "message": "the-token is good for nothing"}
        return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status_code=400)

    routes = [
        Route("/.well-known/oauth-protected-resource/mcp", resource),
        Route("/.well-known/oauth-authorization-server", metadata),
        Route("/token", token, methods=["POST"]),
        Route("/mcp", mcp, methods=["POST", "GET"]),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error", timeout_keep_alive=3600))
    listener.listen(16)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        yield origin
        server.should_exit = True


async def test_a_connection_is_left_before_common_servers_close_it_under_a_request() -> None:
    clock = Clock()
    ports: list[int] = []

    async def note(request: Request) -> Response:
        assert request.client is not None
        ports.append(request.client.port)
        return Response()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with (
            served(Starlette(routes=[Route("/", note)]), listener),
            httpx2.AsyncClient(transport=KeptConnections(clock)) as client,
        ):
            for idle in (0.0, 3.5, 4.5):  # uvicorn and Node close at 5.0
                clock.now += idle
                with anyio.fail_after(LIMIT):
                    await client.get(url)
    first, soon, late = ports
    assert first == soon != late


async def test_a_token_is_had_for_client_credentials_and_masked_like_other_secrets(pool: UpstreamPool) -> None:
    seen: list[dict[str, str]] = []
    async with authorization_server(seen) as origin:
        oauth = OAuthClient("me", "my-secret", origin, "tools:read")
        with anyio.fail_after(LIMIT), pytest.raises(EngineUnavailable, match=r"\*\*\* is good for nothing"):
            await pool.get(spec(f"{origin}/mcp", oauth=oauth)).call("echo", {}, timeout=60)
        await pool.close()
    assert seen[0]["grant_type"] == "client_credentials"
    assert seen[0]["authorization"].startswith("Basic ")
    assert {"reached": "mcp"} in seen


async def test_credentials_are_given_to_no_other_authorization_server(pool: UpstreamPool) -> None:
    seen: list[dict[str, str]] = []
    async with authorization_server(seen) as origin:
        oauth = OAuthClient("me", "my-secret", "https://login.example.com", None)
        with anyio.fail_after(LIMIT), pytest.raises(EngineUnavailable, match="no token could be obtained"):
            await pool.get(spec(f"{origin}/mcp", oauth=oauth)).call("echo", {}, timeout=60)
        await pool.close()
    assert seen == []
