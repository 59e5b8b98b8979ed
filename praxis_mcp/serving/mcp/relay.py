"""Calls of upstreams' tools and reads of their resources: what they answer is passed on to a client as it is, in a form
that it knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    BlobResourceContents,
    CallToolResult,
    ReadResourceResult,
    TextResourceContents,
)
from pydantic import TypeAdapter, ValidationError

from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.output import OutputListener
from praxis_mcp.errors import PraxisError, QueueFull, RemoteError
from praxis_mcp.execution.result_checks import OutputChecks
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.federation.addresses import PREFIX, address_there
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.serving.access import ANYONE, Caller
from praxis_mcp.serving.mcp.blocks import failed_content, not_finite_note, remote_blocks, text_block
from praxis_mcp.serving.mcp.dialect import Dialect, content_for
from praxis_mcp.serving.mcp.results import meta_of
from praxis_mcp.support.workers import compute, size_of_json

_CONTENTS: TypeAdapter[TextResourceContents | BlobResourceContents] = TypeAdapter(
    TextResourceContents | BlobResourceContents
)


class Relay:
    """Calls upstreams for clients."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox
        self._checks = OutputChecks()

    async def call(
        self,
        tool: RemoteTool,
        arguments: Mapping[str, Any],
        dialect: Dialect,
        on_output: OutputListener | None,
        caller: str = "",
        client: str = "",
    ) -> CallToolResult:
        """What the tool answered.

        Raises:
            MCPError: the upstream answered with this protocol error.
            ExecutionError: see `RelayRunner.call`.
        """
        relays = self._toolbox.relays
        try:
            result = await relays.call(tool, arguments, caller=caller, client=client, on_output=on_output)
        except RemoteError as exc:
            raise MCPError(exc.code, exc.message, exc.data) from exc
        problem = None
        if result.remote is not None and (result.success or result.remote.structured is not None):
            problem = await self._checks.misfit(tool, result.remote)
        size = size_of_json((result.remote.blocks, result.remote.structured)) if result.remote is not None else 0
        return await compute(_result, tool, result, problem, relays.max_text, dialect, size=size)

    async def read(self, uri: str, dialect: Dialect, caller: Caller = ANYONE) -> ReadResourceResult | None:
        """A resource that a result of a caller's own call linked; None where the address names none of an upstream.

        Raises:
            MCPError: it cannot be read; says why.
        """
        if not uri.startswith(PREFIX):
            return None
        name, there = address_there(uri)
        try:
            found = await self._toolbox.relays.read(name, there, caller=caller.name, may_call=caller.may_call)
        except RemoteError as exc:
            raise MCPError(exc.code, exc.message, exc.data) from exc
        except QueueFull as exc:
            raise MCPError(INTERNAL_ERROR, f"The server is busy; {uri[:200]} was not read. {exc}") from exc
        except PraxisError as exc:
            raise MCPError(
                dialect.resource_not_found, f"{uri[:200]} cannot be read. {exc}", {"uri": uri[:200]}
            ) from exc
        contents: list[TextResourceContents | BlobResourceContents] = []
        for item in found:
            try:
                contents.append(_CONTENTS.validate_python(item, by_name=False))
            except ValidationError as exc:
                raise MCPError(
                    dialect.resource_not_found, f"{name} gave contents that are not valid.", {"uri": uri[:200]}
                ) from exc
        return ReadResourceResult(contents=contents, ttl_ms=0)


def _result(
    tool: RemoteTool, result: ExecutionResult, problem: str | None, limit: int, dialect: Dialect
) -> CallToolResult:
    content = result.remote
    assert content is not None
    blocks, structured = remote_blocks(result, limit, dialect, links_are_here=True), None
    if not result.success:
        blocks = [
            *(blocks or [text_block(f"{tool.name} failed, and did not say why.")]),
            *not_finite_note(content.structured),
        ]
        structured = failed_content(content.structured, tool.output_schema, dialect, fits=problem is None)
    elif problem is not None:
        # A client would refuse the whole result, and its model would learn nothing of it.
        blocks = [text_block(f"{tool.name} ended well, but {problem}. What it answered follows."), *blocks]
    elif content.structured is not None:
        structured = content_for(content.structured, tool.output_schema, dialect)
    return CallToolResult(
        content=blocks,
        structured_content=structured,
        is_error=problem is not None or not result.success,
        _meta=meta_of(result),  # pyright: ignore[reportCallIssue]
    )
