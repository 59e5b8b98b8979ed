"""Clients of both eras hear that the tools have changed."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest, ToolListChangedNotification

from praxis_mcp.serving.mcp.changes import NOTIFY_TIMEOUT
from tests.kit.contracts import write_tool
from tests.kit.until import until
from tests.serving.clients import (
    LIMIT,
    LINES,
    Era,
    Transport,
    connect,
    memory_client,
    open_server,
    settings_for,
    text_of,
)

pytestmark = pytest.mark.anyio


class Changes:
    """A client's message handler that counts notifications about the list of tools."""

    def __init__(self) -> None:
        self.heard = anyio.Event()

    async def __call__(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self.heard.set()


@pytest.mark.parametrize(("transport", "era"), LINES)
async def test_a_contract_that_appears_is_announced_listed_and_can_be_called(
    transport: Transport, era: Era, tmp_path: Path
) -> None:
    write_tool(tmp_path, "first", ["echo", "one"])
    changes = Changes()
    async with connect(transport, era, tmp_path, message_handler=changes) as client:
        with anyio.fail_after(LIMIT):
            assert [tool.name for tool in (await client.list_tools()).tools] == ["first"]
            if era == "modern":
                async with client.listen(tools_list_changed=True) as subscription:
                    write_tool(tmp_path, "second", ["echo", "two"])
                    await anext(aiter(subscription))
            else:
                write_tool(tmp_path, "second", ["echo", "two"])
                await changes.heard.wait()
            assert [tool.name for tool in (await client.list_tools()).tools] == ["first", "second"]
            assert text_of(await client.call_tool("second", {})) == "two\n"


async def test_a_client_that_left_is_forgotten(tmp_path: Path) -> None:
    async with open_server(settings_for(tmp_path, reload=False)) as (_, server):
        for _ in range(3):
            async with memory_client(server, "legacy") as client, memory_client(server, "legacy"):
                await client.list_tools()
                await until(lambda: server.legacy_sessions == 2)
            assert server.legacy_sessions == 0


async def test_a_client_that_reads_nothing_keeps_no_one_else_from_hearing(tmp_path: Path) -> None:
    hears = Changes()
    async with (
        open_server(settings_for(tmp_path)) as (_, server),
        create_client_server_memory_streams() as ((stuck_in, stuck_out), server_streams),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(server.serve, *server_streams)
        greeting = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "stuck", "version": ""}}
        hello = JSONRPCRequest(jsonrpc="2.0", id=1, method="initialize", params=greeting)
        with anyio.fail_after(LIMIT):
            await stuck_out.send(SessionMessage(hello))
            await stuck_in.receive()
            await stuck_out.send(SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="notifications/initialized")))
        async with memory_client(server, "legacy", message_handler=hears) as client:
            for name in ("one", "two", "three"):
                with anyio.fail_after(NOTIFY_TIMEOUT - 1):
                    await client.list_tools()
                    write_tool(tmp_path, name, ["true"])
                    await hears.heard.wait()
                    hears.heard = anyio.Event()
        tasks.cancel_scope.cancel()


class ConfigMapVolume:
    """A directory as the kubelet lays out a ConfigMap: links to files in ``..data``, a link that is replaced at once
    (kubernetes/pkg/volume/util/atomic_writer.go)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0

    def put(self, *names: str) -> None:
        """Have these tools in it, and no others."""
        self._number += 1
        stamp = f"..2026_11_28_{self._number}"
        for name in names:
            write_tool(self._directory / stamp, name, ["echo", f"{name} of {self._number}"])
        (self._directory / "..data_tmp").symlink_to(stamp)
        (self._directory / "..data_tmp").rename(self._directory / "..data")
        wanted = {f"{name}.contract.json" for name in names}
        for file in wanted:
            if not (self._directory / file).is_symlink():
                (self._directory / file).symlink_to(f"..data/{file}")
        for link in self._directory.iterdir():
            if not link.name.startswith("..") and link.name not in wanted:
                link.unlink()


async def test_tools_of_a_config_map_change_with_it(tmp_path: Path) -> None:
    volume = ConfigMapVolume(tmp_path)
    volume.put("first", "second")
    async with connect("http", "modern", tmp_path) as client:

        async def says(name: str) -> str:
            return text_of(await client.call_tool(name, {}))

        with anyio.fail_after(LIMIT):
            assert [tool.name for tool in (await client.list_tools()).tools] == ["first", "second"]
            assert await says("first") == "first of 1\n"
            async with client.listen(tools_list_changed=True) as subscription:
                volume.put("first", "third")
                await anext(aiter(subscription))

            async def names() -> bool:
                listed = (await client.list_tools()).tools
                return [tool.name for tool in listed] == ["first", "third"] and await says("first") == "first of 2\n"

            await until(names, every=0.2)
