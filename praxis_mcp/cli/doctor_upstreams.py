"""What `praxis-mcp doctor` says of the upstreams in the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from praxis_mcp.cli.terminal import escape

if TYPE_CHECKING:
    from rich.table import Table

    from praxis_mcp.execution.toolbox import Toolbox
    from praxis_mcp.federation.upstreams import UpstreamReport

UPSTREAM_TIMEOUT = 10.0
"""Seconds that the upstreams, asked all at once, may take to be reached and to list their tools."""


async def examine_upstreams(toolbox: Toolbox) -> list[dict[str, Any]]:
    """Whether each can be reached, what is spoken with it, how many of its tools are served, held back and left out."""
    import anyio

    from praxis_mcp.support.tasks import unwrapped

    found: list[dict[str, Any]] = []
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(toolbox.upstreams.run)
            with anyio.move_on_after(UPSTREAM_TIMEOUT):
                await toolbox.upstreams.asked()
            found += [_describe(report) for report in toolbox.upstreams.reports()]
            tasks.cancel_scope.cancel()
    return found


def upstream_table(found: list[dict[str, Any]]) -> Table:
    """The same for people."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", title="Upstreams", title_justify="left")
    for column in ("", "upstream", "address", "protocol", "tools", "held back", "left out", "why not"):
        table.add_column(column)
    for item in found:
        table.add_row(
            "[green]✓[/]" if item["reachable"] else "[red]✗[/]",
            item["upstream"],
            escape(item["address"]),
            item["protocol"] or "-",
            *(str(item[name]) for name in ("tools", "held_back", "left_out")),
            escape(item["trouble"]),
        )
    return table


def left_out_lines(found: list[dict[str, Any]]) -> list[str]:
    """Which tools are not served, and why not, a line each, as markup."""
    from praxis_mcp.cli.terminal import escape

    return [
        f"  [yellow]left out[/] of {escape(item['upstream'])}: {escape(tool['there'])}: {escape(tool['why'])}"
        for item in found
        for tool in item["left_out_tools"]
    ]


def _describe(report: UpstreamReport) -> dict[str, Any]:
    trouble = report.trouble
    if not report.asked:
        trouble = f"it did not list its tools within {UPSTREAM_TIMEOUT:g} s"
    return {
        "upstream": report.name,
        "address": report.address,
        "reachable": not trouble,
        "trouble": trouble,
        "protocol": report.version,
        "tools": len(report.tools),
        "held_back": len(report.held),
        "left_out": len(report.left_out),
        "left_out_tools": [{"there": name, "why": why} for name, why in report.left_out],
    }
