"""Calls that are made in the console: a form is sent, and the page of its run shows how it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from praxis_mcp.errors import ArgumentError, ExecutionError, PraxisError
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.federation.upstreams import Entry
from praxis_mcp.plans.build import new_run_id
from praxis_mcp.serving.console.catalog_pages import TOOLS_PATH, CatalogPages
from praxis_mcp.serving.console.forms import ARGUMENT, fields_of, read_arguments
from praxis_mcp.serving.console.gate import RUNS_PATH, BadForm, read_form, session_of
from praxis_mcp.serving.console.reader import no_such_run
from praxis_mcp.serving.console.sessions import Viewer
from praxis_mcp.serving.console.ui import ToolboxPages, Ui
from praxis_mcp.support.logs import report_defect

CLIENT = "console"
"""What records call the program that such calls come from."""
MAX_REMEMBERED = 256
"""Calls without a record that are remembered; the oldest is forgotten."""


@dataclass(slots=True)
class Pending:
    """A call that has no record, yet or at all.

    Attributes:
        viewer: who made it.
        tool: which.
        error: why there will be none; empty while it waits.
    """

    viewer: Viewer
    tool: str
    error: str = ""


class CallPages(ToolboxPages):
    """The route that calls a tool.

    Args:
        toolbox: calls it.
        catalog: finds it.
        ui: makes pages.
    """

    def __init__(self, toolbox: Toolbox, catalog: CatalogPages, ui: Ui) -> None:
        super().__init__(toolbox, ui)
        self._catalog = catalog
        self._pending: dict[str, Pending] = {}

    def routes(self) -> list[Route]:
        """All of them."""
        return [Route(TOOLS_PATH + "/{name:str}/call", self.call, methods=["POST"])]

    async def call(self, request: Request) -> Response:
        """Begin a call, and show its run."""
        viewer, name = session_of(request).viewer, request.path_params["name"]
        form = await read_form(request, self._toolbox.settings.http.max_body)
        if not self._ui.takes_actions:
            raise BadForm("Tools cannot be called here (http.console.actions).")
        if not viewer.caller.may_call(name):
            self._toolbox.runner.tally.refuse(name, viewer.caller.name, "forbidden", CLIENT)
        entry = self._catalog.find(viewer, name)
        given = {key.removeprefix(ARGUMENT): values[0] for key, values in form.items() if key.startswith(ARGUMENT)}
        try:
            arguments = read_arguments(fields_of(entry.input_schema), given)
        except ArgumentError as exc:
            return await self._catalog.page_of(request, entry, given, exc.message, status=400)
        run_id = new_run_id()
        self._pending[run_id] = Pending(viewer, entry.name)
        while len(self._pending) > MAX_REMEMBERED:
            del self._pending[next(iter(self._pending))]
        work = BackgroundTask(partial(self._run, viewer, entry, arguments, run_id))
        return RedirectResponse(f"{RUNS_PATH}/{run_id}", status_code=303, background=work)

    def waiting(self, request: Request, run_id: str) -> Response:
        """The page of a call that has no record.

        Raises:
            RunNotFoundError: there is no such call of this viewer.
        """
        pending = self._pending.get(run_id)
        if pending is None or pending.viewer != session_of(request).viewer:
            raise no_such_run(run_id)
        return self._ui.page(request, "waiting.html", tool=pending.tool, trouble=pending.error)

    async def _run(self, viewer: Viewer, entry: Entry, arguments: Mapping[str, Any], run_id: str) -> None:
        caller = viewer.caller.name
        try:
            if isinstance(entry, RemoteTool):
                relays = self._toolbox.relays
                found = await relays.find(entry.name)
                if found is None:
                    raise ExecutionError(f"{entry.name} is not served any more.")
                await relays.call(found, arguments, caller=caller, client=CLIENT, run_id=run_id)
            else:
                await self._toolbox.runner.call(entry.name, arguments, caller=caller, client=CLIENT, run_id=run_id)
        except PraxisError as exc:
            self._failed(run_id, str(exc))
        except Exception as exc:  # noqa: BLE001 - one call's defect must not look like the server's
            self._failed(run_id, report_defect(f"{entry.name} was called in the console", exc))
        else:
            self._pending.pop(run_id, None)

    def _failed(self, run_id: str, error: str) -> None:
        if run_id in self._pending:
            self._pending[run_id].error = error
