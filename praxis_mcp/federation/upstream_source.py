"""One upstream of the settings: its tools, listed at first, when it says that they changed, and now and then."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import anyio
import anyio.to_thread

from praxis_mcp.contracts.schemas.patterns import PatternBudget
from praxis_mcp.errors import PraxisError
from praxis_mcp.federation.remote_tools import UPSTREAM_BYTES, RemoteTool, Unusable, adapt, fingerprint
from praxis_mcp.plans.secrets import resolve_headers, resolve_secret, resolve_values
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger, places
from praxis_mcp.support.tasks import BackgroundTasks
from praxis_mcp.upstreams.connection import UPSTREAM_CLOSE_TIMEOUT
from praxis_mcp.upstreams.spec import OAuthClient, UpstreamSpec
from praxis_mcp.upstreams.upstream import Upstream

SETTLE = 0.1
"""Seconds in which further changes join the first."""
RETRY_FIRST = 1.0
RETRY_LONGEST = 60.0
"""Seconds until a list that failed is asked for again; doubled by each further failure."""
DOWN_KEPT = 600.0
"""Seconds for which the tools of an upstream that is down stay listed."""


class UpstreamSource:
    """The tools of one upstream.

    Attributes:
        name: of the upstream.
        settings: of the upstream.
        tools: what can be republished, in the order of names; kept for `DOWN_KEPT` seconds while it is down.
        unusable: name there, and why it cannot be.
        attempted: set when its tools were asked for once, with or without success.
        refusal: why it is never connected to; empty where it may be.
    """

    def __init__(self, name: str, settings: Settings, prefix: str, refusal: str = "") -> None:
        """`prefix`: of the names that its tools have here."""
        self.name = name
        self.settings = settings.upstreams[name]
        self.tools: tuple[RemoteTool, ...] = ()
        self.unusable: tuple[tuple[str, str], ...] = ()
        self.attempted = anyio.Event()
        self._all = settings
        self._prefix = prefix
        self._background = BackgroundTasks()
        self._upstream: Upstream | None = None
        self._wake = anyio.Event()
        self.refusal = refusal
        self._trouble = refusal
        self._remark = ""

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return UpstreamSpec(self.name, self.settings.address, self.settings.transport).place

    @property
    def version(self) -> str:
        """The protocol revision used with it; empty before the first connection."""
        return (self._upstream.protocol_version if self._upstream else None) or ""

    @property
    def trouble(self) -> str:
        """Why its tools could not be listed the last time; empty where they could."""
        return self._trouble

    def upstream(self) -> Upstream:
        """The server.

        Raises:
            SettingsError: a secret that it needs is missing.
        """
        if self._upstream is None:
            self._upstream = Upstream(self._spec(), self._background, self._changed)
        return self._upstream

    async def run(self, on_listed: Callable[[], None]) -> None:
        """Keep `tools` up to date until cancelled; `on_listed` is called whenever they may have changed."""
        if self.refusal:
            logger.error("the upstream {}: {}", self.name, self.refusal)
            self.attempted.set()
            on_listed()
            return
        failures, down_since = 0, None
        while True:
            self._wake = anyio.Event()
            try:
                await self._list()
            except Exception as exc:  # noqa: BLE001 - whatever one upstream sends must not end the lists of the others
                failures += 1
                down_since = down_since if down_since is not None else anyio.current_time()
                trouble = str(exc) if isinstance(exc, PraxisError) else self._defect("its list of tools", exc)
                if trouble != self._trouble:
                    logger.warning("the upstream {} has no list of tools: {}", self.name, trouble)
                self._trouble = trouble
                if anyio.current_time() - down_since >= DOWN_KEPT:
                    self.tools = ()
                pause = min(RETRY_FIRST * 2 ** (failures - 1), RETRY_LONGEST)
            else:
                failures, down_since, self._trouble = 0, None, ""
                pause = self.settings.refresh
            self.attempted.set()
            on_listed()
            await self._pause(pause)

    async def close(self) -> None:
        """Close the connection; a server that was started by command ends."""
        if self._upstream is not None:
            await self._upstream.close()
        await self._background.close(UPSTREAM_CLOSE_TIMEOUT)

    async def _pause(self, seconds: float) -> None:
        while True:
            with anyio.move_on_after(seconds) as scope:
                await self._wake.wait()
            idle = self._upstream is not None and self._upstream.spec.words and not self._upstream.is_connected
            if scope.cancelled_caught and idle and not self._trouble:
                continue  # it was ended because nobody calls it: it is not started only to be asked
            if not scope.cancelled_caught:
                await anyio.sleep(SETTLE)
            return

    async def _list(self) -> None:
        listed = await self.upstream().list_tools()
        known = {tool.remote_name: tool for tool in self.tools}
        tools, unusable = await anyio.to_thread.run_sync(lambda: self._adapt(listed.tools, known))
        unusable = [*listed.left_out, *unusable]
        if listed.remark and listed.remark != self._remark:
            logger.warning("the upstream {}: {}", self.name, listed.remark)
        self._remark = listed.remark
        for name, reason in unusable:
            if (name, reason) not in self.unusable:
                logger.warning("{} of the upstream {} is not served: {}", name[:140], self.name, reason)
        for tool in tools:
            if tool is not known.get(tool.remote_name):
                for note in tool.notes:
                    logger.warning("{} of the upstream {}: {}", tool.remote_name, self.name, note)
        self.tools, self.unusable = tuple(tools), tuple(unusable)

    def _adapt(
        self, listed: list[dict[str, Any]], known: Mapping[str, RemoteTool]
    ) -> tuple[list[RemoteTool], list[tuple[str, str]]]:
        tools: dict[str, RemoteTool] = {}
        unusable: list[tuple[str, str]] = []
        patterns = PatternBudget(UPSTREAM_BYTES)
        masker = self.upstream().masker
        for entry in listed:
            raw, name = entry, masker.text(entry["name"])
            if not self._wanted(name):
                continue
            try:
                raw = masker.json(entry) if masker else entry
                tool = adapt(raw, self.name, self._name_here(name), self.settings.describe.get(name), patterns)
            except Unusable as exc:
                unusable.append((name, str(exc)))
                continue
            except Exception as exc:  # noqa: BLE001 - what one tool says must not cost the others
                unusable.append((name, self._defect("what it says of itself", exc, name)))
                continue
            if (other := tools.get(tool.name)) is not None:
                if (other.remote_name, other.fingerprint) != (name, tool.fingerprint):  # else it is listed twice
                    unusable.append((name, f"it has another tool that is named {tool.name} here"))
                continue
            old = known.get(name)
            unchanged = old is not None and old.fingerprint == fingerprint(raw) and old.via == tool.via
            tools[tool.name] = old if old is not None and unchanged else tool
        return [tools[name] for name in sorted(tools)], unusable

    def _wanted(self, name: str) -> bool:
        return any(fnmatchcase(name, glob) for glob in self.settings.include) and not any(
            fnmatchcase(name, glob) for glob in self.settings.exclude
        )

    def _name_here(self, name: str) -> str:
        return self._prefix + self.settings.rename.get(name, name)

    def _changed(self) -> None:
        self._wake.set()

    def _spec(self) -> UpstreamSpec:
        settings = self.settings
        hidden: list[str] = []
        who = f"The upstream {self.name}"
        headers = resolve_headers(settings.headers, settings.auth_token, self._all, who, hidden)
        oauth = None
        if settings.oauth is not None:
            secret = resolve_secret(settings.oauth.client_secret, self._all, who)
            oauth = OAuthClient(settings.oauth.client_id, secret, settings.oauth.issuer, settings.oauth.scope)
        spec = UpstreamSpec(
            name=f"the upstream {self.name}",
            address=settings.address,
            transport=settings.transport,
            headers=tuple(sorted(headers.items())),
            env=tuple(sorted(resolve_values(settings.env, self._all, who, hidden))),
            directory=self._all.base,
            oauth=oauth,
            hidden=tuple(hidden),
        )
        # Over a connection to a server by URL its changes are announced; a process is not worth keeping for that.
        idle = settings.idle_timeout if spec.words else None
        return dataclasses.replace(spec, idle_timeout=idle)

    def _defect(self, subject: str, exc: Exception, tool: str = "") -> str:
        """A sentence for an error that nobody foresaw; its place goes to the log, its text may hold what was sent."""
        where = f"{tool[:140]} of the upstream {self.name}" if tool else f"the upstream {self.name}"
        logger.error("{}: {} met a defect: {}", where, subject, places(exc))
        return f"{subject} cannot be handled here ({type(exc).__name__}); the log says where."
