"""The page about what calls depend on: engines, what waits warm, upstreams, and their tools that wait for approval."""

from __future__ import annotations

import anyio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from praxis_mcp.engines.base import EngineStatus
from praxis_mcp.errors import ExecutionError, SettingsError
from praxis_mcp.serving.console.gate import CONSOLE_PATH, BadForm, read_form, session_of
from praxis_mcp.serving.console.sessions import Viewer
from praxis_mcp.serving.console.ui import ToolboxPages
from praxis_mcp.support.logs import logger

STATUS_PATH = CONSOLE_PATH + "/status"
_APPROVAL_FORM = 64 * 1024
_WANTING = "The state of engines and upstreams is shown to callers with the scope metrics:read."


class StatusPages(ToolboxPages):
    """The routes about engines and upstreams."""

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route(STATUS_PATH, self.show, methods=["GET"]),
            Route(STATUS_PATH + "/approve", self.approve, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Engines, pools and upstreams."""
        viewer = session_of(request).viewer
        if not viewer.sees_operations:
            raise BadForm(_WANTING)
        upstreams = self._toolbox.upstreams
        runner = self._toolbox.runner
        return self._ui.page(
            request,
            "status.html",
            engines=await self._engines(),
            pools=dict(self._toolbox.engines.warm()),
            running=runner.admission.running,
            waiting=runner.admission.waiting,
            upstreams=upstreams.reports(),
            was_approved=upstreams.approved_before,
            may_approve=self._may_approve(viewer),
        )

    async def approve(self, request: Request) -> Response:
        """Approve one tool of an upstream, as it was shown."""
        form = await read_form(request, _APPROVAL_FORM)
        if not self._may_approve(session_of(request).viewer):
            raise BadForm("Tools of upstreams cannot be approved here.")
        upstream, tool = form.get("upstream", [""])[0], form.get("tool", [""])[0]
        fingerprint = form.get("fingerprint", [""])[0]
        if not tool or not fingerprint:
            raise BadForm("It has to be said which tool is meant.")
        try:
            self._toolbox.upstreams.approve(upstream, [f"{tool}@{fingerprint}"])
        except (SettingsError, ExecutionError) as exc:
            return self._ui.trouble(request, 409, "Not approved", str(exc))
        logger.info("a tool of {} is approved in the console by its owner", upstream)
        return RedirectResponse(STATUS_PATH, status_code=303)

    def _may_approve(self, viewer: Viewer) -> bool:
        return viewer.is_owner and self._ui.takes_actions

    async def _engines(self) -> list[EngineStatus]:
        found: dict[str, EngineStatus] = {}
        names = self._toolbox.engines.names()

        async def look(name: str) -> None:
            found[name] = await self._toolbox.runner.selector.status(name)

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(look, name)
        return [found[name] for name in names]
