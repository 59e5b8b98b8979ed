"""``praxis-mcp explain``: the plan of a call, and which engine would run it, without running it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from praxis_mcp.cli.common import JsonOption, SettingsOptions, missing_image, run_with_toolbox, takes_settings
from praxis_mcp.cli.terminal import console, echo_json, escape
from praxis_mcp.cli.tool_call import ArgumentsOption, ToolArgument, WordsArgument, open_tool, read_arguments
from praxis_mcp.support.text import counted

if TYPE_CHECKING:
    from praxis_mcp.execution.runner import Explanation
    from praxis_mcp.execution.toolbox import Toolbox
    from praxis_mcp.federation.remote_tools import RemoteTool


@takes_settings()
def explain(
    options: SettingsOptions,
    name: ToolArgument,
    words: WordsArgument = None,
    given: ArgumentsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a call would run, where, under which limits, and why on that engine, without running it.

    <NAME> stands for an argument that is required and was not given.
    """
    settings = options.read()

    async def work(toolbox: Toolbox) -> dict[str, Any]:
        from praxis_mcp.contracts.catalog.catalog import CatalogEntry

        async with open_tool(toolbox, name) as tool:
            arguments = read_arguments(dict(tool.input_schema), words, given)
            if isinstance(tool, CatalogEntry):
                return _facts(await toolbox.runner.explain(name, arguments))
            return _upstream_facts(tool, toolbox)

    facts = run_with_toolbox(settings, work)
    if as_json:
        echo_json(facts)
    elif "upstream" in facts:
        _print_upstream(facts)
    else:
        _print(facts, settings.pull)


def _upstream_facts(tool: RemoteTool, toolbox: Toolbox) -> dict[str, Any]:
    """Where a call of an upstream's tool goes, as plain values."""
    from praxis_mcp.execution.relays import engine_name

    report = next(item for item in toolbox.upstreams.reports() if item.name == tool.upstream)
    return {
        "tool": tool.name,
        "engine": engine_name(tool),
        "upstream": tool.upstream,
        "address": report.address,
        "protocol": report.version,
        "tool_there": tool.remote_name,
        "servers_behind_it": max(0, len(tool.via) - 1),
        "limits": {
            "timeout_s": toolbox.settings.upstreams[tool.upstream].timeout,
            "inline_output_bytes": toolbox.settings.calls.max_output,
        },
        "adapted": list(tool.notes),
    }


def _print_upstream(facts: dict[str, Any]) -> None:
    out = console()
    out.print(
        f"[green]✓[/] [bold]{escape(facts['tool'])}[/] is the tool {escape(facts['tool_there'])} of the upstream "
        f"[bold]{escape(facts['upstream'])}[/] ({escape(facts['address'])}, {facts['protocol']})"
    )
    for name, value in facts["limits"].items():
        out.print(f"  {' '.join(_limit(name, value))}")
    for note in facts["adapted"]:
        out.print(f"  {escape(note)}")


def _facts(explanation: Explanation) -> dict[str, Any]:
    """The plan as plain values, secrets masked."""
    from praxis_mcp.contracts.values import BindKind
    from praxis_mcp.plans.model import Guard
    from praxis_mcp.plans.secrets import MASK, Masker
    from praxis_mcp.settings.sections import SecretRef

    plan, decision = explanation.plan, explanation.decision
    capabilities = decision.capabilities
    fixed, call = plan.blueprint, plan.call
    masker = Masker(call.secrets)
    remote = fixed.remote
    # By where they come from, not by their text: whether a secret is empty is nobody's business either.
    hidden = {key for key, value in explanation.contract.engine_spec.env.items() if isinstance(value, SecretRef)}
    # The size of a placeholder says nothing.
    open_ends = [item.bind for item in explanation.contract.parameters if item.name in explanation.placeholders]
    no_stdin_yet = any(bind.kind is BindKind.STDIN for bind in open_ends)
    no_file_yet = {str(bind.target) for bind in open_ends if bind.kind is BindKind.FILE}
    return {
        "tool": fixed.tool,
        "placeholders": list(explanation.placeholders),
        "contract": str(explanation.contract.source) if explanation.contract.source else None,
        "engine": decision.engine,
        "isolation": capabilities.isolation if capabilities else None,
        "considered": [
            {"engine": item.engine, "reason": item.reason or "chosen", "remedy": item.remedy}
            for item in decision.verdicts
        ],
        "spill": {
            "engine": explanation.standby.engine,
            "image": explanation.standby.image.digest if explanation.standby.image else None,
            "reason": explanation.standby.reason,
        },
        "image": fixed.image,
        "image_is_missing": explanation.lacks_image,
        "remote": {"address": remote.address, "tool": remote.tool, "transport": remote.transport} if remote else None,
        "command": [masker.text(word) for word in call.argv],
        "env": {key: MASK if key in hidden else masker.text(value) for key, value in call.env.items()},
        "stdin_bytes": None if call.stdin is None or no_stdin_yet else len(call.stdin),
        "files": {item.path: None if item.path in no_file_yet else len(item.content) for item in call.files},
        "working_dir": fixed.working_dir,
        "mounts": [
            f"{item.source} → {item.target} ({'rw' if item.writable else 'ro'})"
            + (", kept from the tool: it steers the server, or is its own code" if item.guard is Guard.SHIELD else "")
            + (f", because it {item.kept}" if item.kept else "")
            + (", which a call makes" if item.is_missing else "")
            for item in fixed.mounts
            if item.guard is not Guard.PIN
        ],
        "network": fixed.network.value,
        "user": fixed.user,
        "limits": {
            "timeout_s": fixed.limits.timeout,
            "memory_bytes": fixed.limits.memory,
            "cpus": fixed.limits.cpus,
            "pids": fixed.limits.pids or (capabilities.default_pids if capabilities else None),
            "inline_output_bytes": fixed.limits.max_output,
        },
        "artifacts": list(fixed.artifacts),
        "demands": sorted(item.value for item in plan.demands),
    }


def _print(facts: dict[str, Any], pull: str) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name in facts["placeholders"]:
        table.add_row("not given", escape(f"{name}: <{name}> stands for it"))
    for item in facts["considered"]:
        chosen = item["engine"] == facts["engine"]
        mark, text = ("[green]✓[/]", "runs it") if chosen else ("[red]✗[/]", escape(item["reason"]))
        table.add_row(f"{mark} {item['engine']}", text)
    if facts["image"] is not None and facts["engine"] is not None:
        table.add_row("where it would wait", escape(_elsewhere(facts)))
    if facts["engine"] is None:
        table.add_row("[red]engine[/]", "none: the call would be refused (what is missing: praxis-mcp doctor)")
    if facts["isolation"] == "process":
        table.add_row("[yellow]isolation[/]", "none: a plain process of this user (why: praxis-mcp doctor)")
    elif facts["isolation"] is not None:
        table.add_row("isolation", escape(facts["isolation"]))
    plain = {**facts, "command": shlex.join(facts["command"]) if facts["command"] else None}
    if facts["image_is_missing"]:
        plain["image"] += f" ({missing_image(pull)})"
    for name in ("image", "command", "working_dir", "network", "user", "stdin_bytes"):
        if plain[name] is not None:
            table.add_row(name.replace("_", " "), escape(str(plain[name])))
    for name, value in facts["env"].items():
        table.add_row("env", escape(f"{name}={value}"))
    for place, size in facts["files"].items():
        table.add_row("file", escape(f"{place} ({'not given' if size is None else counted(size, 'byte')})"))
    for mount in facts["mounts"]:
        table.add_row("mount", escape(mount))
    for pattern in facts["artifacts"]:
        table.add_row("artifacts", escape(pattern))
    for name, value in facts["limits"].items():
        table.add_row(*_limit(name, value))
    table.add_row("demands", ", ".join(facts["demands"]))
    console().print(table)


def _elsewhere(facts: dict[str, Any]) -> str:
    """Where a call runs that nothing waits for on the first engine."""
    spill = facts["spill"]
    if spill["engine"] is None:
        return f"it stays: {spill['reason']}"
    return f"{spill['engine']} runs it at once, with the same image ({spill['image']}), unless engines.spill is false"


def _limit(name: str, value: float | None) -> tuple[str, str]:
    """A limit's name and value, for people: ``memory``, ``64 MiB``."""
    words = name.removesuffix("_bytes").removesuffix("_s").replace("_", " ")
    if value is None:
        return words, "no limit"
    if name.endswith("_s"):
        return words, f"{value:,g} s"
    if not name.endswith("_bytes"):
        return words, f"{value:,}"
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if value >= size:
            return words, f"{value / size:.4g} {unit}"
    return words, counted(value, "byte", form=",")
