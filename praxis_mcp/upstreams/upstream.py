"""One other MCP server: a connection that is opened when needed, shared by all calls, and opened again when it breaks.

The SDK's client must be entered and left by the same task, and where its transport fails, it cancels that task. So each
connection has a task of its own, and calls only send requests over it.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from praxis_mcp.errors import EngineUnavailable, ExecutionError, RemoteError
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import BackgroundTasks
from praxis_mcp.support.text import finite
from praxis_mcp.upstreams.connection import UPSTREAM_CLOSE_TIMEOUT, CircuitBreaker, Connection, describe
from praxis_mcp.upstreams.loops import outgoing_meta
from praxis_mcp.upstreams.spec import ProgressListener, UpstreamSpec

if TYPE_CHECKING:
    from mcp.shared.exceptions import MCPError

    from praxis_mcp.upstreams.client import Channel

MAX_SHOWN_NAME = 140
"""Characters of a name that is shown because it cannot be used."""
LIST_TIMEOUT = 30.0
"""Seconds that all pages of a list may take."""
MOST_PAGES = 100
MOST_TOOLS = 2000

_CREDENTIALS = "Give it valid credentials (auth_token, headers or oauth), or wait where it says that it is busy."

T = TypeVar("T")


@dataclass(slots=True)
class ToolList:
    """What a server lists.

    Attributes:
        tools: those that the protocol lets a client use, as their JSON says, in its order.
        left_out: name and reason of those that no client can use.
        remark: what is wrong with the list as a whole; empty where nothing is.
    """

    tools: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    remark: str = ""


class Upstream:
    """One server.

    Attributes:
        spec: how it is reached.
        masker: masks what nothing that comes back may show: its secrets, and tokens that OAuth gave us for it.

    Args:
        spec: how it is reached.
        tasks: where the tasks of its connections run.
        on_tools_changed: called when its list of tools may have changed; without it nobody listens for that.
    """

    def __init__(
        self, spec: UpstreamSpec, tasks: BackgroundTasks, on_tools_changed: Callable[[], None] | None = None
    ) -> None:
        self.spec = spec
        self._tasks = tasks
        self._on_tools_changed = on_tools_changed
        self._breaker = CircuitBreaker(spec.name)
        self._current: Connection | None = None
        self._all: set[Connection] = set()
        self._renewed = False
        self.masker = Masker(spec.secrets)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._current is not None and self._current.is_usable

    @property
    def trouble(self) -> str:
        """Why it could not be reached the last time; empty where it could."""
        return self._breaker.reason

    @property
    def protocol_version(self) -> str | None:
        """The protocol revision used with it, or with the last connection; None before the first."""
        return self._current.protocol_version if self._current else None

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        timeout: float,
        on_progress: ProgressListener | None = None,
    ) -> dict[str, Any]:
        """What a tool answered, as its JSON says. Cancelling cancels it there.

        Args:
            tool: its name there.
            arguments: passed on as they are.
            timeout: seconds from sending to the answer.
            on_progress: receives progress.

        Raises:
            TimeoutError: no answer came in time; the call was cancelled there.
            EngineUnavailable: the server cannot be reached; the tool did not run.
            RemoteError: it answered with a protocol error.
            ExecutionError: the connection broke meanwhile; the tool may have run, and is not run again.
        """

        def progressed(progress: float, total: float | None, message: str | None) -> None:
            if on_progress is not None:
                on_progress(progress, total, self.masker.text(message) if message else message)

        async def send(channel: Channel) -> dict[str, Any]:
            params = {"name": tool, "arguments": dict(arguments), "_meta": outgoing_meta()}
            return await channel.ask("tools/call", params, progressed if on_progress else None)

        answer = await self._ask(f"{tool} was running", timeout, send, repeatable=False)
        kind = answer.get("resultType", "complete")
        if kind != "complete":
            raise ExecutionError(
                f"{self.spec.name} answered {tool} by {str(kind)[:40]}, which cannot be passed on: calls here have one "
                "question and one answer.",
                remedy="Use a tool that needs no more input while it runs.",
            )
        return answer

    async def connect(self) -> None:
        """Open the connection, where there is none.

        Raises:
            EngineUnavailable: it cannot be opened.
        """
        await self._connection()

    async def list_tools(self) -> ToolList:
        """Every tool that it lists, and which of them no client can use.

        Raises:
            ExecutionError: as `call`; too slow is an error too.
        """
        from mcp_types import PaginatedRequestParams

        from praxis_mcp.upstreams.raw_answers import answer_in, why_left_out

        async def send(channel: Channel) -> ToolList:
            found = ToolList()
            cursor: str | None = None
            seen: set[str] = set()
            for _ in range(MOST_PAGES):
                params = PaginatedRequestParams(cursor=cursor, _meta=outgoing_meta())  # pyright: ignore
                page = await channel.client.session.list_tools(params=params)
                usable = {tool.name for tool in page.tools}
                answer = answer_in(page.meta)
                listed = answer.get("tools")
                for item in listed if isinstance(listed, list) else ():
                    reason = why_left_out(item, usable)
                    if reason is None:
                        found.tools.append(item)
                    else:
                        name = item.get("name") if isinstance(item, dict) else item
                        found.left_out.append(("(no name)" if name is None else str(name)[:MAX_SHOWN_NAME], reason))
                cursor = page.next_cursor
                if (
                    not cursor or cursor in seen
                ):  # an empty cursor means none to some servers; one that repeats leads in a circle
                    if cursor:
                        found.remark = "its list of tools leads in a circle (a cursor repeats)"
                    elif not isinstance(answer.get("nextCursor"), str | None):
                        found.remark = "its list of tools has a cursor that is not text; what follows is left out"
                    break
                seen.add(cursor)
                if len(found.tools) + len(found.left_out) > MOST_TOOLS:
                    break
            else:
                found.remark = f"its list of tools has more than {MOST_PAGES} pages; the rest is left out"
            if len(found.tools) + len(found.left_out) > MOST_TOOLS:
                found.remark = f"it lists more than {MOST_TOOLS} tools; the rest is left out"
            del found.tools[MOST_TOOLS:], found.left_out[MOST_TOOLS:]
            return found

        before = self._current
        try:
            found = await self._list(send)
        except ExecutionError:
            # Its answers may be those of a session that it lost. Once, and not again until a list has come.
            had_session = before is self._current and not self.spec.words
            if before is None or not before.is_usable or not had_session or self._renewed:
                raise
            self._renewed = True
            logger.info("{} did not list its tools; a new session is begun", self.spec.name)
            before.retire()
            found = await self._list(send)
        self._renewed = False
        return found

    async def _list(self, send: Callable[[Channel], Awaitable[T]]) -> T:
        try:
            return await self._ask("its tools were listed", LIST_TIMEOUT, send)
        except TimeoutError as exc:
            raise ExecutionError(f"{self.spec.name} did not list its tools within {LIST_TIMEOUT:g} s.") from exc

    async def read_resource(self, uri: str, *, timeout: float) -> dict[str, Any]:
        """A resource, as its JSON says; raises as `call` does."""

        async def send(channel: Channel) -> dict[str, Any]:
            return await channel.ask("resources/read", {"uri": uri, "_meta": outgoing_meta()})

        return await self._ask("a resource was read", timeout, send)

    async def close(self) -> None:
        """Close the connection; calls that run over it fail."""
        for connection in self._all:
            connection.close()
        with anyio.move_on_after(UPSTREAM_CLOSE_TIMEOUT, shield=True):
            for connection in list(self._all):
                await connection.over.wait()
        for connection in self._all:
            connection.abandon()

    async def _ask(
        self, doing: str, timeout: float, send: Callable[[Channel], Awaitable[T]], *, repeatable: bool = True
    ) -> T:
        """Send over the connection. A request that cannot have reached the server is sent once more, over a new one; so
        is a `repeatable` one that a lost session may be to blame for."""
        from mcp.shared.exceptions import MCPError
        from pydantic import ValidationError

        from praxis_mcp.upstreams.messages import Failure, failure_in, was_in_session

        again = True
        while True:
            connection = await self._connection()
            assert connection.channel is not None
            began = anyio.current_time()
            try:
                with connection.busy(), anyio.fail_after(timeout):
                    return await send(connection.channel)
            except TimeoutError:
                connection.check_silence(began)
                raise
            except ValidationError as exc:
                raise ExecutionError(f"{self.spec.name} gave an answer that is not valid while {doing}.") from exc
            except MCPError as exc:
                reason = self.masker.text(exc.message)
                if failure_in(exc) is Failure.UNSENT:
                    connection.retire()
                    if again:
                        again = False
                        continue
                    raise self._unreachable(reason) from exc
                if was_in_session(exc) and not await connection.has_session():
                    logger.info("{} does not know the session any more; a new one is begun", self.spec.name)
                    connection.retire()
                    if again and repeatable:
                        again = False
                        continue
                    raise self._without_session(reason, doing, repeatable) from exc
                raise await self._translated(exc, connection, doing) from exc

    async def _connection(self) -> Connection:
        """The connection, opened where there is none; waits for one that another call opens.

        Raises:
            EngineUnavailable: it cannot be opened.
        """
        while True:
            connection = self._current
            if connection is None or not connection.is_usable:
                wait = self._breaker.admit()
                if wait > 0:
                    await anyio.sleep(wait)
                    continue
                connection = self._current = Connection(
                    self.spec, self.masker, self._breaker.record_success, self._on_tools_changed
                )
                self._all.add(connection)
                self._tasks.start(functools.partial(self._own, connection), f"upstream {self.spec.name}")
            await connection.settled.wait()
            if connection.channel is None:
                raise self._unreachable(describe(connection.error), connection.error) from connection.error
            if connection.is_usable:
                return connection

    async def _own(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            self._all.discard(connection)
            if connection.error is not None:
                reason = self.masker.text(describe(connection.error))
                logger.warning("{}: {}", self.spec.name, reason)
                self._breaker.record_failure(reason)

    def _unreachable(self, reason: str, cause: BaseException | None = None) -> EngineUnavailable:
        from praxis_mcp.upstreams.messages import Failure, failure_in

        reason = self.masker.text(reason).rstrip(".")
        if failure_in(cause) is Failure.REFUSED:
            return EngineUnavailable(f"{self.spec.name} refused the connection: {reason}.", remedy=_CREDENTIALS)
        place = f" ({self.spec.place})" if self.spec.place != self.spec.name else ""
        remedy = "See whether its command works when typed in a shell." if self.spec.words else "See whether it runs."
        notes = "\n".join(getattr(cause, "__notes__", ())) or None
        return EngineUnavailable(f"{self.spec.name}{place} cannot be reached: {reason}.", output=notes, remedy=remedy)

    def _without_session(self, reason: str, doing: str, repeatable: bool) -> ExecutionError:
        what = f"{self.spec.name} did not accept a request while {doing}, and does not know the session any more"
        if repeatable:
            return EngineUnavailable(f"{what}: {reason.rstrip('.')}.", remedy="Try again: that begins a new session.")
        return ExecutionError(
            f"{what}: {reason.rstrip('.')}. The next call begins a new session; this one was not run again, because it "
            "may have run.",
            remedy="Call again, where it does no harm that it may have run.",
        )

    async def _translated(self, exc: MCPError, connection: Connection, doing: str) -> ExecutionError:
        from mcp_types import CONNECTION_CLOSED

        from praxis_mcp.upstreams.messages import Failure, data_in, failure_in

        reason, failure = self.masker.text(exc.message), failure_in(exc)
        if failure is Failure.REFUSED:
            return EngineUnavailable(
                f"{self.spec.name} refused the request: {reason}.",
                remedy=_CREDENTIALS,
            )
        # The SDK, too, says so of its own requests; a server may use the same code while its connection holds.
        over = connection.error is not None or connection.over.is_set()
        if failure is Failure.LOST or (exc.code == CONNECTION_CLOSED and over):
            connection.retire()
            with anyio.move_on_after(1):
                await connection.over.wait()
            if connection.error is not None:
                reason = self.masker.text(describe(connection.error))
            return ExecutionError(
                f"The connection to {self.spec.name} broke while {doing} ({reason.rstrip('.')}). It may have done its "
                "work or part of it, so it was not run again.",
                remedy="Find out whether it did before you call again.",
            )
        return RemoteError(f"{self.spec.name} answered: {reason}", exc.code, self.masker.json(finite(data_in(exc))))


MOST_KEPT = 64
"""Servers without a connection that are remembered, for the sake of their back-off."""


class UpstreamPool:
    """Servers by how they are reached."""

    def __init__(self) -> None:
        self._tasks = BackgroundTasks()
        self._upstreams: dict[UpstreamSpec, Upstream] = {}

    def get(self, spec: UpstreamSpec) -> Upstream:
        """The server that is reached so; the same object for equal specifications."""
        found = self._upstreams.pop(spec, None) or Upstream(spec, self._tasks)
        self._upstreams[spec] = found  # the last one used comes last
        idle = [key for key, upstream in self._upstreams.items() if key != spec and not upstream.is_connected]
        for key in idle[: max(0, len(self._upstreams) - MOST_KEPT)]:
            del self._upstreams[key]
        return found

    async def close(self) -> None:
        """Close every connection; the servers may be used again."""
        async with anyio.create_task_group() as tasks:
            for upstream in self._upstreams.values():
                tasks.start_soon(upstream.close)
        self._upstreams.clear()
        await self._tasks.close(UPSTREAM_CLOSE_TIMEOUT)
