"""``praxis-mcp build``: images that contracts describe, made ahead of calls."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from praxis_mcp.cli.common import (
    JsonOption,
    SettingsOptions,
    print_error,
    print_findings,
    run_with_toolbox,
    takes_settings,
)
from praxis_mcp.cli.completion import complete_built
from praxis_mcp.cli.terminal import echo_json, say, status_printer
from praxis_mcp.cli.tool_call import find_tool

if TYPE_CHECKING:
    from praxis_mcp.contracts.catalog.catalog import CatalogEntry
    from praxis_mcp.execution.toolbox import Toolbox


@takes_settings()
def build(
    options: SettingsOptions,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Tools (default: all whose contracts have build:).", autocompletion=complete_built),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Build again what is there already, without the builder's cache.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the images of contracts with build:, which else the first call of each waits for.

    An image that is there already, made of the same files, is not built again, unless --fresh says so: packages
    without a version may be newer then. Where the settings say locked: true, only what is locked is built.

    Exit code 1 if one cannot be built.

    Example: praxis-mcp build chart
    """
    settings = options.read()

    async def work(toolbox: Toolbox) -> tuple[list[dict[str, Any]], bool]:
        entries = [await find_tool(toolbox, name) for name in names] if names else toolbox.catalog.entries()
        broken = print_findings(() if names else toolbox.catalog.diagnostics)
        return [
            await _build(toolbox, entry, fresh=fresh) for entry in entries if names or entry.traits.is_built
        ], broken

    built, broken = run_with_toolbox(settings, work)
    if as_json:
        echo_json(built)
    elif not built and not broken:
        say("No contract has build:, so there is nothing to build.", err=True)
    raise typer.Exit(1 if broken or any(item["error"] for item in built) else 0)


async def _build(toolbox: Toolbox, entry: CatalogEntry, *, fresh: bool) -> dict[str, Any]:
    """Build one, saying what is being done; what came of it, as plain values."""
    from praxis_mcp.errors import ArgumentError, ExecutionError, PraxisError
    from praxis_mcp.plans.model import Call, Plan

    found: dict[str, Any] = {"tool": entry.name, "engine": None, "image": None, "seconds": 0.0, "error": None}
    began = time.monotonic()
    try:
        if not entry.traits.is_built:
            raise ArgumentError(f"The contract of {entry.name} has no build:.", remedy="Leave it out.")
        blueprint = await toolbox.runner.plan_image(entry.contract)
        if fresh and blueprint.build is not None:
            blueprint = replace(blueprint, build=replace(blueprint.build, is_fresh=True))
        found["image"] = blueprint.image
        decision = await toolbox.runner.selector.choose(Plan(blueprint, Call(run_id="")))
        found["engine"] = decision.engine
        await toolbox.engines.get(decision.engine or "").prepare(blueprint, status_printer())
    except PraxisError as exc:
        if isinstance(exc, ExecutionError) and exc.output:
            say(exc.output, err=True)
        print_error(exc.message, exc.remedy)
        found["error"] = str(exc)
    else:
        say(f"{entry.name}: {found['image']} ({found['engine']})", err=True)
    found["seconds"] = round(time.monotonic() - began, 3)
    return found
