"""The console next to everything else that is served over HTTP: same tokens, same bounds, and closed to
pages of other origins, which may call the rest."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.access import BadToken, Caller
from praxis_mcp.serving.console.app import Console
from praxis_mcp.serving.http.auth import Authentication
from praxis_mcp.serving.http.jwt_tokens import KeysUnavailable
from praxis_mcp.serving.http.middleware import BodyLimit
from praxis_mcp.serving.http.requests import CallerShares
from praxis_mcp.settings.http import CONSOLE_PATH


class WithConsole:
    """ASGI middleware that serves the console below its path, and the application everywhere else.

    Args:
        app: everything else.
        toolbox: what is served.
        authentication: knows the callers.
        stands: whether a request is a standing stream.
        owner_links, on_link: see `Console`.

    Raises:
        SettingsError: what the console needs is not installed.
    """

    def __init__(
        self,
        app: ASGIApp,
        toolbox: Toolbox,
        authentication: Authentication,
        stands: Callable[[Scope], bool],
        *,
        owner_links: bool,
        on_link: Callable[[str], None],
    ) -> None:
        async def identify(token: str) -> Caller:
            try:
                return await authentication.identify(token)
            except KeysUnavailable as exc:
                raise BadToken("Tokens cannot be checked at the moment") from exc

        settings = toolbox.settings.http

        def bounded(pages: ASGIApp) -> ASGIApp:
            return CallerShares(BodyLimit(pages, settings), settings, stands=stands, opens_sessions="")

        self._app = app
        self._console = Console(
            toolbox, None if authentication.is_open else identify, owner_links=owner_links, on_link=on_link
        )
        self._pages = self._console.asgi(bounded)

    def announce(self) -> None:
        """See `Console.announce`."""
        self._console.announce()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path: str = scope["path"]
        is_console = path == CONSOLE_PATH or path.startswith(f"{CONSOLE_PATH}/")
        await (self._pages if is_console else self._app)(scope, receive, send)
