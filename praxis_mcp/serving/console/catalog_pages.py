"""Pages about tools: the catalog with what is wrong in it, and one tool with what it may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from praxis_mcp.contracts.catalog.catalog import CatalogEntry
from praxis_mcp.errors import PraxisError, UnknownToolError
from praxis_mcp.execution.facts import FactLine, facts_of, in_words, upstream_facts_of
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.federation.upstreams import Entry
from praxis_mcp.serving.console.forms import ARGUMENT, fields_of, parameters_of
from praxis_mcp.serving.console.gate import CONSOLE_PATH, session_of
from praxis_mcp.serving.console.sessions import Viewer
from praxis_mcp.serving.console.ui import ToolboxPages

TOOLS_PATH = CONSOLE_PATH + "/tools"
TOOLS_ON_A_PAGE = 100
MAX_FINDINGS = 200
EXPLAIN_TIMEOUT = 10.0
"""Seconds that finding out what a call would do may take: engines are looked at for it."""
_UNKNOWN = "That cannot be found out now. The person who runs this server can see why."
_FOR_CALLERS = ("engine", "isolation", "image", "image_is_missing", "network", "limits", "artifacts", "demands")
"""Facts that show nothing of this machine. Paths, commands and variables are the owner's."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a tool, in words."""

    name: str
    kind: str
    is_required: bool
    description: str
    default: Any


class CatalogPages(ToolboxPages):
    """The routes about tools."""

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route(TOOLS_PATH, self.list_tools, methods=["GET"]),
            Route(TOOLS_PATH + "/{name:str}", self.show, methods=["GET"]),
        ]

    async def list_tools(self, request: Request) -> Response:
        """The tools that the viewer may call, by name."""
        viewer = session_of(request).viewer
        words, after = request.query_params.get("q", "")[:128], request.query_params.get("after", "")
        entries = [entry for entry in self._entries(viewer) if _fits(entry, words)]
        left = [entry for entry in entries if entry.name > after]
        findings = self._toolbox.catalog.diagnostics if viewer.is_owner else ()
        return self._ui.page(
            request,
            "tools.html",
            is_loaded=self._toolbox.is_loaded,
            words=words,
            count=len(entries),
            tools=[(entry, abilities(entry)) for entry in left[:TOOLS_ON_A_PAGE]],
            following={"q": words, "after": left[TOOLS_ON_A_PAGE - 1].name} if len(left) > TOOLS_ON_A_PAGE else None,
            is_first=not after,
            findings=findings[:MAX_FINDINGS],
            more_findings=max(0, len(findings) - MAX_FINDINGS),
        )

    async def show(self, request: Request) -> Response:
        """One tool."""
        entry = self.find(session_of(request).viewer, request.path_params["name"])
        return await self.page_of(request, entry)

    async def page_of(
        self,
        request: Request,
        entry: Entry,
        given: Mapping[str, str] | None = None,
        refusal: str = "",
        *,
        status: int = 200,
    ) -> Response:
        """The page of a tool.

        Args:
            request: who asks.
            entry: the tool.
            given: what was written into its form.
            refusal: why that did not do.
            status: of the answer.
        """
        viewer = session_of(request).viewer
        facts, trouble = await self._facts(entry)
        if not viewer.is_owner:
            facts = [line for line in facts if line.fact in _FOR_CALLERS]
            trouble = trouble and _UNKNOWN  # it may name paths
        return self._ui.page(
            request,
            "tool.html",
            status,
            tool=entry,
            abilities=abilities(entry),
            source=str(entry.source) if viewer.is_owner and isinstance(entry, CatalogEntry) else "",
            findings=entry.diagnostics if viewer.is_owner and isinstance(entry, CatalogEntry) else (),
            parameters=parameters(entry.input_schema),
            fields=fields_of(entry.input_schema, given),
            argument=ARGUMENT,
            refusal=refusal,
            facts=[(name, list(lines)) for name, lines in groupby(facts, key=attrgetter("name"))],
            trouble=trouble,
        )

    def find(self, viewer: Viewer, name: str) -> Entry:
        """A tool that the viewer may call.

        Raises:
            UnknownToolError: there is none of that name.
        """
        entry = next((entry for entry in self._entries(viewer) if entry.name == name), None)
        if entry is None:
            raise UnknownToolError(f'There is no tool "{name[:128]}" for you here.')
        return entry

    def _entries(self, viewer: Viewer) -> Sequence[Entry]:
        entries = self._toolbox.upstreams.merged_with(self._toolbox.catalog.entries())
        if viewer.caller.calls_all_tools:
            return entries
        return [entry for entry in entries if viewer.caller.may_call(entry.name)]

    async def _facts(self, entry: Entry) -> tuple[list[FactLine], str]:
        """What a call would do; or why that cannot be found out."""
        pull = self._toolbox.settings.pull
        if isinstance(entry, RemoteTool):
            return [*in_words(upstream_facts_of(entry, self._toolbox), pull)], ""
        with anyio.move_on_after(EXPLAIN_TIMEOUT):
            try:
                return [*in_words(facts_of(await self._toolbox.runner.explain(entry.name, {})), pull)], ""
            except PraxisError as exc:
                return [], str(exc)
        return [], "The engines did not answer in time."


def abilities(entry: Entry) -> list[tuple[str, bool]]:
    """What a tool may do, in a few words, and whether each is more than a sandbox without a network allows."""
    if isinstance(entry, RemoteTool):
        return [(f"of {entry.upstream}", True)]
    traits = entry.traits
    found = [(traits.image or traits.engine, False)]
    if traits.network not in (None, "none"):
        found.append((f"network: {traits.network}", True))
    if traits.writable_mounts:
        found.append(("writes to this machine", True))
    if traits.privileged:
        found.append(("privileged", True))
    return found


def parameters(schema: Mapping[str, Any]) -> list[Parameter]:
    """The parameters of a tool."""
    found: list[Parameter] = []
    for name, part, is_required in parameters_of(schema):
        facts = part if isinstance(part, Mapping) else {}
        found.append(Parameter(name, _kind(part), is_required, str(facts.get("description", "")), facts.get("default")))
    return found


def _kind(part: Any) -> str:
    if not isinstance(part, Mapping):
        return "any"
    if isinstance(choices := part.get("enum"), list):
        return f"one of {', '.join(map(str, choices[:20]))}" + (" …" if len(choices) > 20 else "")
    kind = part.get("type", "any")
    return " or ".join(map(str, kind)) if isinstance(kind, list) else str(kind)


def _fits(entry: Entry, words: str) -> bool:
    text = f"{entry.name} {entry.title or ''} {entry.description or ''}".lower()
    return all(word in text for word in words.lower().split())
