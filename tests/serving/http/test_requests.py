"""One caller with a valid token takes a part of what a server can hold open, never all of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from praxis_mcp.serving.access import ANYONE, SCOPE_KEY, Caller
from praxis_mcp.serving.http.requests import CallerShares, standing_at
from praxis_mcp.settings.http import HttpSettings
from tests.serving.clients import LIMIT
from tests.serving.credentials import ALL, ECHO_ONLY, Issuer, auth_settings
from tests.serving.http_server import ACCEPT, http_client, initialize_body, running_http

pytestmark = pytest.mark.anyio


async def test_a_caller_with_its_share_of_streams_and_sessions_keeps_no_other_out(
    sample_directory: Path, tmp_path: Path
) -> None:
    bounds = {"max_streams": 36, "max_sessions": 36, "auth": auth_settings(Issuer(), tmp_path)}
    async with (
        running_http(sample_directory, http=bounds) as server,
        http_client(ECHO_ONLY) as greedy,
        http_client(ALL) as other,
    ):
        async with AsyncExitStack() as streams:
            for _ in range(9):
                opened = await streams.enter_async_context(greedy.stream("GET", server.sse))
                assert opened.status_code == 200
            with anyio.fail_after(LIMIT):  # a stream that is not refused never ends
                refused = await greedy.get(server.sse)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert "http.max_streams" in refused.text
            opened = await streams.enter_async_context(other.stream("GET", server.sse))
            assert opened.status_code == 200
        sessions = [await greedy.post(server.mcp, json=initialize_body(), headers=ACCEPT) for _ in range(10)]
        assert [answer.status_code for answer in sessions] == [*[200] * 9, 429]
        assert "http.max_sessions" in sessions[-1].text
        answer = await other.post(server.mcp, json=initialize_body(), headers=ACCEPT)
        assert answer.status_code == 200
        known = {"Mcp-Session-Id": sessions[0].headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
        assert (await greedy.delete(server.mcp, headers=known)).status_code == 200
        answer = await greedy.post(server.mcp, json=initialize_body(), headers=ACCEPT)
        assert answer.status_code == 200, "the place of a session that was ended is free"


class Answering:
    """An application that opens a session for each request without one, and ends none."""

    def __init__(self) -> None:
        self.opened = 0
        self.going_on: anyio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.going_on is not None:
            await self.going_on.wait()
        self.opened += 1
        headers = [(b"mcp-session-id", str(self.opened).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


class Server:
    now = 0.0

    def __init__(self, **settings: Any) -> None:
        self.app = Answering()
        found = HttpSettings.model_validate(settings)
        self.shares = CallerShares(
            self.app, found, stands=standing_at("/sse"), opens_sessions="/mcp", clock=lambda: self.now
        )

    async def ask(
        self, caller: Caller, path: str = "/mcp", headers: Mapping[bytes, bytes] = {}, method: str = "POST"
    ) -> int:
        statuses: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {"type": "http", "method": method, "path": path, "headers": list(headers.items()), SCOPE_KEY: caller}
        await self.shares(scope, receive, send)
        return statuses[0]


ANN, BEN = Caller("ann", frozenset()), Caller("ben", frozenset())


async def test_a_session_that_nobody_asked_anything_in_for_long_is_counted_no_more() -> None:
    server = Server(max_sessions=1, session_idle_timeout=100)
    assert [await server.ask(ANN), await server.ask(ANN)] == [200, 429]
    server.now += 60
    assert await server.ask(ANN, headers={b"mcp-session-id": b"1"}) == 200
    server.now += 60
    assert await server.ask(ANN) == 429, "it was used since"
    server.now += 60
    assert await server.ask(ANN) == 200


async def test_a_callers_requests_under_way_are_a_quarter_of_the_connections_at_most() -> None:
    server = Server(max_connections=40)
    server.app.going_on = anyio.Event()
    answers: list[int] = []

    async def ask(caller: Caller) -> None:
        answers.append(await server.ask(caller, "/messages/"))

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            for caller in (*[ANN] * 11, BEN, *[ANYONE] * 12):
                tasks.start_soon(ask, caller)
            await anyio.wait_all_tasks_blocked()
            assert answers == [429]
            server.app.going_on.set()
    assert sorted(answers) == [200] * 23 + [429]
    assert await server.ask(ANN, "/messages/") == 200


@pytest.mark.parametrize(("whole", "most"), [(1, 1), (7, 7), (20, 8), (40, 10)])
async def test_a_caller_has_eight_sessions_of_a_server_that_takes_few_or_all_where_there_are_fewer(
    whole: int, most: int
) -> None:
    server = Server(max_sessions=whole)
    assert [await server.ask(ANN) for _ in range(most + 1)] == [*[200] * most, 429]


async def test_a_standing_stream_keeps_its_client_from_no_request() -> None:
    server = Server(max_connections=1)
    server.app.going_on = anyio.Event()
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.ask, ANN, "/sse", {}, "GET")
            await anyio.wait_all_tasks_blocked()
            server.app.going_on = None
            assert await server.ask(ANN, "/messages/") == 200
            tasks.cancel_scope.cancel()


async def test_a_caller_whose_requests_are_all_under_way_can_end_a_session_of_theirs() -> None:
    server = Server(max_connections=1)
    assert await server.ask(ANN) == 200
    server.app.going_on = anyio.Event()
    session = {b"mcp-session-id": b"1"}
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.ask, ANN, "/mcp", session)
            await anyio.wait_all_tasks_blocked()
            server.app.going_on = None
            assert await server.ask(ANN, "/mcp", session) == 429
            assert await server.ask(ANN, "/mcp", {b"mcp-session-id": b"no such"}, "DELETE") == 429
            assert await server.ask(ANN, "/mcp", session, "DELETE") == 200
            tasks.cancel_scope.cancel()
