"""Clients that do not speak the tasks extension, over every transport and in both eras."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND, MISSING_REQUIRED_CLIENT_CAPABILITY

from tests.kit.tasks import TASKS, request
from tests.serving.clients import LINES, Peer
from tests.serving.tasks.tools import connect_keeping

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=LINES, ids=lambda pair: "-".join(pair))
async def plain(request: pytest.FixtureRequest, anyio_backend: str, tools: Path) -> AsyncIterator[Peer]:
    """One that does not speak it, over every transport and in both eras."""
    transport, era = request.param
    async with connect_keeping(transport, era, tools) as connected:
        yield Peer(connected, transport, era)


async def test_a_client_without_the_extension_gets_the_result_itself(plain: Peer, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    for tool in ("waits", "either"):
        seen: list[str | None] = []

        async def heard(progress: float, total: float | None, message: str | None, seen: Any = seen) -> None:
            seen.append(message)

        answer = await plain.client.call_tool(tool, {"gate": str(tmp_path / "gate")}, progress_callback=heard)
        assert answer.content[0].text == "through\n"  # pyright: ignore[reportAttributeAccessIssue]
    if plain.era == "legacy":
        assert plain.client.server_capabilities.extensions is None


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel"])
async def test_a_client_without_the_extension_cannot_use_its_methods(plain: Peer, method: str) -> None:
    with pytest.raises(MCPError) as caught:
        await request(plain.client, method, taskId="0" * 32)
    if plain.era == "legacy":
        assert caught.value.error.code == METHOD_NOT_FOUND
        return
    assert caught.value.error.code == MISSING_REQUIRED_CLIENT_CAPABILITY
    assert json.loads(json.dumps(caught.value.error.data)) == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
