"""A client that begins anew, still naming the session that it had."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.clients import LIMIT
from tests.serving.credentials import ECHO_ONLY, Issuer, auth_settings
from tests.serving.http_server import ACCEPT, http_client, initialize_body, running_http

pytestmark = pytest.mark.anyio

STALE = {**ACCEPT, "Mcp-Session-Id": "0" * 32}
PING = {"jsonrpc": "2.0", "id": 2, "method": "ping"}


async def test_initialize_with_the_id_of_a_lost_session_begins_a_new_one(sample_directory: Path) -> None:
    async with running_http(sample_directory, "--http") as server, http_client() as client:
        opened = await client.post(server.mcp, json=initialize_body(), headers=STALE)
        assert opened.status_code == 200
        session = opened.headers["mcp-session-id"]
        assert session != STALE["Mcp-Session-Id"]
        assert "initialize" not in opened.text or '"error"' not in opened.text
        again = await client.post(server.mcp, json=PING, headers={**ACCEPT, "Mcp-Session-Id": session})
        assert again.status_code == 200
        second = await client.post(server.mcp, json=initialize_body(), headers={**ACCEPT, "Mcp-Session-Id": session})
        assert second.headers["mcp-session-id"] not in (session, STALE["Mcp-Session-Id"]), "a session of its own"
        again = await client.post(server.mcp, json=PING, headers={**ACCEPT, "Mcp-Session-Id": session})
        assert again.status_code == 200, "and the first one goes on"


async def test_anything_else_with_the_id_of_a_lost_session_is_answered_that_it_is_lost(sample_directory: Path) -> None:
    async with running_http(sample_directory, "--http") as server, http_client() as client:
        for body in (PING, {**PING, "method": "tools/call", "params": {"name": "initialize", "a": '"initialize"'}}):
            assert (await client.post(server.mcp, json=body, headers=STALE)).status_code == 404
        for odd in (b'{"method": "initialize"', b"[" * 100_000 + b'"initialize"', b'["initialize"]'):
            headers = {**STALE, "Content-Type": "application/json"}
            assert (await client.post(server.mcp, content=odd, headers=headers, timeout=LIMIT)).status_code == 404


async def test_a_stale_id_opens_no_more_sessions_than_one_caller_may_have(
    sample_directory: Path, tmp_path: Path
) -> None:
    bounds = {"max_sessions": 36, "auth": auth_settings(Issuer(), tmp_path)}
    async with running_http(sample_directory, "--http", http=bounds) as server, http_client(ECHO_ONLY) as greedy:
        answers = [await greedy.post(server.mcp, json=initialize_body(), headers=STALE) for _ in range(10)]
        assert [answer.status_code for answer in answers] == [*[200] * 9, 429]
