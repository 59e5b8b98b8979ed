"""``praxis-mcp doctor``: engines found, what is missing, how to fix it, and which engine would run which tool; the
upstreams, and the servers that run here."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import typer

from praxis_mcp.cli.common import (
    JsonOption,
    SettingsOptions,
    diagnostics_as_json,
    run_with_toolbox,
    takes_settings,
)
from praxis_mcp.cli.terminal import console, echo_json, escape, table
from praxis_mcp.cli.tool_call import connected_upstreams
from praxis_mcp.cli.toolset_report import examine_toolsets, lines_of
from praxis_mcp.support.text import counted

if TYPE_CHECKING:
    from rich.table import Table

    from praxis_mcp.execution.toolbox import Toolbox
    from praxis_mcp.federation.upstreams import UpstreamReport
    from praxis_mcp.settings.model import Settings
    from praxis_mcp.settings.sections import RecordSettings, WarmSettings

UPSTREAM_TIMEOUT = 30.0
"""Seconds that the upstreams, asked all at once, may take to be reached and to list their tools."""


@takes_settings(directories=True)
def doctor(
    options: SettingsOptions,
    as_json: JsonOption = False,
) -> None:
    """Say which engines work here, what is missing and how to fix it, and which engine would run each tool.

    Also: whether runs can be recorded, whether upstreams can be reached, and how warm starts go in the servers that run
    here. Exit code 1 where a contract is broken, a tool has no engine, runs cannot be recorded, or an upstream cannot
    be reached.

    Example: praxis-mcp doctor
    """
    settings = options.read(warn=False)
    report = {**run_with_toolbox(settings, _examine), "warm": settings.warm.model_dump()}
    if as_json:
        echo_json(report)
    else:
        _print(report, settings)
    healthy = not report["broken"] and all(tool["engine"] for tool in report["tools"]) and not report["records"]["why"]
    raise typer.Exit(0 if healthy and all(item["reachable"] for item in report["upstreams"]) else 1)


async def _examine(toolbox: Toolbox) -> dict[str, Any]:
    import anyio
    import anyio.to_thread

    from praxis_mcp.contracts.catalog.approvals import HeldBack
    from praxis_mcp.execution.servers import live_servers
    from praxis_mcp.support.installation import all_plugins
    from praxis_mcp.support.tasks import unwrapped

    engines: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []
    upstreams: list[dict[str, Any]] = []
    sets: dict[str, Any] = {}

    async def ask_upstreams() -> None:
        upstreams.extend(await examine_upstreams(toolbox, lambda: sets.update(examine_toolsets(toolbox))))

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_upstreams)
            engines += [await _examine_engine(toolbox, name) for name in _engine_names(toolbox)]
            tools += [await _examine_tool(toolbox, entry.name) for entry in toolbox.catalog.entries()]
            # On a busy machine one may have answered late, and serves tools all the same.
            for number, item in enumerate(engines):
                if not item["available"] and item["engine"] in {tool["engine"] for tool in tools}:
                    engines[number] = await _examine_engine(toolbox, item["engine"])
    _mark_optional(engines, tools)
    findings = toolbox.catalog.diagnostics
    return {
        "praxis_mcp": version("praxis-mcp"),
        "mcp": version("mcp"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "settings": _settings(toolbox.settings),
        "root": str(toolbox.settings.root),
        "praxis_init": _praxis_init(),
        "records": await anyio.to_thread.run_sync(_records, toolbox.settings.records),
        "caller_limits": _caller_limits(toolbox.settings),
        "engines": engines,
        "refused_engines": [
            {"engine": item.name, "package": item.package, "why": item.problem}
            for item in all_plugins()
            if item.problem
        ],
        "tools": tools,
        "upstreams": upstreams,
        **sets,
        "servers": await anyio.to_thread.run_sync(live_servers),
        "broken": sum(item.is_error for item in findings),
        "held_back": [item.tool for item in findings if isinstance(item, HeldBack)],
        "disabled": [{"tool": item.name, "by": item.by} for item in toolbox.catalog.disabled],
        "diagnostics": diagnostics_as_json(findings),
    }


def _engine_names(toolbox: Toolbox) -> list[str]:
    """Our engines, and all that other packages bring: a broken one shows here, be it needed yet or not."""
    from praxis_mcp.support.installation import usable_plugins

    return list(dict.fromkeys((*toolbox.engines.names(), *usable_plugins())))


def _praxis_init() -> dict[str, Any]:
    from praxis_mcp.support.praxis_init import find_missing

    missing = find_missing()
    return {"there": True} if missing is None else {"there": False, "why": missing.reason, "remedy": missing.remedy}


def _records(settings: RecordSettings) -> dict[str, Any]:
    """Where runs are recorded (None where they are not), and why they cannot be. Makes nothing there."""
    from praxis_mcp.errors import RecordsUnavailable
    from praxis_mcp.execution.records.archive import open_archive

    place = settings.place
    if not settings.enabled or place is None:
        remedy = "" if not settings.enabled else "Name records.directory: this user has no home directory."
        return {"where": None, "files": None, "why": "", "remedy": remedy}
    why, remedy = "", ""
    there = next(item for item in (place, *place.parents) if item.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = f"{there} {'cannot be written' if there.is_dir() else 'is not a directory'}."
        remedy = "Name another place: records.directory."
    else:
        try:
            with open_archive(settings):
                pass
        except RecordsUnavailable as exc:
            why, remedy = exc.message, exc.remedy or ""
    return {"where": settings.shown_url or str(place), "files": str(place), "why": why, "remedy": remedy}


def _caller_limits(settings: Settings) -> dict[str, Any]:
    """What one caller may have, and on which servers together; None where that is not said."""
    calls, records = settings.calls, settings.records
    if calls.max_per_caller is None and calls.max_rate_per_caller is None:
        servers = None
    elif not records.is_kept:
        servers = "each server alone, because no records are kept"
    else:
        where = f"that share {records.shown_url}" if records.url is not None else "of this project on this machine"
        servers = f"all servers {where} together"
    return {"calls": calls.max_per_caller, "calls_a_minute": calls.max_rate_per_caller, "hold_for": servers}


def _settings(settings: Settings) -> dict[str, Any]:
    origin = settings.origin
    return {
        "file": str(origin.file) if origin.file else None,
        "why": origin.file_reason,
        "root_why": origin.root_reason,
        "reload": settings.reload,
        "left_aside": [
            {"file": str(item.file), "why": item.reason, "remedy": item.remedy} for item in origin.left_aside
        ],
    }


async def _examine_engine(toolbox: Toolbox, name: str) -> dict[str, Any]:
    from praxis_mcp.errors import PraxisError

    status = await toolbox.runner.selector.status(name)
    facts: dict[str, Any] = {
        "engine": name,
        "available": status.available,
        "version": status.version,
        "detail": status.detail,
        "remedy": status.remedy,
    }
    if status.available:
        try:
            capabilities = await toolbox.engines.get(name).get_capabilities()
        except PraxisError as exc:
            return {**facts, "available": False, "detail": exc.message, "remedy": exc.remedy or ""}
        facts["isolation"] = capabilities.isolation
        facts["enforces"] = sorted(item.value for item in capabilities.enforces)
        facts["lacks"] = {item.value: why for item, why in sorted(capabilities.notes.items())}
    return facts


def _mark_optional(engines: list[dict[str, Any]], tools: list[dict[str, Any]]) -> None:
    """Note of each engine whether it is missing and nothing misses it: others serve every tool."""
    from praxis_mcp.settings.sections import CONTAINER_ENGINES
    from praxis_mcp.support.installation import OWN_ENGINES

    missed = {engine for tool in tools for engine in tool["missed"]}
    serves = bool(tools) or any(item["available"] for item in engines if item["engine"] in CONTAINER_ENGINES)
    for item in engines:
        is_ours = item["engine"] in OWN_ENGINES  # who installed another one wants it
        item["optional"] = is_ours and serves and not item["available"] and item["engine"] not in missed


async def _examine_tool(toolbox: Toolbox, name: str) -> dict[str, Any]:
    from praxis_mcp.errors import PraxisError
    from praxis_mcp.execution.facts import missing_image
    from praxis_mcp.plans.build import draft_blueprint
    from praxis_mcp.plans.model import Call, Plan
    from praxis_mcp.plans.planning import find_all_problems, plan_image

    try:
        contract = toolbox.catalog.get(name).contract
        problems = await find_all_problems(contract, toolbox.settings)
        if problems:
            return {
                "tool": name,
                "engine": None,
                "reason": " ".join(str(problem) for problem in problems),
                "missed": [],
                "demands": [],
            }
        blueprint = draft_blueprint(contract, toolbox.settings)
        if blueprint.build is not None:
            blueprint = await plan_image(contract, toolbox.settings)
    except PraxisError as exc:
        return {"tool": name, "engine": None, "reason": str(exc), "missed": [], "demands": []}
    decision = await toolbox.runner.selector.decide(Plan(blueprint, Call(run_id="")))
    # An engine that is missing, where another one serves, matters to other tools; the engines' table says why.
    wanted = {item.engine for item in decision.passed_over if item.remedy and not item.available}
    reasons = [
        f"not {item.engine}: {item.reason}"
        for item in decision.passed_over
        if item.available or (decision.engine is None and item.engine not in wanted)
    ]
    absent = [item.engine for item in decision.passed_over if item.engine in wanted and decision.engine is None]
    if absent:
        *most, last = absent
        reasons.append(f"needs {', '.join(most)} or {last}, see above" if most else f"needs {last}, see above")
    if await toolbox.runner.lacks_image(decision.engine, blueprint):
        reasons.append(
            f"{blueprint.image} is {missing_image(toolbox.settings.pull, is_built=blueprint.build is not None)}"
        )
    reason = "; ".join(reasons)
    missed = [item.engine for item in decision.passed_over if decision.engine is None and item.remedy]
    demands = sorted(item.value for item in blueprint.demands)
    return {"tool": name, "engine": decision.engine, "reason": reason, "missed": missed, "demands": demands}


def _print(report: dict[str, Any], settings: Settings) -> None:
    out = console()
    out.print(
        f"praxis-mcp {report['praxis_mcp']} · mcp {report['mcp']} · Python {report['python']} · {report['platform']}"
    )
    origin = settings.origin
    out.print(escape(f"settings {origin}"), soft_wrap=True, highlight=False)
    out.print(escape(f"root     {settings.root} ({origin.root_reason})"), soft_wrap=True, highlight=False)
    out.print(escape(_records_sentence(report["records"])), soft_wrap=True, highlight=False)
    if report["caller_limits"]["hold_for"] is not None:
        out.print(f"limits   {escape(_limits_sentence(report['caller_limits']))}", soft_wrap=True, highlight=False)
    if settings.reload == "approved":
        held = counted(len(report["held_back"]), "contract")
        out.print(f"reload   approved: {held} held back (praxis-mcp contracts list)", highlight=False)
    for item in origin.left_aside:
        out.print(f"[yellow]{escape(str(item))}[/]", soft_wrap=True, highlight=False)
    if not report["praxis_init"]["there"]:
        init = report["praxis_init"]
        out.print(f"[red]✗ {escape(init['why'])} → {escape(init['remedy'])}[/]", soft_wrap=True, highlight=False)
    directories = {str(directory) for directory in settings.tool_directories}
    first = [item for item in report["diagnostics"] if item["path"] in directories]
    for item in first:
        out.print(escape(_sentence(item)))
    engines = table("", "engine", "found", "what it means", title="Engines")
    demanded = {demand for item in report["tools"] for demand in item["demands"]}
    for item in report["engines"]:
        if item["available"]:
            found = " → ".join(part for part in (item["detail"], item["remedy"]) if part)
            lacks = {what: why for what, why in item.get("lacks", {}).items() if what in demanded}
            mark, meaning = "[green]✓[/]", "; ".join(part for part in (found, _lacks(lacks)) if part)
        elif item["optional"]:
            mark, meaning = "-", "optional: no tool here needs it"
        else:
            mark, meaning = "[red]✗[/]", " → ".join(part for part in (item["detail"], item["remedy"]) if part)
        engines.add_row(mark, item["engine"], escape(item["version"] or "-"), escape(meaning))
    out.print(engines)
    for item in report["refused_engines"]:
        refused = f"{item['engine']} of {item['package']} is not used. {item['why']}"
        out.print(f"[yellow]{escape(refused)}[/]", soft_wrap=True, highlight=False)
    tools = table("", "tool", "runs on", "why", title="Tools")
    for item in report["tools"]:
        mark = "[green]✓[/]" if item["engine"] else "[red]✗[/]"
        tools.add_row(mark, item["tool"], item["engine"] or "nothing", escape(item["reason"]))
    out.print(tools)
    disabled = (f"{item['tool']} is disabled: {item['by']}" for item in report["disabled"])
    for line in (*disabled, *lines_of(report)):
        out.print(escape(line), soft_wrap=True, highlight=False)
    if report["upstreams"]:
        out.print(_upstream_table(report["upstreams"]))
        for line in _left_out_lines(report["upstreams"]):
            out.print(line)
    out.print(f"Warm starts: {_warm_sentence(settings.warm)}")
    if report["servers"]:
        out.print(_server_table(report["servers"]))
    for item in report["diagnostics"]:
        if item not in first:
            out.print(escape(_sentence(item)))
    out.print(_verdict(report))


def _records_sentence(records: dict[str, Any]) -> str:
    if records["where"] is None:
        return f"records  none: {records['remedy'] or 'records.enabled is false'}"
    if records["why"]:
        return f"✗ records cannot be kept: {records['why']} → {records['remedy']}"
    elsewhere = f" (files in {records['files']})" if records["where"] != records["files"] else ""
    return f"records  {records['where']}{elsewhere}"


def _limits_sentence(limits: dict[str, Any]) -> str:
    most, rate = limits["calls"], limits["calls_a_minute"]
    each = [counted(most, "call") + " at once"] if most is not None else []
    each += [counted(rate, "call", form="g") + " a minute"] if rate is not None else []
    return f"of each caller {' and '.join(each)}, on {limits['hold_for']}"


def _verdict(report: dict[str, Any]) -> str:
    tools = report["tools"]
    able = sum(tool["engine"] is not None for tool in tools)
    is_well = able == len(tools) and not report["broken"] and not report["records"]["why"]
    color = "green" if is_well else "red"
    text = f"{able} of {len(tools)} tools can run" if tools else "There are no contracts here"
    if report["upstreams"]:
        text += f"; {counted(sum(item['tools'] for item in report['upstreams']), 'tool')} of upstreams"
    if report["broken"]:
        text += f"; {counted(report['broken'], 'error')} above"
    if report["records"]["why"]:
        text += "; runs cannot be recorded"
    optional = [item["engine"] for item in report["engines"] if item["optional"]]
    if optional:
        *most, last = optional
        names = f"{', '.join(most)} and {last}" if most else last
        text += f"; {names} {'are' if most else 'is'} optional and missing"
    return f"[bold {color}]{text}[/]"


def _sentence(item: dict[str, Any]) -> str:
    place = f"{item['path']}:{item['line']}" if item["line"] else item["path"]
    return f"{item['severity']}: {place}: {item['message']} {item['remedy']}"


def _lacks(notes: dict[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for what, why in notes.items():
        by_reason.setdefault(why, []).append(what)
    return "; ".join(f"cannot enforce {', '.join(what)}: {why}" for why, what in by_reason.items())


async def examine_upstreams(toolbox: Toolbox, then: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
    """Whether each can be reached, by which protocol, what is served, held back, left out; calls `then` meanwhile."""
    async with connected_upstreams(toolbox.upstreams, UPSTREAM_TIMEOUT):
        then()
        return [_upstream_facts(report) for report in toolbox.upstreams.reports()]


def _upstream_table(found: list[dict[str, Any]]) -> Table:
    """The same for people."""
    rows = table("", "upstream", "address", "protocol", "tools", "held back", "left out", "why not", title="Upstreams")
    for item in found:
        rows.add_row(
            "[green]✓[/]" if item["reachable"] else "[red]✗[/]",
            item["upstream"],
            escape(item["address"]),
            item["protocol"] or "-",
            *(str(item[name]) for name in ("tools", "held_back", "left_out")),
            escape(item["trouble"]),
        )
    return rows


def _left_out_lines(found: list[dict[str, Any]]) -> list[str]:
    """Which tools are not served, and why not, a line each, as markup."""
    return [
        f"  [yellow]left out[/] of {escape(item['upstream'])}: {escape(tool['there'])}: {escape(tool['why'])}"
        for item in found
        for tool in item["left_out_tools"]
    ]


def _upstream_facts(report: UpstreamReport) -> dict[str, Any]:
    trouble = report.trouble
    if not report.attempted:
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


def _warm_sentence(warm: WarmSettings) -> str:
    """The settings in words."""
    if not warm.enabled:
        return "off (warm.enabled)"
    wait = counted(warm.max_containers, "container or sandbox waits", "containers and sandboxes wait")
    return (
        f"at most {wait} ({warm.max_per_tool} a tool, "
        f"{warm.max_memory // 1024**2} MiB together), none after {warm.idle_seconds:g} s without a call"
    )


def _server_table(servers: Sequence[dict[str, Any]]) -> Table:
    """A row for each engine of each server, and one for each of its tools below."""
    title = "Servers that run here, and calls that met what waited for them"
    rows = table("server", "root", "engine", "tool", title=title)
    for column in ("hits", "misses", "idle", "fill time"):
        rows.add_column(column, justify="right")
    for server in servers:
        place = (str(server["pid"]), escape(server["root"]))
        for row in _warm_rows(server["warm"]):
            rows.add_row(*place, *(escape(cell) for cell in row))
            place = ("", "")
    return rows


def _warm_rows(warm: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    if not warm["engines"]:
        yield ("-", "none called yet" if warm["enabled"] else "off (warm.enabled)")
    for engine, pool in warm["engines"].items():
        yield (engine, "all", *_warm_numbers(pool))
        for tool, counts in sorted(pool["tools"].items()):
            yield ("", tool, *_warm_numbers(counts))


def _warm_numbers(counts: dict[str, Any]) -> tuple[str, ...]:
    filled = f"{counts['fill_seconds'] * 1000:.0f} ms" if counts["made"] else "-"
    return (str(counts["hits"]), str(counts["misses"]), str(counts["waiting"]), filled)
