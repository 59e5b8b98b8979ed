"""``praxis-mcp health``: whether the server of these settings answers, for health checks of containers."""

from __future__ import annotations

import http.client
import json
import ssl
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from praxis_mcp.cli.common import PORT, JsonOption, SettingsOptions, takes_settings
from praxis_mcp.cli.terminal import echo_json, say

if TYPE_CHECKING:
    from praxis_mcp.settings.http import HttpSettings

ANSWER_WITHIN = 5.0
_MOST_ANSWERED = 4096
_HINT = (
    "praxis-mcp serve --http starts one. One that was started with --port is asked with the same --port; without it, "
    "the port is the settings' http.port, 8000 by default."
)
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not listened on


@takes_settings()
def health(
    options: SettingsOptions,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help=PORT)] = None,
    ready: Annotated[
        bool, typer.Option("--ready", help="Whether it takes calls (/ready), not only whether it lives (/health).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask the server that runs here by these settings whether it lives: ends with 0 where it does, else with 1.

    Example: praxis-mcp health --config praxis.yaml
    """
    settings = options.read(warn=False, http={"port": port} if port is not None else None)
    status, text = _ask(settings.http, settings.http.port, "/ready" if ready else "/health")
    is_well = status == http.client.OK
    if as_json:
        echo_json({"ok": is_well, "status": text})
    else:
        say(text, err=not is_well)
    raise typer.Exit(0 if is_well else 1)


def _ask(settings: HttpSettings, port: int, path: str) -> tuple[int, str]:
    host = _ANY_ADDRESS.get(settings.host, settings.host)
    if settings.tls_certificate is None:
        connection = http.client.HTTPConnection(host, port, timeout=ANSWER_WITHIN)
    else:
        # This very certificate is trusted, by any issuer and for any name.
        context = ssl.create_default_context(cafile=str(settings.tls_certificate))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
        connection = http.client.HTTPSConnection(host, port, timeout=ANSWER_WITHIN, context=context)
    with closing(connection):
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(_MOST_ANSWERED)
        except (OSError, http.client.HTTPException) as exc:
            hint = f". {_HINT}" if isinstance(exc, ConnectionRefusedError) else ""
            return 0, f"No server answers at port {port} of {host}: {exc}{hint}"
    try:
        return answer.status, str(json.loads(body)["status"])
    except (ValueError, KeyError, TypeError):
        return answer.status, f"The answer is not one of praxis-mcp (status {answer.status})."
