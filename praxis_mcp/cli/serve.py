"""``praxis-mcp serve``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from praxis_mcp.cli.common import PORT, SettingsOptions, ToolsetOption, collect_garbage, takes_settings
from praxis_mcp.cli.terminal import say
from praxis_mcp.errors import SettingsError

if TYPE_CHECKING:
    from praxis_mcp.settings.model import Settings


@takes_settings(directories=True)
def serve(
    options: SettingsOptions,
    http: Annotated[bool, typer.Option("--http", help="Serve Streamable HTTP at /mcp instead of stdio.")] = False,
    sse: Annotated[
        bool, typer.Option("--sse", help="Serve HTTP+SSE at /sse, for old clients; with --http both.")
    ] = False,
    console: Annotated[
        bool,
        typer.Option("--console", help="Serve pages for people at /console, with --http or --sse."),
    ] = False,
    toolset: ToolsetOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help=PORT)] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain in PEM; serves https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key in PEM.")] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Name under which clients reach this server; may be given more than once.")
    ] = None,
    allowed_origin: Annotated[
        list[str] | None, typer.Option(help="Origin of web pages that may call; may be given more than once.")
    ] = None,
    locked: Annotated[
        bool, typer.Option("--locked", help="Run only what praxis.lock has, as it was then (praxis-mcp lock).")
    ] = False,
    lock_key: Annotated[
        Path | None,
        typer.Option("--lock-key", help="As --locked, and praxis.lock must be signed with this public key (PEM)."),
    ] = None,
) -> None:
    """Serve the tools over MCP: on stdin and stdout, for an IDE or an agent that starts this command, or over HTTP.

    Spans of the calls go to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, where that is set.

    Example: praxis-mcp serve --http --port 8000 --tools my-tools
    """
    from praxis_mcp.serving.wire import end_when_signalled, take_wire

    end_when_signalled()
    flags = {
        "host": host,
        "port": port,
        "tls_certificate": tls_cert.absolute() if tls_cert else None,
        "tls_key": tls_key.absolute() if tls_key else None,
        "allowed_hosts": allowed_host,
        "allowed_origins": allowed_origin,
    }
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    if console:
        given["console"] = {"enabled": True}
    chosen = {"toolsets": toolset} if toolset else None
    if http or sse:
        settings = options.read(quiet=False, http=given, server=chosen, locked=locked, lock_key=lock_key)
        _warn(settings)
        _serve_http(settings, streamable=http, sse=sse)
        return
    if given:
        raise SettingsError("Options of HTTP were given, but stdio is served.", remedy="Add --http or --sse.")

    if sys.stdin is not None and sys.stdin.isatty():
        say(
            "This waits for an MCP client on its standard input; Ctrl-C ends it. Clients start it themselves, after "
            "praxis-mcp install CLIENT; --http serves over HTTP.",
            err=True,
        )
    # Before anything is imported or read that might print: what reaches the wire between messages breaks the client.
    with take_wire() as wire:
        settings = options.read(quiet=False, server=chosen, locked=locked, lock_key=lock_key)
        _warn(settings)

        from praxis_mcp.serving.greeting import greet

        wire = greet(wire, settings)  # before what is imported now, which takes longer than all until here

        import anyio

        from praxis_mcp.execution.toolbox import open_toolbox
        from praxis_mcp.serving.lifetime import until_signalled
        from praxis_mcp.serving.stdio import serve_stdio

        async def main() -> None:
            async with (
                until_signalled(),
                open_toolbox(settings, scan_in_background=True, keep_records=True) as toolbox,
            ):
                await serve_stdio(toolbox, wire)

        collect_garbage()
        anyio.run(main)


def _warn(settings: Settings) -> None:
    """Of what is missing, and of what the settings choose that is unsafe."""
    from praxis_mcp.support.logs import logger
    from praxis_mcp.support.praxis_init import find_missing

    missing = find_missing()
    if missing is not None:
        logger.warning("{} {}", missing.reason, missing.remedy)
    if caution := settings.engines.kubernetes.caution:
        logger.warning("{}.", caution)


def _serve_http(settings: Settings, *, streamable: bool, sse: bool) -> None:
    import anyio

    from praxis_mcp.execution.toolbox import open_toolbox
    from praxis_mcp.serving.http.serve import serve_http
    from praxis_mcp.serving.lifetime import until_signalled
    from praxis_mcp.support.logs import logger

    def announce(line: str) -> None:
        # Whatever is logged: with port 0 there is no other way to learn it.
        if settings.log_format == "json":
            logger.log(settings.log_level, "{}", line)
        else:
            say(line, err=True)

    def announce_all(urls: tuple[str, ...]) -> None:
        for url in urls:
            announce(f"Listening on {url}")

    async def main() -> None:
        # Until it serves; then it handles signals itself.
        async with (
            until_signalled(),
            open_toolbox(settings, scan_in_background=True, keep_records=True) as toolbox,
        ):
            await serve_http(
                toolbox,
                streamable=streamable,
                sse=sse,
                on_listening=announce_all,
                on_console=lambda url: announce(f"Console at {url}"),
            )

    collect_garbage()
    anyio.run(main)


@takes_settings()
def console(
    options: SettingsOptions,
    port: Annotated[int, typer.Option(min=0, max=65535, help=PORT)] = 0,
    actions: Annotated[bool, typer.Option("--actions", help="Tools can be called there, and runs cancelled.")] = False,
) -> None:
    """Look at runs in a browser: prints a link that opens the console once, on this machine, until it is interrupted.

    Runs of every server of this user are shown. Nobody else can open it, and no MCP is served.

    Example: praxis-mcp console --port 8080
    """
    pages: dict[str, Any] = {"enabled": True}
    if actions:
        pages["actions"] = True
    own = {"host": "127.0.0.1", "port": port, "console": pages, "tls_certificate": None, "tls_key": None}
    settings = options.read(http=own)
    _serve_http(settings, streamable=False, sse=False)
