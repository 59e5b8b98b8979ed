"""A console in this process, without a socket, and browsers that open it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from praxis_mcp.execution.toolbox import Toolbox, open_toolbox
from praxis_mcp.serving.access import hash_token
from praxis_mcp.serving.http.app import open_application
from praxis_mcp.serving.mcp.server import PraxisServer
from praxis_mcp.settings.http import AuthSettings, ConsoleSettings, HttpSettings
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import EngineSettings, LocalSettings, RecordSettings

BASE = "http://127.0.0.1:8000"
HTML = {"Accept": "text/html"}


@dataclass
class Ground:
    """A server with a console.

    Attributes:
        toolbox: what it serves.
        app: its application.
        links: the paths that it has given out.
    """

    toolbox: Toolbox
    app: Any
    links: list[str] = field(default_factory=list)

    def browser(self, **headers: str) -> httpx2.AsyncClient:
        """A browser without a session."""
        transport = httpx2.ASGITransport(app=self.app)
        return httpx2.AsyncClient(transport=transport, base_url=BASE, headers=HTML | headers, follow_redirects=True)

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[httpx2.AsyncClient]:
        """The browser of the person who started the server."""
        async with self.browser() as client:
            answer = await client.get(self.links[-1], follow_redirects=False)
            assert answer.status_code == 303, answer.text
            yield client

    @asynccontextmanager
    async def caller(self, token: str) -> AsyncIterator[httpx2.AsyncClient]:
        """The browser of a caller."""
        async with self.browser() as client:
            answer = await client.post("/console/login", data={"token": token}, follow_redirects=False)
            assert answer.status_code == 303, answer.text
            yield client


@asynccontextmanager
async def console(
    directory: Path,
    tokens: Mapping[str, tuple[str, ...]] | None = None,
    *,
    actions: bool = False,
    root: Path | None = None,
    streamable: bool = True,
    records: RecordSettings | None = None,
    **settings: Any,
) -> AsyncIterator[Ground]:
    """A server of the contracts in a directory, which keeps its records there.

    Args:
        directory: has ``tools`` and will have ``records``.
        tokens: scopes by token; a token's name is the token.
        actions: see `ConsoleSettings`.
        root: of the project; None is the directory.
        streamable: whether MCP is served.
        records: where they go; None is a directory of their own there.
        settings: other ones.
    """
    known = {name: {"sha256": hash_token(name), "scopes": scopes} for name, scopes in (tokens or {}).items()}
    (directory / "tools").mkdir(exist_ok=True)
    chosen = Settings(
        tools=(directory / "tools",),
        root=root or directory,
        reload=False,
        engines=EngineSettings(local=LocalSettings(sandbox="off")),
        records=records or RecordSettings(directory=directory / "records"),
        http=HttpSettings(
            auth=AuthSettings.model_validate({"tokens": known}),
            console=ConsoleSettings(enabled=True, actions=actions),
        ),
        **settings,
    )
    links: list[str] = []
    async with (
        open_toolbox(chosen, keep_records=True) as toolbox,
        PraxisServer.open(toolbox) as server,
        open_application(
            server, toolbox, streamable=streamable, sse=False, on_console_link=links.append
        ) as application,
    ):
        application.open_console()
        yield Ground(toolbox, application.asgi, links)


def csrf_of(page: httpx2.Response) -> str:
    """What the forms of a page carry."""
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]
