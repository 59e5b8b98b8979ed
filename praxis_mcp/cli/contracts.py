"""``praxis-mcp contracts``: what is served under ``reload: approved``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from praxis_mcp.cli.common import JsonOption, SettingsOptions, print_findings, takes_settings
from praxis_mcp.cli.completion import complete_tool
from praxis_mcp.cli.terminal import echo_json, say

if TYPE_CHECKING:
    from praxis_mcp.contracts.catalog.catalog import CatalogEntry
    from praxis_mcp.settings.model import Settings

app = typer.Typer(
    help="Contracts that are served only once they are approved (reload: approved).", no_args_is_help=True
)


@app.command("list")
@takes_settings()
def list_contracts(
    options: SettingsOptions,
    as_json: JsonOption = False,
) -> None:
    """List the contracts: what each may do, and whether it is approved, or why not.

    Exit code 1 where reload: approved holds one back.

    Example: praxis-mcp contracts list
    """
    settings = options.read()
    found = [_describe(entry) for entry in _entries(settings)]
    if as_json:
        echo_json({"reload": settings.reload, "contracts": found})
    else:
        if settings.reload != "approved":
            say(f"reload: {str(settings.reload).lower()} in the settings: all of them are served, approved or not.")
        for item in found:
            _print(item)
    raise typer.Exit(1 if settings.reload == "approved" and any(item["held"] for item in found) else 0)


@app.command("approve")
@takes_settings()
def approve(
    options: SettingsOptions,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="NAME or NAME@FINGERPRINT (default: all that are not approved).", autocompletion=complete_tool
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Approve contracts as they are; a running server takes them up by itself.

    NAME approves what the contract says now; NAME@FINGERPRINT, as the log and `praxis-mcp contracts list` show it, only
    what you have looked at.

    Example: praxis-mcp contracts approve word_counter
    """
    from praxis_mcp.contracts.catalog.approvals import ContractApprovals

    entries = _entries(options.read())
    approvals = ContractApprovals()
    chosen = _chosen(entries, names) if names else [item for item in entries if approvals.why_held(item)]
    approved = []
    for entry in chosen:
        item = _describe(entry)
        approvals.approve(entry)
        approved.append({**item, "held": []})
    if as_json:
        echo_json({"approved": approved, "directory": str(approvals.directory)})
        return
    for item in approved:
        _print(item)
    say(f"{len(chosen)} approved, in {approvals.directory}" if chosen else "Nothing waits for approval.")


@app.command("revoke")
@takes_settings()
def revoke(
    options: SettingsOptions,
    names: Annotated[list[str], typer.Argument(help="Tools.", autocompletion=complete_tool)],
    as_json: JsonOption = False,
) -> None:
    """Take approvals back, of contracts that are broken or gone as well; a running server stops serving them.

    Example: praxis-mcp contracts revoke word_counter
    """
    from praxis_mcp.contracts.catalog.approvals import ContractApprovals

    approvals = ContractApprovals()
    settings = options.read()
    entries = _entries(settings)
    names = [word.partition("@")[0] for word in names]
    files = {
        name: [*(entry.source for entry in entries if entry.name == name), *approved]
        for name in names
        for approved in [approvals.files_of(name, settings.tool_directories)]
    }
    for name in names:
        if not files[name]:
            _entry(name, entries)
    revoked = {name: sum(approvals.revoke(file) for file in files[name]) > 0 for name in names}
    if as_json:
        echo_json({"revoked": revoked})
        return
    for name, was in revoked.items():
        say(f"{name} {'is no longer approved' if was else 'was not approved'}.")


def _entries(settings: Settings) -> list[CatalogEntry]:
    """Every contract that could be served, whatever is approved; what is wrong with others is said."""
    import anyio

    from praxis_mcp.contracts.catalog.catalog import Catalog

    catalog = Catalog(settings.tool_directories)
    anyio.run(catalog.load)
    print_findings(catalog.diagnostics)
    return list(catalog.entries())


def _chosen(entries: list[CatalogEntry], names: list[str]) -> list[CatalogEntry]:
    from praxis_mcp.errors import SettingsError

    chosen: list[CatalogEntry] = []
    for word in names:
        name, _, fingerprint = word.partition("@")
        entry = _entry(name, entries)
        if fingerprint and entry.fingerprint != fingerprint:
            raise SettingsError(
                f"The contract of {name} is not what you looked at; nothing was approved.",
                remedy="Look again: praxis-mcp contracts list",
            )
        chosen.append(entry)
    return chosen


def _entry(name: str, entries: list[CatalogEntry]) -> CatalogEntry:
    from praxis_mcp.contracts.problems import did_you_mean, quoted
    from praxis_mcp.errors import UnknownToolError

    known = {entry.name: entry for entry in entries}
    if name not in known:
        raise UnknownToolError(f"There is no contract {quoted(name)}{did_you_mean(name, known)}.")
    return known[name]


def _describe(entry: CatalogEntry) -> dict[str, Any]:
    from praxis_mcp.contracts.catalog.approvals import ContractApprovals, notable_powers, powers_of

    return {
        "name": entry.name,
        "file": str(entry.source),
        "fingerprint": entry.fingerprint,
        "may": list(notable_powers(powers_of(entry.contract))),
        "held": list(ContractApprovals().why_held(entry)),
    }


def _print(item: dict[str, Any]) -> None:
    state = f"not approved: {', '.join(item['held'])}" if item["held"] else "approved"
    say(f"{item['name']}: {state}")
    say(f"  {item['file']}")
    for power in item["may"]:
        say(f"  {power}")
    if item["held"]:
        say(f"  praxis-mcp contracts approve {item['name']}@{item['fingerprint']}")
