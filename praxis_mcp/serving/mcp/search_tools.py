"""The tools ``find_tool`` and ``call_tool``, where there are too many to list: a client is shown a few tools, finds the
others by words, and calls what it has found. A call is one of the tool that it names, in every respect."""

from __future__ import annotations

import json
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from mcp_types import CallToolRequestParams, CallToolResult, Tool, ToolAnnotations

from praxis_mcp.contracts.problems import shape
from praxis_mcp.errors import ArgumentError
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.federation.upstreams import Entry
from praxis_mcp.serving.access import ANYONE, CALL_TOOL, FIND_TOOL, Caller
from praxis_mcp.serving.mcp.blocks import text_block
from praxis_mcp.serving.mcp.costs import Cost, costs_of
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.tools import ToolLister
from praxis_mcp.serving.toolsets import Toolsets, View
from praxis_mcp.settings.toolsets import ToolsetSettings
from praxis_mcp.support.logs import logger

if TYPE_CHECKING:
    from praxis_mcp.serving.tool_index import ToolIndex

ALWAYS_LOAD: Mapping[str, Any] = {"anthropic/alwaysLoad": True}
"""In ``_meta`` of a tool: Claude Code and Anthropic's Agent SDK, which defer tools of their own accord, load it at
once. Other clients pass it over."""
MOST_RESULTS = 20
_MOST_QUESTION = 1000
_SHORT = 200
"""Characters that are left of the description of a tool whose definition does not fit into an answer."""


def _schema(properties: dict[str, Any], required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [required], "additionalProperties": False}


TOOLS: Mapping[str, Tool] = {
    FIND_TOOL: Tool(
        name=FIND_TOOL,
        title="Find a tool",
        description="Finds tools of this server, most of which are not listed: name, description and input schema of "
        f"those that fit best. Call one by {CALL_TOOL}. Ask in a few words for what is to be done with what, such as "
        '"resize image", before you conclude that there is no tool for it.',
        input_schema=_schema(
            {
                "query": {
                    "type": "string",
                    "description": "What is to be done, or a tool's name.",
                    "maxLength": _MOST_QUESTION,
                },
                "limit": {
                    "type": "integer",
                    "description": "How many tools at most.",
                    "minimum": 1,
                    "maximum": MOST_RESULTS,
                },
            },
            "query",
        ),
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
        _meta=dict(ALWAYS_LOAD),  # pyright: ignore[reportCallIssue]
    ),
    CALL_TOOL: Tool(
        name=CALL_TOOL,
        title="Call a tool",
        description=f"Calls a tool that {FIND_TOOL} has found, and returns its result.",
        input_schema=_schema(
            {
                "name": {"type": "string", "description": "The tool's name."},
                "arguments": {"type": "object", "description": "What its input schema asks for."},
            },
            "name",
        ),
        _meta=dict(ALWAYS_LOAD),  # pyright: ignore[reportCallIssue]
    ),
}


class SearchTools:
    """Decides for whom tools are searched, and finds them.

    Args:
        toolbox: has the tools.
        lister: makes the definitions that clients get.
    """

    def __init__(self, toolbox: Toolbox, lister: ToolLister) -> None:
        self._toolbox = toolbox
        self._lister = lister
        self._settings = toolbox.settings.search
        self._is_configured = self._settings.above is not None or any(
            toolset.search for toolset in toolbox.settings.toolsets.values()
        )
        self._merged: tuple[Sequence[Entry | Tool], Sequence[Entry | Tool]] | None = None
        self._clash = ""
        self._has_index: bool | None = None
        self._index: tuple[Sequence[Entry], ToolIndex] | None = None
        self._indexing = anyio.Lock()

    def merged_with(self, entries: Sequence[Entry | Tool]) -> Sequence[Entry | Tool]:
        """These tools among others, sorted by name; the same object for the same entries."""
        if not self._is_configured:
            return entries
        if self._merged is None or self._merged[0] is not entries:
            merged = list(entries)
            self._clash = next((entry.name for entry in entries if entry.name in TOOLS), "")
            if self._clash:
                logger.error("all tools are listed: {} is the name of one, so that none can be searched", self._clash)
            else:
                for tool in TOOLS.values():
                    insort(merged, tool, key=lambda entry: entry.name)
            self._merged = entries, merged
        return self._merged[1]

    def serves(self, caller: Caller) -> bool:
        """Whether that caller may search, however many tools there are now."""
        return self._is_configured and not self._clash and self._wanted(caller) is not False and self._is_possible()

    def filter_for(self, entries: Sequence[Entry | Tool], caller: Caller) -> tuple[Callable[[str], bool], bool] | None:
        """Which of these tools, the search's own among them, that caller is shown, and whether the rest is searched;
        None where there is nothing to search."""
        if not self._is_configured or self._clash:
            return None
        own = [entry.name for entry in entries if entry.name not in TOOLS and caller.may_call(entry.name)]
        wanted = self._wanted(caller)
        if wanted is None:
            wanted = self._settings.above is not None and len(own) > self._settings.above
        if not wanted or not self._is_possible():
            return frozenset(own).__contains__, False
        globs = (*self._settings.core, *(glob for toolset in _sets(caller) for glob in toolset.core))
        core = {name for name in own if any(fnmatchcase(name, glob) for glob in globs)}
        return (core | TOOLS.keys()).__contains__, True

    async def find(self, arguments: Mapping[str, Any], caller: Caller, dialect: Dialect) -> CallToolResult:
        """Answer ``find_tool``.

        Raises:
            ArgumentError: the arguments do not fit.
        """
        question, limit = self._question(arguments)
        await self._toolbox.upstreams.ready()
        entries = self._toolbox.upstreams.merged_with(self._toolbox.catalog.entries())
        async with self._indexing:
            if self._index is None or self._index[0] is not entries:
                self._index = entries, await anyio.to_thread.run_sync(_make_index, entries)
            names = await anyio.to_thread.run_sync(self._index[1].find, question, limit, caller.may_call)
        known = {entry.name: entry for entry in entries}
        tools = [tool for name in names if (tool := self._lister.tool(known[name], dialect)) is not None]
        if not tools:
            text = "No tool fits. Name the thing and what is to be done with it, in other words."
            return CallToolResult(content=[text_block(text)])
        return CallToolResult(content=[text_block(_answer(tools, self._settings.max_bytes))])

    @staticmethod
    def called(params: CallToolRequestParams) -> CallToolRequestParams:
        """The call that ``call_tool`` asks for.

        Raises:
            ArgumentError: the arguments do not fit.
        """
        given = params.arguments or {}
        _check_names(CALL_TOOL, given)
        name, arguments = given.get("name"), given.get("arguments") or {}
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"name is missing: the name of a tool, as {FIND_TOOL} gives it.")
        if not isinstance(arguments, Mapping):
            raise ArgumentError(f"arguments is an object, as the tool's input schema has it, not {shape(arguments)}.")
        return params.model_copy(update={"name": name, "arguments": dict(arguments)})

    def _question(self, arguments: Mapping[str, Any]) -> tuple[str, int]:
        _check_names(FIND_TOOL, arguments)
        question, limit = arguments.get("query"), arguments.get("limit", self._settings.results)
        if not isinstance(question, str) or not question.strip():
            raise ArgumentError("query is missing: a few words for what is to be done.")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_RESULTS:
            raise ArgumentError(f"limit is a whole number from 1 to {MOST_RESULTS}.")
        return question[:_MOST_QUESTION], limit

    def _wanted(self, caller: Caller) -> bool | None:
        """Whether the caller's toolsets ask for it; None leaves it to the number of tools."""
        wishes = [toolset.search for toolset in _sets(caller)]
        if True in wishes:
            return True
        if self._settings.above is None or (wishes and None not in wishes):
            return False
        return None

    def _is_possible(self) -> bool:
        if self._has_index is None:
            from praxis_mcp.serving.tool_index import has_fts5

            self._has_index = has_fts5()
            if not self._has_index:
                logger.error("all tools are listed: this Python's SQLite was built without FTS5, which searches them")
        return self._has_index


def costs_of_shown(toolbox: Toolbox, entries: Sequence[Entry]) -> dict[str, Cost] | None:
    """What each tool costs that a client without a token is shown where these are searched, by its name, the search's
    own among them; None where all are listed."""
    known = {entry.name: entry for entry in entries}
    search = SearchTools(toolbox, ToolLister(toolbox.settings))
    merged = search.merged_with(entries)
    is_shown = search.filter_for(merged, replace(ANYONE, view=Toolsets(toolbox.settings, known.get).view()))
    if is_shown is None or not is_shown[1]:
        return None
    return costs_of([entry for entry in merged if is_shown[0](entry.name)], toolbox.settings)


def always_loaded(tools: Sequence[Tool]) -> list[Tool]:
    """Tools that clients which defer others are asked to load at once."""
    return [tool.model_copy(update={"meta": {**(tool.meta or {}), **ALWAYS_LOAD}}) for tool in tools]


def _sets(caller: Caller) -> tuple[ToolsetSettings, ...]:
    return caller.view.sets if isinstance(caller.view, View) else ()


def _check_names(tool: str, arguments: Mapping[str, Any]) -> None:
    known = TOOLS[tool].input_schema["properties"]
    if unknown := sorted(set(arguments) - set(known)):
        raise ArgumentError(f"{tool} has no parameter {unknown[0][:64]}; it has {', '.join(known)}.")


def _make_index(entries: Sequence[Entry]) -> ToolIndex:
    from praxis_mcp.serving.tool_index import ToolIndex

    return ToolIndex(entries)


def _answer(tools: Sequence[Tool], most: int) -> str:
    """As many definitions as fit into so many bytes, the best in any case; of the others name and beginning."""
    whole: list[dict[str, Any]] = []
    more: list[dict[str, str]] = []
    used = 0
    for tool in tools:
        definition = {"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema}
        size = len(_json(definition).encode())
        if whole and used + size > most:
            more.append({"name": tool.name, "description": (tool.description or "")[:_SHORT]})
        else:
            whole.append(definition)
            used += size
    rest = {"more": more, "note": f"Ask {FIND_TOOL} for one of these by its name."} if more else {}
    return _json({"tools": whole, **rest})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
