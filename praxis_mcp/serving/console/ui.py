"""Pages as answers to requests."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse

from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.console.gate import SESSION_KEY
from praxis_mcp.serving.console.templates import Pages


class Ui:
    """Makes pages for requests.

    Args:
        pages: the templates.
        takes_actions: whether calls can be made and cancelled.
    """

    def __init__(self, pages: Pages, *, takes_actions: bool) -> None:
        self._pages = pages
        self.takes_actions = takes_actions

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page for who asks."""
        session = request.scope.get(SESSION_KEY)
        text = self._pages.render(
            template,
            here=request.url.path,
            viewer=session.viewer if session is not None else None,
            csrf=session.csrf if session is not None else "",
            takes_actions=self.takes_actions,
            **values,
        )
        return HTMLResponse(text, status_code=status)

    def trouble(self, request: Request, status: int, title: str, text: str) -> HTMLResponse:
        """A page that says what is wrong."""
        return self.page(request, "trouble.html", status=status, title=title, text=text)


class ToolboxPages:
    """Pages about what a toolbox has.

    Args:
        toolbox: has it.
        ui: makes pages.
    """

    def __init__(self, toolbox: Toolbox, ui: Ui) -> None:
        self._toolbox = toolbox
        self._ui = ui
