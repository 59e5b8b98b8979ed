"""``praxis-mcp explain``: the plan of a call, and which engine would run it, without running it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from praxis_mcp.cli.common import (
    ConfigOption,
    JsonOption,
    LogLevelOption,
    ToolsOption,
    console,
    echo_json,
    friendly_errors,
    read_arguments,
    read_settings,
    run_with_toolbox,
)

if TYPE_CHECKING:
    from praxis_mcp.execution.runner import Explanation
    from praxis_mcp.execution.toolbox import Toolbox


def explain(
    name: Annotated[str, typer.Argument(help="The tool.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Arguments, as for call.")] = None,
    json_arguments: Annotated[
        str | None, typer.Option("--arguments", help="All arguments as one JSON object; - reads it from stdin.")
    ] = None,
    tools: ToolsOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a call would run, where, under which limits, and why that engine; run nothing."""
    with friendly_errors():
        settings = read_settings(config, tools, log_level)

        async def work(toolbox: Toolbox) -> Explanation:
            entry = toolbox.catalog.get(name)
            return await toolbox.runner.explain(
                name, read_arguments(dict(entry.input_schema), words or [], json_arguments)
            )

        explanation = run_with_toolbox(settings, work)
        facts = _facts(explanation)
        if as_json:
            echo_json(facts)
            return
        _print(facts)


def _facts(explanation: Explanation) -> dict[str, Any]:
    """The plan as plain values, secrets masked."""
    from praxis_mcp.plans.secrets import Masker

    plan, decision = explanation.plan, explanation.decision
    fixed, call = plan.blueprint, plan.call
    masker = Masker(call.secrets)
    remote = fixed.remote
    return {
        "tool": fixed.tool,
        "contract": str(explanation.contract.source) if explanation.contract.source else None,
        "engine": decision.engine,
        "considered": [
            {"engine": item.engine, "reason": item.reason or "chosen", "remedy": item.remedy}
            for item in decision.verdicts
        ],
        "image": fixed.image,
        "remote": {"address": remote.address, "tool": remote.tool, "transport": remote.transport} if remote else None,
        "command": [masker.text(word) for word in call.argv],
        "env": {name: masker.text(value) for name, value in call.env.items()},
        "stdin_bytes": None if call.stdin is None else len(call.stdin),
        "files": {item.path: len(item.content) for item in call.files},
        "working_dir": fixed.working_dir,
        "mounts": [f"{item.source} → {item.target} ({'rw' if item.writable else 'ro'})" for item in fixed.mounts],
        "network": fixed.network.value,
        "user": fixed.user,
        "limits": {
            "timeout_s": fixed.limits.timeout,
            "memory_bytes": fixed.limits.memory,
            "cpus": fixed.limits.cpus,
            "pids": fixed.limits.pids,
            "inline_output_bytes": fixed.limits.max_output,
        },
        "artifacts": list(fixed.artifacts),
        "demands": sorted(item.value for item in plan.demands),
    }


def _print(facts: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for item in facts["considered"]:
        chosen = item["engine"] == facts["engine"]
        mark, text = ("[green]✓[/]", "runs it") if chosen else ("[red]✗[/]", escape(item["reason"]))
        table.add_row(f"{mark} {item['engine']}", text)
    if facts["engine"] is None:
        table.add_row("[red]engine[/]", "none: the call would be refused")
    plain = {**facts, "command": shlex.join(facts["command"]) if facts["command"] else None}
    for name in ("image", "command", "working_dir", "network", "user", "stdin_bytes"):
        if plain[name] is not None:
            table.add_row(name.replace("_", " "), escape(str(plain[name])))
    for name, value in facts["env"].items():
        table.add_row("env", escape(f"{name}={value}"))
    for place, size in facts["files"].items():
        table.add_row("file", escape(f"{place} ({size} bytes)"))
    for mount in facts["mounts"]:
        table.add_row("mount", escape(mount))
    for name, value in facts["limits"].items():
        table.add_row(name.replace("_", " "), "no limit" if value is None else f"{value:,}")
    table.add_row("demands", ", ".join(facts["demands"]))
    console().print(table)
