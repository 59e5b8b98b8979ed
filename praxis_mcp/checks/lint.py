"""All checks over the contracts of some settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anyio.to_thread

from praxis_mcp.checks.between import check_between, check_costs
from praxis_mcp.checks.checked import read_tool
from praxis_mcp.checks.faces import check_face
from praxis_mcp.checks.running import check_running
from praxis_mcp.checks.schemas import check_schemas
from praxis_mcp.checks.table import CHECKS, LONGEST_READ_DESCRIPTION, MOST_TOKENS, MOST_TOOLS_IN_CLIENTS
from praxis_mcp.contracts.catalog.catalog import Catalog, CatalogEntry
from praxis_mcp.contracts.discovery import DefaultsFinder
from praxis_mcp.diagnostics import Diagnostic, Severity
from praxis_mcp.serving.mcp.costs import Cost, costs_of
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.text import unseen


@dataclass(frozen=True, slots=True)
class Linted:
    """What was found.

    Attributes:
        tools: how many were looked at.
        findings: sorted by file and line; each has the code of its check.
        ignored: how many findings were left out.
    """

    tools: int
    findings: tuple[Diagnostic, ...]
    ignored: int


async def lint(settings: Settings, server: str, ignored: Collection[str] = ()) -> Linted:
    """Check every contract of the settings, approved or not; tools of other servers are not looked at.

    Args:
        settings: which contracts there are, and how they are listed.
        server: what clients call this server.
        ignored: codes of checks that are left out, besides what contracts say themselves.
    """
    catalog = Catalog(settings.tool_directories)
    await catalog.load()
    return await anyio.to_thread.run_sync(_lint, catalog, settings, server, ignored)


def _lint(catalog: Catalog, settings: Settings, server: str, ignored: Collection[str]) -> Linted:
    entries = catalog.entries()
    shared = DefaultsFinder(settings.tool_directories)
    tools = [tool for entry in entries if (tool := read_tool(entry, shared)) is not None]
    for tool in tools:
        check_face(tool, server)
        check_schemas(tool)
        check_running(tool)
    check_between(tools)
    costs = costs_of(entries, settings)
    check_costs(tools, costs)
    # What stands in a _defaults.yaml is found once for each contract that takes it.
    kept: dict[Diagnostic, None] = {}
    left_out: set[Diagnostic] = set()

    def sort(items: Iterable[Diagnostic], own: Collection[str] = ()) -> None:
        for item in map(_of_a_check, items):
            if item.code in ignored or item.code in own:
                left_out.add(item)
            else:
                kept[item] = None

    for tool in tools:
        sort((*tool.entry.diagnostics, *tool.findings.diagnostics), tool.ignored)
    of_tools = {item for entry in entries for item in entry.diagnostics}
    sort(item for item in catalog.diagnostics if item not in of_tools)
    sort(_of_all(entries, settings, sum(costs.values(), Cost())))
    return Linted(len(entries), tuple(sorted(kept, key=_order)), len(left_out - kept.keys()))


def _of_a_check(item: Diagnostic) -> Diagnostic:
    """What was found while a contract was read, as the check of its code has it."""
    if item.code in CHECKS:
        return replace(item, severity=CHECKS[item.code].severity)
    return replace(item, code="contract")


def _of_all(entries: Sequence[CatalogEntry], settings: Settings, total: Cost) -> Iterator[Diagnostic]:
    tools, file = settings.tool_directories[0], settings.origin.file
    if len(entries) > MOST_TOOLS_IN_CLIENTS:
        yield _finding("many-tools", f"There are {len(entries)} tools.", tools)
    if total.tokens > MOST_TOKENS:
        message = f"The definitions of all tools take about {total.tokens:,} tokens."
        yield _finding("costly-list", message, tools)
    texts = {"server.instructions": settings.server.instructions or ""}
    for name, upstream in settings.upstreams.items():
        texts |= {f"upstreams.{name}.describe.{tool}": text for tool, text in upstream.describe.items()}
    for field, text in texts.items():
        if odd := unseen(text):
            message = f"This holds characters that cannot be seen: {', '.join(odd[:5])}."
            yield _finding("hidden-text", message, file, field)
    if len(settings.server.instructions or "") > LONGEST_READ_DESCRIPTION:
        message = f"The instructions have {len(settings.server.instructions or ''):,} characters."
        yield _finding("long-instructions", message, file, "server.instructions")


def _finding(code: str, message: str, path: Path | None, field: str = "") -> Diagnostic:
    return Diagnostic(message, CHECKS[code].fix, field, CHECKS[code].severity, path, code=code)


def _order(item: Diagnostic) -> tuple[str, int, int, str]:
    return (str(item.path), item.line, item.column, item.code)


def failing(findings: Sequence[Diagnostic], *, strict: bool) -> bool:
    """Whether a check in CI is to fail.

    Args:
        findings: what was found.
        strict: fail on warnings too.
    """
    return any(strict or item.severity is Severity.ERROR for item in findings)
