"""What ``praxis-mcp doctor`` says of toolsets and of the search: what they hold, and what they name in vain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from praxis_mcp.support.text import counted

if TYPE_CHECKING:
    from praxis_mcp.execution.toolbox import Toolbox
    from praxis_mcp.federation.upstreams import Entry
    from praxis_mcp.settings.toolsets import ToolsetSettings


def examine_toolsets(toolbox: Toolbox) -> dict[str, Any]:
    """The toolsets and the search of the settings, over the tools that are there now."""
    from praxis_mcp.serving.mcp.search_tools import costs_of_shown
    from praxis_mcp.serving.tool_index import has_fts5
    from praxis_mcp.serving.toolsets import Toolsets, View

    settings = toolbox.settings
    entries = toolbox.upstreams.merged_with(toolbox.catalog.entries())
    toolsets = [
        {
            "toolset": name,
            "tools": sum(map(View(frozenset((name,)), (toolset,), lambda _: None, ()).holds, entries)),
            "unmatched": list(_unmatched(toolset, entries)),
        }
        for name, toolset in settings.toolsets.items()
    ]
    wants = settings.search.above is not None or any(toolset.search for toolset in settings.toolsets.values())
    shown = costs_of_shown(toolbox, Toolsets(settings).listed(entries)) if wants else None
    search = {
        "possible": has_fts5() if wants else None,
        "shown": None if shown is None else len(shown),
        "unmatched": [glob for glob in settings.search.core if not _matches(glob, entries)],
    }
    return {"toolsets": toolsets, "search": search if wants else None}


def lines_of(report: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    for item in report["toolsets"]:
        yield f"toolset  {item['toolset']}: {counted(item['tools'], 'tool')}{_of_nothing(item['unmatched'])}"
    search = report["search"]
    if search is None:
        return
    if not search["possible"]:
        yield "✗ search  all tools are listed: this Python's SQLite was built without FTS5, which searches them"
    elif search["shown"] is None:
        yield f"search   on, and not needed by a client that is shown everything{_of_nothing(search['unmatched'])}"
    else:
        yield f"search   on: a client is shown {counted(search['shown'], 'tool')}{_of_nothing(search['unmatched'])}"


def _of_nothing(unmatched: Sequence[str]) -> str:
    return f"; nothing has the name {' or '.join(unmatched)}" if unmatched else ""


def _unmatched(toolset: ToolsetSettings, entries: Sequence[Entry]) -> Iterator[str]:
    from praxis_mcp.contracts.catalog.catalog import CatalogEntry

    yield from (glob for glob in (*toolset.tools, *toolset.exclude, *toolset.core) if not _matches(glob, entries))
    tags = {tag for entry in entries if isinstance(entry, CatalogEntry) for tag in entry.traits.tags}
    upstreams = {entry.upstream for entry in entries if not isinstance(entry, CatalogEntry)}
    yield from (f"{tag} (tag)" for tag in toolset.tags if tag not in tags)
    yield from (f"{name} (upstream)" for name in toolset.upstreams if name not in upstreams)


def _matches(glob: str, entries: Sequence[Entry]) -> bool:
    return any(fnmatchcase(entry.name, glob) for entry in entries)
