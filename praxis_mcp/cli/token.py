"""``praxis-mcp token``: bearer tokens for callers over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from praxis_mcp.cli.common import JsonOption, friendly_errors
from praxis_mcp.cli.terminal import echo_json, say
from praxis_mcp.errors import SettingsError

commands = typer.Typer(no_args_is_help=True, help="Bearer tokens for callers over HTTP.")


def _read_earlier_spelling(option: str) -> str:
    return "tool" if option == "tools" else option


@commands.command("new", context_settings={"token_normalize_func": _read_earlier_spelling})
def new(
    name: Annotated[str, typer.Option("--name", "-n", help="What logs and records call its bearer.")],
    tools: Annotated[
        list[str] | None,
        typer.Option("--tool", help="Name of a tool that it covers, with * and ?; may be given more than once."),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="tools:GLOB, metrics:read or runs:read; more than once for several."),
    ] = None,
    days: Annotated[int | None, typer.Option("--days", min=1, help="Days until it expires (default: never).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token. It is shown once; the settings hold its hash only. Without --tool and --scope it covers all tools.

    --tools, the earlier spelling of --tool, is read as --tool.

    Example: praxis-mcp token new --name ci --tool 'json_*'
    """
    from pydantic import ValidationError

    from praxis_mcp.serving.access import hash_token, new_token
    from praxis_mcp.settings.http import AuthSettings

    token = new_token()
    entry: dict[str, object] = {
        "sha256": hash_token(token),
        "scopes": [*(f"tools:{glob}" for glob in tools or ()), *(scope or ())] or ["tools:*"],
    }
    if days is not None:
        entry["expires"] = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0).isoformat()
    with friendly_errors():
        try:
            AuthSettings.model_validate({"tokens": {name: entry}})
        except ValidationError as exc:
            raise SettingsError(
                "A name is 1 to 64 letters, digits, dots, dashes, underscores; a scope is tools:GLOB, "
                "metrics:read or runs:read."
            ) from exc
    settings = {"http": {"auth": {"tokens": {name: entry}}}}
    if as_json:
        echo_json({"token": token, "settings": settings})
        return

    import yaml

    say("The token, shown this once:", err=True)
    say(token)
    say("A client sends it with every request, as the header  Authorization: Bearer TOKEN", err=True)
    say(err=True)
    say("In the settings of the server (--config):", err=True)
    for line in yaml.safe_dump(settings, sort_keys=False).splitlines():
        say(line, err=True)
