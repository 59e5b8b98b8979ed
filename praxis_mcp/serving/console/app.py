"""The console: pages in a browser about what a server runs and has run, below ``/console``.

Nothing of it is imported unless it is asked for (``serve --console``, ``praxis-mcp console``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any
from urllib.parse import urlencode

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from praxis_mcp.errors import ArgumentError, PraxisError, RecordsUnavailable, RunNotFoundError, UnknownToolError
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.access import BadToken
from praxis_mcp.serving.console.calls import CallPages
from praxis_mcp.serving.console.catalog_pages import CatalogPages
from praxis_mcp.serving.console.gate import (
    CONSOLE_PATH,
    LOGIN_PATH,
    RUNS_PATH,
    STATIC_PATH,
    BadForm,
    Gate,
    cookie_name,
    read_fields,
    read_form,
    session_of,
    set_session,
)
from praxis_mcp.serving.console.live import LivePages
from praxis_mcp.serving.console.reader import RunReader
from praxis_mcp.serving.console.run_pages import RunPages
from praxis_mcp.serving.console.sessions import Identify, Sessions
from praxis_mcp.serving.console.status_pages import StatusPages
from praxis_mcp.serving.console.templates import STATIC, Pages, digest, read_static
from praxis_mcp.serving.console.ui import Ui
from praxis_mcp.support.logs import logger

LOGIN_FORM = 20 * 1024
"""Bytes of a login: a JWT has at most 16 KiB."""
LOGIN_TIMEOUT = 10.0
"""Seconds in which a login must have come."""


class Console:
    """The console of one server.

    Args:
        toolbox: what is served.
        identify: whose a bearer token is; None where callers need none.
        owner_links: whether a link is given out that works once and opens the console as the person who started the
            server: where callers need no tokens, or this is that person's own look.
        on_link: is called with the path of each such link; a new one follows when one has been used.

    Raises:
        SettingsError: Jinja2 is not installed.
    """

    def __init__(
        self, toolbox: Toolbox, identify: Identify | None, *, owner_links: bool, on_link: Callable[[str], None]
    ) -> None:
        self._sessions = Sessions(identify)
        self._owner_links = owner_links
        self._on_link = on_link
        self._ui = Ui(
            Pages(release=version("praxis-mcp"), root=str(toolbox.settings.root), console=CONSOLE_PATH),
            takes_actions=toolbox.settings.http.console.actions,
        )
        reader = RunReader(toolbox.settings, toolbox.records.store)
        catalog = CatalogPages(toolbox, self._ui)
        calls = CallPages(toolbox, catalog, self._ui)
        self._routes = [
            Route(CONSOLE_PATH, self._index, methods=["GET"]),
            Route(CONSOLE_PATH + "/", self._index, methods=["GET"]),
            Route(CONSOLE_PATH + "/logout", self._log_out, methods=["POST"]),
            *catalog.routes(),
            *calls.routes(),
            *StatusPages(toolbox, self._ui).routes(),
            *LivePages(reader, self._sessions, self._ui).routes(),
            *RunPages(toolbox, reader, calls, self._ui).routes(),
        ]

    def asgi(self, bounded: Callable[[ASGIApp], ASGIApp]) -> ASGIApp:
        """The application.

        Args:
            bounded: puts what bounds a caller's requests and their bodies before an application.
        """
        login = Starlette(
            routes=[
                Route(LOGIN_PATH, self._login_page, methods=["GET"]),
                Route(LOGIN_PATH, self._log_in, methods=["POST"]),
                Route(STATIC_PATH + "{name:str}", self._static, methods=["GET"]),
            ]
        )
        pages = Starlette(routes=self._routes, exception_handlers=self._handlers())
        return Gate(bounded(pages), login, self._sessions)

    def announce(self) -> None:
        """Give out the first link."""
        if self._owner_links:
            self._on_link(f"{LOGIN_PATH}?{urlencode({'ticket': self._sessions.new_ticket()})}")
        else:
            self._on_link(CONSOLE_PATH)

    async def _index(self, request: Request) -> Response:
        return RedirectResponse(RUNS_PATH, status_code=303)

    async def _login_page(self, request: Request) -> Response:
        ticket = request.query_params.get("ticket", "")
        if ticket and request.method == "GET":  # not for a HEAD, by which chats look at links
            session_id = self._sessions.redeem(ticket)
            if session_id is not None:
                self.announce()
                response = RedirectResponse(CONSOLE_PATH, status_code=303)
                set_session(response, request, session_id)
                return response
            return self._login(request, "This link has been used. The server has printed another one.", status=403)
        return self._login(request)

    async def _log_in(self, request: Request) -> Response:
        with anyio.move_on_after(LOGIN_TIMEOUT):
            try:
                fields = await read_fields(request, LOGIN_FORM)
            except BadForm as exc:
                return self._login(request, str(exc), status=400)
            try:
                session_id = await self._sessions.log_in(fields.get("token", [""])[0].strip())
            except BadToken as exc:
                logger.info("a login to the console was refused: {}", exc)
                return self._login(request, f"{exc}.", status=403)
            wanted = fields.get("next", [""])[0]
            response = RedirectResponse(wanted if _is_here(wanted) else CONSOLE_PATH, status_code=303)
            set_session(response, request, session_id)
            return response
        return PlainTextResponse("The login did not come in time.", status_code=408, headers={"Connection": "close"})

    def _login(self, request: Request, trouble: str = "", status: int = 200) -> Response:
        return self._ui.page(
            request,
            "login.html",
            status=status,
            trouble=trouble,
            takes_tokens=self._sessions.takes_tokens,
            has_links=self._owner_links,
            following=request.query_params.get("next", ""),
        )

    async def _log_out(self, request: Request) -> Response:
        await read_form(request, LOGIN_FORM)
        self._sessions.end(request.cookies.get(cookie_name(request.headers), ""))
        response = RedirectResponse(LOGIN_PATH, status_code=303)
        set_session(response, request, "")
        return response

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            return PlainTextResponse("There is no such file.", status_code=404)
        current = request.query_params.get("v") == digest(name)[:16]
        kept = "max-age=31536000, immutable" if current else "no-cache"
        return Response(read_static(name), headers={"Content-Type": STATIC[name], "Cache-Control": kept})

    def _handlers(self) -> dict[Any, Callable[[Request, Any], Awaitable[Response]]]:
        async def not_found(request: Request, exc: PraxisError) -> Response:
            return self._ui.trouble(request, 404, "Not found", exc.message)

        async def nothing_there(request: Request, exc: Exception) -> Response:
            return self._ui.trouble(request, 404, "Not found", "There is no such page.")

        async def bad_form(request: Request, exc: BadForm) -> Response:
            return self._ui.trouble(request, 403, "Refused", str(exc))

        async def unavailable(request: Request, exc: PraxisError) -> Response:
            text = str(exc) if session_of(request).viewer.is_owner else "The records cannot be read now."
            return self._ui.trouble(request, 503, "Records cannot be read", text)

        async def refused(request: Request, exc: PraxisError) -> Response:
            return self._ui.trouble(request, 400, "Refused", exc.message)

        async def defect(request: Request, exc: Exception) -> Response:
            return self._ui.trouble(request, 500, "Something broke", "This page has a defect; the log says where.")

        return {
            404: nothing_there,
            Exception: defect,
            RunNotFoundError: not_found,
            UnknownToolError: not_found,
            BadForm: bad_form,
            RecordsUnavailable: unavailable,
            ArgumentError: refused,
        }


def _is_here(path: str) -> bool:
    """Whether a browser that is sent there stays in the console: ``//host`` and ``/\\host`` would not."""
    return (path == CONSOLE_PATH or path.startswith(CONSOLE_PATH + "/")) and "\\" not in path and path.isprintable()
