"""``praxis-mcp upstreams``: the other MCP servers whose tools are republished, and what waits for approval."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from praxis_mcp.cli.common import JsonOption, SettingsOptions, takes_settings
from praxis_mcp.cli.terminal import console, echo_json, escape, say
from praxis_mcp.cli.tool_call import connected_upstreams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from praxis_mcp.federation.upstreams import UpstreamReport, Upstreams
    from praxis_mcp.settings.model import Settings

app = typer.Typer(
    help="Other MCP servers whose tools are republished (upstreams: in the settings).", no_args_is_help=True
)
T = TypeVar("T")


@app.command("list")
@takes_settings(tools=False)
def list_upstreams(
    options: SettingsOptions,
    as_json: JsonOption = False,
) -> None:
    """List the upstreams: whether they can be reached, which of their tools are served, held back or left out, and why.

    Exit code 1 where one cannot be reached or something is held back.

    Example: praxis-mcp upstreams list
    """
    settings = options.read()
    found = _with_upstreams(settings, lambda upstreams: [_describe(item, upstreams) for item in upstreams.reports()])
    if as_json:
        echo_json({"upstreams": found})
    else:
        _print(found, options)
    raise typer.Exit(1 if any(item["trouble"] or item["held"] for item in found) else 0)


@app.command("approve")
@takes_settings(tools=False)
def approve(
    options: SettingsOptions,
    upstream: Annotated[str, typer.Argument(help="Name of the upstream.")],
    tools: Annotated[
        list[str] | None, typer.Argument(help="NAME or NAME@FINGERPRINT of its tools there (default: all held back).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Approve tools that are held back (pin: true); a running server takes them up by itself.

    NAME approves what the upstream says now; NAME@FINGERPRINT, as `praxis-mcp upstreams list` shows it, only what you
    have looked at.

    Example: praxis-mcp upstreams approve search
    """
    settings = options.read()
    approved = _with_upstreams(settings, lambda upstreams: upstreams.approve(upstream, tools or ()))
    if as_json:
        names = [tool.remote_name for tool in approved]
        echo_json({"approved": names, "file": str(settings.upstream_approvals)})
        return
    for tool in approved:
        say(f"{tool.remote_name}: {(tool.description or '').strip()}")
        for line in _words(tool.title, None, tool.input_schema, tool.output_schema):
            say(f"  {line}")
    if approved:
        say(f"{len(approved)} approved, in {settings.upstream_approvals}")
    else:
        say(f"Nothing is held back of {upstream}.")


def _with_upstreams(settings: Settings, work: Callable[[Upstreams], T]) -> T:
    """Connect to all upstreams, wait for their lists, do the work, and close."""
    import anyio

    from praxis_mcp.federation.upstreams import Upstreams

    async def main() -> T:
        upstreams = Upstreams(settings)
        async with connected_upstreams(upstreams):
            return work(upstreams)

    return anyio.run(main)


def _describe(report: UpstreamReport, upstreams: Upstreams) -> dict[str, Any]:
    return {
        "name": report.name,
        "address": report.address,
        "protocol": report.version,
        "trouble": report.trouble,
        "tools": [{"name": tool.name, "there": tool.remote_name, "notes": list(tool.notes)} for tool in report.tools],
        "held": [
            {
                "name": tool.name,
                "there": tool.remote_name,
                "why": "changed since it was approved" if upstreams.approved_before(tool) else "never approved",
                "title": tool.title,
                "description": tool.description,
                "input_schema": tool.input_schema,
                "output_schema": tool.output_schema,
                "annotations": dict(tool.annotations),
                "fingerprint": tool.fingerprint,
            }
            for tool in report.held
        ],
        "left_out": [{"there": name, "why": why} for name, why in report.left_out],
    }


def _print(found: list[dict[str, Any]], given: SettingsOptions) -> None:
    out = console()
    named = (("--config", given.config), ("--root", given.root))
    options = "".join(f" {option} {shlex.quote(str(path))}" for option, path in named if path is not None)
    if not found:
        out.print(
            "The settings name no upstreams. In praxis.yaml: upstreams: {NAME: {address: URL}}; or "
            "praxis-mcp import mcp-json makes them of the servers that another client has."
        )
    for item in found:
        mark = "[red]✗[/]" if item["trouble"] else "[green]✓[/]"
        about = f"{item['address']}, {item['protocol']}" if item["protocol"] else item["address"]
        out.print(f"{mark} [bold]{escape(item['name'])}[/] ({escape(about)})")
        if item["trouble"]:
            out.print(f"  {escape(item['trouble'])}")
        for tool in item["tools"]:
            notes = f": {'; '.join(tool['notes'])}" if tool["notes"] else ""
            out.print(f"  {escape(tool['name'] + notes)}")
        for tool in item["held"]:
            out.print(f"  [yellow]held back[/] {escape(tool['name'])}: {tool['why']}")
            for line in _words(tool["title"], tool["description"], tool["input_schema"], tool["output_schema"]):
                out.print(escape(f"      {line}"), soft_wrap=True, highlight=False)
            mark = shlex.quote(f"{tool['there']}@{tool['fingerprint']}")
            hint = f"    praxis-mcp upstreams approve {item['name']} {mark}{options}"
            out.print(escape(hint), soft_wrap=True, highlight=False)
        for tool in item["left_out"]:
            out.print(f"  [yellow]left out[/] {escape(tool['there'])}: {escape(tool['why'])}")


def _words(title: str | None, description: str | None, *schemas: dict[str, Any] | None) -> Iterator[str]:
    """All that a tool says of itself in words, line by line: what is approved unread is where an attacker writes, below
    a first line or in the description of a parameter."""
    from praxis_mcp.contracts.vocabulary import WORDS, schemas_inside
    from praxis_mcp.diagnostics import dotted

    if title:
        yield f"title: {title}"
    yield from (description or "").strip().splitlines()
    for schema in schemas:
        for keys, part in schemas_inside(schema):
            for word in WORDS:
                if isinstance(text := part.get(word), str):
                    first, *rest = text.strip().splitlines() or [""]
                    yield f"{dotted((*keys, word))}: {first}"
                    yield from (f"  {line}" for line in rest)
