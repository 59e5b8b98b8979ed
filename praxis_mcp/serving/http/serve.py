"""Serving MCP over HTTP, from opening the socket to shutdown. Servers on stdio do not import it, so that they start
faster."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from contextlib import closing

import anyio

from praxis_mcp.errors import SettingsError
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.http.app import MCP_PATH, SSE_PATH, HttpApplication, open_application
from praxis_mcp.serving.http.middleware import bracketed
from praxis_mcp.serving.http.web_server import Certificates, WebServer, library_logs
from praxis_mcp.serving.lifetime import ServiceManager, stop_signals
from praxis_mcp.serving.mcp.server import PraxisServer
from praxis_mcp.settings.http import HttpSettings
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import unwrapped

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
    on_console: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve any number of clients over HTTP, until a signal stops the process.

    With neither transport it is the console alone.

    At the first SIGINT, SIGTERM or SIGHUP ``/ready`` begins to say no. `HttpSettings.drain_delay` seconds later no more
    calls are taken, subscriptions end, and running calls may go on for `HttpSettings.drain` seconds; then they are
    cancelled, and what they started is killed. A second signal cancels them at once, a third ends the process.

    A service manager that asks for it (systemd's ``Type=notify``) is notified when the server is ready, that it lives,
    and that it ends.

    Args:
        toolbox: what to serve; its settings say where and for whom.
        streamable: serve Streamable HTTP, of every protocol revision, at ``/mcp``.
        sse: serve HTTP+SSE, of 2024-11-05, at ``/sse``.
        on_listening: called with the URLs once connections are taken.
        on_console: called with the URL at which the console is to be opened, where the settings enable it; where that
            works only once, again with the next one.

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
            PraxisServer.open(toolbox) as server,
            open_application(
                server,
                toolbox,
                streamable=streamable,
                sse=sse,
                on_console_link=lambda path: on_console(_url(settings, listener) + path),
            ) as application,
        ):
            web = WebServer(
                application.entry,
                settings,
                certificates.context if certificates else None,
                close_timeout=RESPONSES_END_TIMEOUT,
                on_listening=listening.set,
            )

            async def notify_when_ready() -> None:
                await listening.wait()
                on_listening(urls)
                application.open_console()
                await toolbox.loaded()
                await toolbox.upstreams.wait_attempted()
                manager.ready(f"Listening on {' '.join(urls)}")

            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(notify_when_ready)
                    tasks.start_soon(manager.keep_alive)
                    tasks.start_soon(_shut_down_on_signal, web, server, application, settings, manager)
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


async def _shut_down_on_signal(
    web: WebServer, server: PraxisServer, application: HttpApplication, settings: HttpSettings, manager: ServiceManager
) -> None:
    delay, drain = settings.drain_delay, settings.drain
    with anyio.open_signal_receiver(*stop_signals()) as signals:
        async for number in signals:
            logger.info("{}: shutting down; running calls have {:g} s", signal.Signals(number).name, delay + drain)
            break
        manager.stopping(within=delay + drain + 3 * RESPONSES_END_TIMEOUT)
        application.drain.leave()

        def take_nothing_new() -> None:
            application.drain.refuse()
            server.take_nothing_new()

        async def hurry(scope: anyio.CancelScope) -> None:
            async for number in signals:
                logger.info("{} again: cancelling what still runs", signal.Signals(number).name)
                scope.cancel()
                return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hurry, tasks.cancel_scope)
            if delay > 0:
                await anyio.sleep(delay)
            take_nothing_new()
            with anyio.move_on_after(drain):
                await application.idle()
                await server.tasks_ended()
                await anyio.sleep(LAST_MESSAGES)
            tasks.cancel_scope.cancel()
        take_nothing_new()
        web.should_exit = True
        application.asgi.cancel_streams()
        if not application.is_idle:
            logger.warning("calls that still run are cancelled")
        application.asgi.cancel_all()
        with anyio.move_on_after(RESPONSES_END_TIMEOUT):
            await application.asgi.ended()
    web.force_exit = True  # connections that their clients leave open are not waited for


def _url(settings: HttpSettings, listener: socket.socket) -> str:
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{bracketed(settings.host)}:{listener.getsockname()[1]}"


async def open_listener(settings: HttpSettings) -> socket.socket:
    """A socket bound to the settings' address; where the host's name has several, to the first.

    Raises:
        SettingsError: the address does not exist, is in use, or can be reached from elsewhere while nobody would have
            to show who they are.
    """
    try:
        found = await anyio.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise SettingsError(
            f"The host {settings.host} cannot be listened on: {exc.strerror}.", remedy="Fix http.host or --host."
        ) from exc
    family, kind, protocol, _, address = found[0]
    check_exposure(settings, str(address[0]))
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # Else the port of a server that has just ended cannot be used again for a minute.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(address)
    except OSError as exc:
        listener.close()
        raise SettingsError(
            f"Port {settings.port} of {settings.host} cannot be listened on: {os.strerror(exc.errno or 0)}.",
            remedy="Stop what uses it, or choose another with --port; --port 0 takes any free one.",
        ) from exc
    return listener


def check_exposure(settings: HttpSettings, address: str) -> None:
    """Refuse to be reached from elsewhere by people who need not show who they are.

    Raises:
        SettingsError: that is how it would be.
    """
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return
    if not settings.auth.required and not settings.proxy_authenticates:
        raise SettingsError(
            f"{settings.host} can be reached from other machines, and anyone who does could call every tool.",
            remedy="Listen on 127.0.0.1; or give callers tokens (praxis-mcp token new) or name an OAuth issuer "
            "(http.auth.oauth). Where a proxy in front lets nobody else through, say http.proxy_authenticates: true.",
        )
    if settings.tls_certificate is None and not settings.proxy_authenticates:
        logger.warning("tokens travel unencrypted unless something in front adds TLS (http.tls_certificate)")
    if not settings.allowed_hosts and ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        logger.warning("clients on other machines are refused until http.allowed_hosts says how they call this server")
