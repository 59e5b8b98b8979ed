"""Catalog entries → what ``tools/list`` shows, page by page, for the client's protocol revision.

Without the SDK's server, whose import takes longer than all else here: the command ``list`` asks what a tool weighs.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcp_types import ListToolsResult, Tool, ToolAnnotations
from mcp_types.methods import validate_server_result
from pydantic import ValidationError

from praxis_mcp.contracts.catalog.catalog import CatalogEntry, Traits
from praxis_mcp.contracts.values import Network
from praxis_mcp.contracts.vocabulary import with_visible_texts
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.federation.upstreams import Entry
from praxis_mcp.serving.access import ANYONE, Caller
from praxis_mcp.serving.mcp.dialect import Dialect, schema_for
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.text import printable, visible
from praxis_mcp.upstreams.loops import VIA_KEY, server_id


class BadCursor(Exception):
    """A cursor that this server did not give out."""


class ToolLister:
    """Makes pages of tools; each tool is made once for each era, and checked, because one malformed tool makes an
    older client drop the whole list."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._entries: Sequence[Entry | Tool] = ()
        self._names: list[str] = []
        self._made: dict[tuple[str, bool], tuple[Entry | Tool, Tool | None]] = {}

    def page(
        self,
        entries: Sequence[Entry | Tool],
        cursor: str | None,
        dialect: Dialect,
        caller: Caller = ANYONE,
        is_shown: Callable[[str], bool] | None = None,
    ) -> ListToolsResult:
        """One page of the tools that a caller may see, sorted by name.

        A cursor names the last tool of the page before, so that a change of the catalog between two pages neither
        repeats nor skips the others. `is_shown` decides in the caller's place, where it is given.

        Raises:
            BadCursor: the cursor is not one of ours.
        """
        if entries is not self._entries:
            self._entries, self._names = entries, [entry.name for entry in entries]
            self._forget(set(self._names))
        names = self._names
        if is_shown is not None or not caller.calls_all_tools:
            shows = is_shown or caller.may_call
            entries = [entry for entry in entries if shows(entry.name)]
            names = [entry.name for entry in entries]
        start = bisect_right(names, _read_cursor(cursor)) if cursor is not None else 0
        end = start + self._settings.server.page_size
        tools = [tool for entry in entries[start:end] if (tool := self.tool(entry, dialect)) is not None]
        following = _write_cursor(names[end - 1]) if end < len(names) else None
        return ListToolsResult(tools=tools, next_cursor=following)

    def tool(self, entry: Entry | Tool, dialect: Dialect) -> Tool | None:
        """A tool as it is listed; None where clients would refuse it."""
        known = self._made.get((entry.name, dialect.modern))
        if known is not None and known[0] is entry:
            return known[1]
        tool = self._valid_tool(entry, dialect)
        self._made[entry.name, dialect.modern] = (entry, tool)
        return tool

    def _valid_tool(self, entry: Entry | Tool, dialect: Dialect) -> Tool | None:
        match entry:
            case Tool():
                tool = entry
            case RemoteTool():
                tool = _relayed_tool(entry, dialect)
            case _:
                tool = self._contract_tool(entry, dialect)
        shown = tool.model_dump(by_alias=True, mode="json", exclude_none=True)
        try:
            validate_server_result("tools/list", dialect.version, {**_EMPTY_LIST, "tools": [shown]})
        except ValidationError as exc:
            places = ", ".join(".".join(str(part) for part in error["loc"]) for error in exc.errors()[:3])
            logger.error("{} is not listed: clients of {} would refuse it ({})", entry.name, dialect.version, places)
            return None
        return tool

    def _contract_tool(self, entry: CatalogEntry, dialect: Dialect) -> Tool:
        output_schema = entry.output_schema
        if self._settings.tasks.tools and entry.traits.execution == "task":
            output_schema = None  # clients that do not speak tasks are answered that one has begun, in words
        return Tool(
            name=entry.name,
            title=printable(entry.title) if entry.title else entry.title,
            description=visible(entry.description or entry.title or f"Runs {entry.name}."),
            input_schema=with_visible_texts(entry.input_schema),
            output_schema=schema_for(with_visible_texts(output_schema) if output_schema else None, dialect),
            annotations=tool_annotations(entry, self._settings),
        )

    def _forget(self, names: set[str]) -> None:
        for key in [key for key in self._made if key[0] not in names]:
            del self._made[key]


_EMPTY_LIST: Mapping[str, Any] = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public"}


def _relayed_tool(tool: RemoteTool, dialect: Dialect) -> Tool:
    """The tool as this client sees it."""
    hints = {"title": tool.title, **tool.annotations} if tool.annotations else None
    return Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description or tool.title or f"{tool.remote_name}, a tool of {tool.upstream}.",
        input_schema=tool.input_schema,
        output_schema=schema_for(tool.output_schema, dialect),
        annotations=ToolAnnotations.model_validate(hints, by_name=False) if hints else None,
    )


def with_origin(tools: Sequence[Tool], toolbox: Toolbox) -> list[Tool]:
    """The tools for another server that republishes them: each says which servers it came through, so that one that
    comes back to where it started is known."""
    marked: list[Tool] = []
    for tool in tools:
        remote = toolbox.upstreams.served(tool.name)
        via = [server_id(), *(remote.via if remote is not None else ())]
        marked.append(tool.model_copy(update={"meta": {**(tool.meta or {}), VIA_KEY: via}}))
    return marked


def tool_annotations(entry: CatalogEntry, settings: Settings) -> ToolAnnotations | None:
    """What a contract says of its tool, completed by what its sandbox proves; None where nothing is known."""
    known = {**_proven(entry.traits, settings), **entry.annotations.model_dump(exclude_none=True)}
    if not known:
        return None
    return ToolAnnotations(
        read_only_hint=known.get("read_only"),
        destructive_hint=known.get("destructive"),
        idempotent_hint=known.get("idempotent"),
        open_world_hint=known.get("open_world"),
    )


def _proven(traits: Traits, settings: Settings) -> dict[str, bool]:
    proven: dict[str, bool] = {}
    if traits.pure:
        proven["idempotent"] = True
    # On the host there may be no sandbox to prove anything, and privileges reach around one.
    is_boxed = traits.image is not None or (traits.engine == "local" and settings.engines.local.sandbox == "require")
    if not is_boxed or traits.privileged or traits.network != Network.NONE:
        return proven
    proven["open_world"] = False
    if not traits.writable_mounts:
        proven |= {"read_only": True, "destructive": False}
    return proven


def _write_cursor(name: str) -> str:
    return base64.urlsafe_b64encode(f"after:{name}".encode()).decode("ascii").rstrip("=")


def _read_cursor(cursor: str) -> str:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as exc:
        raise BadCursor from exc
    if not text.startswith("after:"):
        raise BadCursor
    return text.removeprefix("after:")
