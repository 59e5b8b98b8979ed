"""Pages about runs: the list, one run with all that is kept of it, what goes on now, and the files of a run."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from praxis_mcp.engines.output import StreamName
from praxis_mcp.engines.phases import Phase
from praxis_mcp.errors import RunNotFoundError
from praxis_mcp.execution.outcomes import OUTCOMES
from praxis_mcp.execution.records.database import Filters
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.execution.toolbox import Toolbox
from praxis_mcp.serving.console.calls import CallPages
from praxis_mcp.serving.console.changes import changes_shown
from praxis_mcp.serving.console.gate import RUNS_PATH, BadForm, read_form, session_of
from praxis_mcp.serving.console.preview import MAX_PREVIEWS, Preview, image_type, preview
from praxis_mcp.serving.console.reader import RunDetails, RunReader
from praxis_mcp.serving.console.sessions import Viewer
from praxis_mcp.serving.console.text import Excerpt, LiveText, excerpt
from praxis_mcp.serving.console.ui import ToolboxPages, Ui
from praxis_mcp.support.logs import logger
from praxis_mcp.support.rooted import open_kept

RUNS_ON_A_PAGE = 50
"""Runs on one page of the list."""
AGES = {"1h": 3600.0, "1d": 86_400.0, "7d": 7 * 86_400.0}
LIVE_SHOWN = 64 * 1024
"""Characters of a stream that goes on which its page begins with."""
_PIECE = 256 * 1024
_SMALL_FORM = 8 * 1024
_UNSAFE_TO_OPEN = "default-src 'none'; sandbox"
"""Content Security Policy of what tools wrote: opened by itself, it can load and run nothing."""


@dataclass(frozen=True, slots=True)
class PhaseBar:
    """One phase of a run, as a part of a bar of 1000 units."""

    name: str
    seconds: float
    start: float
    width: float


class RunPages(ToolboxPages):
    """The routes about runs.

    Args:
        toolbox: whose runs go on in this process.
        reader: the store.
        calls: knows those that have no record yet.
        ui: makes pages.
    """

    def __init__(self, toolbox: Toolbox, reader: RunReader, calls: CallPages, ui: Ui) -> None:
        super().__init__(toolbox, ui)
        self._reader = reader
        self._calls = calls

    def routes(self) -> list[Route]:
        """All of them."""
        one = RUNS_PATH + "/{run_id:str}"
        return [
            Route(RUNS_PATH, self.list_runs, methods=["GET"]),
            Route(one, self.show, methods=["GET"]),
            Route(one + "/cancel", self.cancel, methods=["POST"]),
            Route(one + "/artifacts/{number:str}", self.artifact, methods=["GET"]),
            Route(one + "/{stream:str}.txt", self.stream, methods=["GET"]),
        ]

    async def list_runs(self, request: Request) -> Response:
        """The newest runs that fit."""
        viewer = session_of(request).viewer
        wanted = {name: request.query_params.get(name, "")[:128] for name in ("tool", "engine", "outcome", "caller")}
        if not viewer.sees_all_runs:
            wanted["caller"] = ""
        age = request.query_params.get("age", "")
        since = time.time() - AGES[age] if age in AGES else None
        filters = Filters(**wanted, since=since, until=_number(request.query_params.get("before", "")))
        runs = await self._reader.runs(viewer, filters, RUNS_ON_A_PAGE + 1)
        more = runs is not None and len(runs) > RUNS_ON_A_PAGE
        shown = (runs or [])[:RUNS_ON_A_PAGE]
        is_newest = "before" not in request.query_params
        following = {name: value for name, value in {**wanted, "age": age}.items() if value}
        return self._ui.page(
            request,
            "runs.html",
            runs=shown,
            is_recorded=runs is not None and bool(runs or following or not is_newest or not viewer.sees_all_runs),
            wanted={**wanted, "age": age},
            outcomes=OUTCOMES,
            ages=tuple(AGES),
            older={**following, "before": repr(shown[-1].started)} if more else None,
            is_newest=is_newest,
        )

    async def show(self, request: Request) -> Response:
        """One run."""
        try:
            details = await self._details(request)
        except RunNotFoundError:
            return self._calls.waiting(request, request.path_params["run_id"])
        run, viewer = details.run, session_of(request).viewer
        shown = await anyio.to_thread.run_sync(partial(_excerpts, details))
        previews = await anyio.to_thread.run_sync(partial(_previews, details))
        # Another caller's call on the same mount may have written there meanwhile.
        with_content = viewer.sees_all_runs
        changes = await anyio.to_thread.run_sync(partial(changes_shown, run, with_content=with_content))
        tool = self._toolbox.catalog.find(run.tool)
        return self._ui.page(
            request,
            "run.html",
            run=run,
            # Another project's tool of the same name is another tool.
            is_served=tool is not None and str(tool.source) == run.contract and viewer.caller.may_call(run.tool),
            facts=run.as_json(),
            streams=shown,
            artifacts=previews,
            changes=changes,
            phases=bars(run),
            after=details.live[-1][0] + 1 if details.live else 0,
            may_cancel=self._may_cancel(viewer, run),
        )

    async def cancel(self, request: Request) -> Response:
        """End a run that goes on here."""
        run = (await self._details(request)).run
        await read_form(request, _SMALL_FORM)
        viewer = session_of(request).viewer
        if not self._may_cancel(viewer, run):
            raise BadForm("This run cannot be cancelled here.")
        self._toolbox.records.cancel(run.id)
        logger.info("run {} is cancelled in the console by {}", run.id, viewer.caller.name or "its owner")
        return RedirectResponse(f"{RUNS_PATH}/{run.id}", status_code=303)

    async def stream(self, request: Request) -> Response:
        """All that is kept of a stream, to download."""
        name = request.path_params["stream"]
        details = await self._details(request)
        if name not in ("stdout", "stderr"):
            raise RunNotFoundError("A run has stdout and stderr.")
        source = details.streams.get("stdout" if name == "stdout" else "stderr")
        if source is None:
            source = b"".join(data for _, stream, data in details.live if stream == name)
        return _download(source, f"{details.run.tool}-{details.run.id[:12]}-{name}.txt")

    async def artifact(self, request: Request) -> Response:
        """A file that a run left: an image to look at, or anything to download."""
        details = await self._details(request)
        numbered = {str(number): item for number, item in enumerate(details.artifacts)}
        item = numbered.get(request.path_params["number"])
        if item is None:
            raise RunNotFoundError("The run has no such artifact, or it is no longer kept.")
        if "image" in request.query_params:
            mime = await anyio.to_thread.run_sync(image_type, item)
            if mime is None:
                raise RunNotFoundError("This artifact is not an image.")
            return _download(item.file, None, mime)
        return _download(item.file, Path(item.name).name)

    async def _details(self, request: Request) -> RunDetails:
        return await self._reader.details(session_of(request).viewer, request.path_params["run_id"])

    def _may_cancel(self, viewer: Viewer, run: StoredRun) -> bool:
        is_here = run.ended is None and run.server == self._toolbox.records.server
        return self._ui.takes_actions and is_here and viewer.owns(run)


def bars(run: StoredRun) -> tuple[PhaseBar, ...]:
    """The phases of a run, in their order, as parts of a bar."""
    phases: dict[str, float] = run.as_json()["phases"]
    known = list(Phase)
    order = sorted(phases, key=lambda name: known.index(Phase(name)) if name in known else len(known))
    total = sum(phases.values()) or 1.0
    found: list[PhaseBar] = []
    start = 0.0
    for name in order:
        width = 1000 * phases[name] / total
        found.append(PhaseBar(name, phases[name], round(start, 1), round(width, 1)))
        start += width
    return tuple(found)


def _excerpts(details: RunDetails) -> dict[StreamName, Excerpt]:
    if details.run.ended is not None:
        return {name: excerpt(source) for name, source in details.streams.items()}
    names: tuple[StreamName, ...] = ("stdout", "stderr")
    found: dict[StreamName, Excerpt] = {}
    for name in names:
        text = LiveText()
        pieces = [data for _, stream, data in details.live if stream == name]
        shown = "".join(map(text.add, pieces))
        size = sum(map(len, pieces))
        found[name] = Excerpt(size, shown[-LIVE_SHOWN:])
    return found


def _previews(details: RunDetails) -> list[tuple[int, str, int, Preview]]:
    """Number, name, bytes and what to show of each artifact."""
    return [
        (number, item.name, item.size, preview(item) if number < MAX_PREVIEWS else Preview("binary"))
        for number, item in enumerate(details.artifacts)
    ]


def _download(source: bytes | Path, name: str | None, mime: str = "application/octet-stream") -> Response:
    headers = {"Content-Security-Policy": _UNSAFE_TO_OPEN}
    if name is not None:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        headers["Content-Disposition"] = f'attachment; filename="{plain[-128:] or "file"}"'
    if isinstance(source, bytes):
        return Response(source, media_type=mime, headers=headers)
    return StreamingResponse(_pieces(source), media_type=mime, headers=headers)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    offset = 0
    while True:
        data = await anyio.to_thread.run_sync(_read, path, offset)
        if not data:
            return
        offset += len(data)
        yield data


def _read(path: Path, offset: int) -> bytes:
    try:
        with open_kept(path) as file:
            file.seek(offset)
            return file.read(_PIECE)
    except OSError:  # it has been removed meanwhile
        return b""


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < 1e12 else None
