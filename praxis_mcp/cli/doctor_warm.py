"""What `praxis-mcp doctor` says of warm starts: the settings, and how the servers that run here fare with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from praxis_mcp.cli.terminal import escape
from praxis_mcp.support.text import counted

if TYPE_CHECKING:
    from rich.table import Table

    from praxis_mcp.settings.model import WarmSettings


def warm_sentence(warm: WarmSettings) -> str:
    """The settings in words."""
    if not warm.enabled:
        return "off (warm.enabled)"
    wait = counted(warm.max_containers, "container waits", "containers wait")
    return (
        f"at most {wait} ({warm.max_per_tool} a tool, "
        f"{warm.max_memory // 1024**2} MiB together), none after {warm.idle_seconds:g} s without a call"
    )


def server_table(servers: Sequence[dict[str, Any]]) -> Table:
    """A row for each engine of each server, and one for each of its tools below."""
    from rich.table import Table

    title = "Servers that run here, and calls that met a container which waited for them"
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for column in ("server", "root", "engine", "tool", "hits", "misses", "idle", "fill time"):
        table.add_column(column, justify="right" if column in ("hits", "misses", "idle", "fill time") else "left")
    for server in servers:
        place = (str(server["pid"]), escape(server["root"]))
        for row in _rows(server["warm"]):
            table.add_row(*place, *(escape(cell) for cell in row))
            place = ("", "")
    return table


def _rows(warm: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    if not warm["engines"]:
        yield ("-", "none called yet" if warm["enabled"] else "off (warm.enabled)")
    for engine, pool in warm["engines"].items():
        yield (engine, "all", *_numbers(pool))
        for tool, counts in sorted(pool["tools"].items()):
            yield ("", tool, *_numbers(counts))


def _numbers(counts: dict[str, Any]) -> tuple[str, ...]:
    filled = f"{counts['fill_seconds'] * 1000:.0f} ms" if counts["made"] else "-"
    return (str(counts["hits"]), str(counts["misses"]), str(counts["waiting"]), filled)
