"""Serving MCP over HTTP, from start to shutdown. Not imported by servers on stdio, which start faster without it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import closing
from socket import socket

import anyio

from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.http.app import MCP_PATH, SSE_PATH, HttpApplication, open_application
from praxis_mcp.serving.http.certificates import Certificates
from praxis_mcp.serving.http.guard import bracketed
from praxis_mcp.serving.http.listening import open_listener
from praxis_mcp.serving.http.web_server import WebServer
from praxis_mcp.serving.library_logs import library_logs
from praxis_mcp.serving.mcp.server import PraxisServer, build_server
from praxis_mcp.serving.service_manager import ServiceManager
from praxis_mcp.serving.stopping import stop_signals
from praxis_mcp.settings.http import HttpSettings
from praxis_mcp.support.groups import unwrapped
from praxis_mcp.support.logs import logger

RESPONSES_END_TIMEOUT = 5.0
"""Seconds that responses and connections may take to end once nothing is left to be said on them."""
LAST_MESSAGES = 0.1
"""Seconds for an answer that is ready at shutdown to reach its stream."""


async def serve_http(
    toolbox: Toolbox,
    *,
    streamable: bool = True,
    sse: bool = False,
    on_listening: Callable[[tuple[str, ...]], None] = lambda urls: None,
) -> None:
    """Serve any number of clients over HTTP, until the process is told to stop.

    At the first SIGINT, SIGTERM or SIGHUP no more connections are taken, subscriptions end, and running calls may go on
    for `HttpSettings.drain` seconds; then they are cancelled, and what they started is killed. A second signal cancels
    them at once, a third ends the process. A service manager that asks for it (systemd's ``Type=notify``) hears when
    the server is ready, that it lives, and that it ends.

    Args:
        toolbox: what to serve; its settings say where and for whom.
        streamable: serve Streamable HTTP, of every protocol revision, at ``/mcp``.
        sse: serve HTTP+SSE, of 2024-11-05, at ``/sse``.
        on_listening: told the URLs once connections are taken.

    Raises:
        SettingsError: the address, the certificate or the keys of the settings cannot be used, or everyone could call.
    """
    settings = toolbox.settings.http
    manager = ServiceManager.take()
    certificates = Certificates.of(settings)
    with closing(await open_listener(settings)) as listener, library_logs():
        paths = ((MCP_PATH,) if streamable else ()) + ((SSE_PATH,) if sse else ())
        listening = anyio.Event()
        urls = tuple(_url(settings, listener) + path for path in paths)
        async with (
            build_server(toolbox) as server,
            open_application(server, toolbox, streamable=streamable, sse=sse) as application,
        ):
            web = WebServer(
                application.asgi,
                settings,
                certificates.context if certificates else None,
                close_timeout=settings.drain + RESPONSES_END_TIMEOUT,
                on_listening=listening.set,
            )

            async def tell_when_ready() -> None:
                await listening.wait()
                on_listening(urls)
                await toolbox.loaded()
                await toolbox.upstreams.asked()
                manager.ready(f"Listening on {' '.join(urls)}")

            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(tell_when_ready)
                    tasks.start_soon(manager.keep_alive)
                    await _run(web, listener, server, application, settings.drain, certificates, manager)
                    tasks.cancel_scope.cancel()


async def _run(
    web: WebServer,
    listener: socket,
    server: PraxisServer,
    application: HttpApplication,
    drain: float,
    certificates: Certificates | None,
    manager: ServiceManager,
) -> None:
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_shut_down_when_told, web, server, application, drain, manager)
            if certificates is not None:
                tasks.start_soon(certificates.watch)
            try:
                await web.serve(sockets=[listener])
            finally:
                with anyio.move_on_after(RESPONSES_END_TIMEOUT, shield=True):
                    application.asgi.cancel_all()
                    if web.started and not web.should_exit:  # cancelled from outside
                        web.force_exit = True
                        await web.shutdown(sockets=[listener])
                    await application.asgi.ended()
            tasks.cancel_scope.cancel()


async def _shut_down_when_told(
    web: WebServer, server: PraxisServer, application: HttpApplication, drain: float, manager: ServiceManager
) -> None:
    with anyio.open_signal_receiver(*stop_signals()) as signals:
        async for number in signals:
            logger.info("{}: shutting down; running calls have {:g} s", signal.Signals(number).name, drain)
            break
        manager.stopping(within=drain + 3 * RESPONSES_END_TIMEOUT)
        web.should_exit = True
        server.end_subscriptions()

        async def hurry(scope: anyio.CancelScope) -> None:
            async for number in signals:
                logger.info("{} again: cancelling what still runs", signal.Signals(number).name)
                scope.cancel()
                return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hurry, tasks.cancel_scope)
            with anyio.move_on_after(drain):
                await application.idle()
                await anyio.sleep(LAST_MESSAGES)
            tasks.cancel_scope.cancel()
        application.asgi.cancel_streams()
        if not application.is_idle:
            logger.warning("calls that still run are cancelled")
        application.asgi.cancel_all()
        with anyio.move_on_after(RESPONSES_END_TIMEOUT):
            await application.asgi.ended()
    web.force_exit = True  # connections that their clients leave open are not waited for


def _url(settings: HttpSettings, listener: socket) -> str:
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{bracketed(settings.host)}:{listener.getsockname()[1]}"
