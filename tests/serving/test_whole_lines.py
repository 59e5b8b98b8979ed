"""Messages over HTTP reach clients whole that read events by lines."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from tests.serving.clients import LIMIT
from tests.serving.http_server import ACCEPT, http_client, initialize_body, running_http
from tests.serving.test_stdio import SPLITS_LINES

pytestmark = pytest.mark.anyio

CALL = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "echo", "arguments": {"text": SPLITS_LINES}},
}


async def test_an_event_of_streamable_http_is_one_line_for_every_reader_of_lines(sample_directory: Path) -> None:
    async with running_http(sample_directory, "--http") as server, http_client() as client:
        opened = await client.post(server.mcp, json=initialize_body(), headers=ACCEPT)
        session = {**ACCEPT, "Mcp-Session-Id": opened.headers["mcp-session-id"]}
        answer = await client.post(server.mcp, json=CALL, headers=session)
        assert said(answer.content.decode()) == SPLITS_LINES


async def test_an_event_of_http_sse_is_one_line_for_every_reader_of_lines(sample_directory: Path) -> None:
    async with (
        running_http(sample_directory, "--sse") as server,
        http_client() as client,
        client.stream("GET", server.sse) as stream,
    ):
        pieces = stream.aiter_bytes()
        text = ""
        with anyio.fail_after(LIMIT):
            while "endpoint" not in text or not text.endswith("\r\n\r\n"):
                text += (await anext(pieces)).decode()
            endpoint = next(line for line in text.splitlines() if "/messages/" in line).removeprefix("data: ")
            await client.post(server.base + endpoint, json=initialize_body())
            await client.post(server.base + endpoint, json=CALL)
            text = ""
            while '"id":2' not in text or not text.endswith("\r\n\r\n"):
                text += (await anext(pieces)).decode()
        assert said(text) == SPLITS_LINES


def said(events: str) -> str:
    """What the tool said, to a client that reads lines as widely as any does."""
    data = [line.removeprefix("data: ") for line in events.splitlines() if line.startswith("data: ")]
    answer = next(message for message in map(json.loads, data) if message.get("id") == 2)
    return answer["result"]["content"][0]["text"].rstrip("\n")
