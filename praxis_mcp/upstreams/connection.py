"""One connection to another MCP server, held by a task of its own from beginning to end; and when one that failed may
be opened again: back-off at first, then a circuit breaker."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc

from praxis_mcp.errors import EngineUnavailable, PraxisError
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.support.logs import logger
from praxis_mcp.support.text import counted
from praxis_mcp.upstreams.spec import UpstreamSpec

if TYPE_CHECKING:
    from mcp import Client

    from praxis_mcp.upstreams.client import Channel

UPSTREAM_CLOSE_TIMEOUT = 8.0
"""Seconds that closing may take; a command has 2 to end by itself, and 2 more after SIGTERM."""
ALIVE_TIMEOUT = 5.0
"""Seconds that a server which left a call unanswered may take to show that it lives."""
LISTEN_PAUSE = 1.0
LONGEST_LISTEN_PAUSE = 60.0
"""Seconds before changes are listened for again, after that failed; doubled by each further failure."""


class Connection:
    """A connection that its task (`run`) opens, tends and closes; calls only send requests over it.

    Attributes:
        channel: what requests go over, once it is connected.
        protocol_version: what was agreed on, once it is connected.
        settled: set when it is connected, or will never be.
        over: set when nothing of it is left.
        error: why it could not be opened, or broke; None while neither is so.
    """

    def __init__(
        self,
        spec: UpstreamSpec,
        masker: Masker,
        on_open: Callable[[], None],
        on_tools_changed: Callable[[], None] | None,
    ) -> None:
        self.channel: Channel | None = None
        self.protocol_version: str | None = None
        self.settled = anyio.Event()
        self.over = anyio.Event()
        self.error: Exception | None = None
        self._spec = spec
        self._masker = masker
        self._on_open = on_open
        self._on_tools_changed = on_tools_changed
        self._scope = anyio.CancelScope()
        self._end = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._retired = False
        self._in_flight = 0
        self._last_used = anyio.current_time()
        self._last_received = anyio.current_time()

    @property
    def is_usable(self) -> bool:
        """Whether new calls may use it, or wait for it to be opened."""
        return not (self._retired or self._end.is_set() or self.over.is_set())

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While a call runs over it."""
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._last_used = anyio.current_time()
            if self._retired and not self._in_flight:
                self._end.set()

    def retire(self) -> None:
        """No new calls over it; it closes when those that run have ended."""
        self._retired = True
        if not self._in_flight:
            self._end.set()

    def close(self) -> None:
        """Close it now; calls that run over it fail. One that is still being opened is abandoned."""
        self._end.set()
        if not self.settled.is_set():
            self.error = self.error or ConnectionError("it was closed before it had answered")
            self._scope.cancel()

    def abandon(self) -> None:
        """Break off closing it."""
        self._scope.cancel()

    def check_silence(self, since: float) -> None:
        """A call was left unanswered: where nothing came from the server since, see whether it still lives."""
        if self._last_received < since and self._tasks is not None:
            self._tasks.start_soon(self._check)

    async def has_session(self) -> bool:
        """Whether the server still knows the session, asked by a ping, after it refused a request of it. Bounded."""
        from mcp.shared.exceptions import MCPError

        from praxis_mcp.upstreams.messages import failure_in

        if self.channel is None:
            return False
        with anyio.move_on_after(ALIVE_TIMEOUT):
            try:
                await self.channel.client.session.send_ping()
            except MCPError as exc:
                return failure_in(exc) is None  # an error of the server's own is an answer
            return True
        return False

    async def run(self) -> None:
        """Be the connection's task: open it, hold it, close it; `error` says then why it did not open, or broke."""
        try:
            with self._scope:
                await self._hold()
            if self.channel is None and self._scope.cancelled_caught and self.error is None:
                self.error = TimeoutError(f"it did not answer within {self._spec.connect_timeout:g} s")
        except anyio.get_cancelled_exc_class():
            # The SDK's transport cancels the task that entered it when it breaks, and that can leak through. The task
            # ends here in any case.
            self.error = self.error or ConnectionError("the connection broke")
        finally:
            self._retired = True
            self.settled.set()
            self.over.set()

    async def _hold(self) -> None:
        from praxis_mcp.upstreams.client import Errors, open_client

        errors = Errors(self._spec.name, self._masker)
        self._scope.deadline = anyio.current_time() + self._spec.connect_timeout
        try:
            async with open_client(
                self._spec,
                masker=self._masker,
                errors=errors,
                on_received=self._received,
                on_end=self._ended,
                on_tools_changed=self._changed,
            ) as channel:
                self._scope.deadline = math.inf
                client = channel.client
                self.channel, self.protocol_version = channel, client.protocol_version
                self._last_used = self._last_received = anyio.current_time()
                logger.info("{} is connected ({}, {})", self._spec.name, self._spec.kind, client.protocol_version)
                self._on_open()
                self.settled.set()
                await self._tend(client)
                self._scope.deadline = anyio.current_time() + UPSTREAM_CLOSE_TIMEOUT
        except Exception as exc:  # noqa: BLE001 - the SDK lets through whatever its transports and libraries raise
            self.error = self.error or _innermost(exc)
        if self.error is not None:
            await errors.wait_for_last()
            if errors.text:
                self.error.add_note(errors.text)

    async def _tend(self, client: Client) -> None:
        async with anyio.create_task_group() as self._tasks:
            if self._on_tools_changed is not None:
                self._tasks.start_soon(self._listen, client)
            if self._spec.idle_timeout is not None:
                self._tasks.start_soon(self._watch_idleness, self._spec.idle_timeout)
            await self._end.wait()
            self._tasks.cancel_scope.cancel()
        self._tasks = None

    async def _watch_idleness(self, limit: float) -> None:
        while True:
            idle = 0.0 if self._in_flight else anyio.current_time() - self._last_used
            if idle >= limit:
                logger.debug("{} was idle for {:g} s; its connection is closed", self._spec.name, limit)
                self.retire()
                return
            await anyio.sleep(max(limit - idle, 0.01))

    async def _listen(self, client: Client) -> None:
        """Listen for changes: from 2026-07-28 on over a stream of its own; older servers just say so (`_changed`)."""
        from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
        from mcp.shared.exceptions import MCPError
        from mcp_types import METHOD_NOT_FOUND

        pause, missed = LISTEN_PAUSE, False
        while True:
            try:
                async with client.listen(tools_list_changed=True) as events:
                    if missed:
                        self._changed()
                    pause, missed = LISTEN_PAUSE, True
                    async for _ in events:
                        self._changed()
            except ListenNotSupportedError:
                return
            except (MCPError, SubscriptionLost, TimeoutError) as exc:
                if isinstance(exc, MCPError) and exc.code == METHOD_NOT_FOUND:
                    return
                logger.debug("{} cannot be listened to for changes: {}", self._spec.name, exc)
            await anyio.sleep(pause)
            pause = min(2 * pause, LONGEST_LISTEN_PAUSE)

    async def _check(self) -> None:
        from mcp.shared.exceptions import MCPError
        from mcp_types.version import MODERN_PROTOCOL_VERSIONS

        if self.channel is None:
            return
        client = self.channel.client
        since = anyio.current_time()
        with anyio.move_on_after(ALIVE_TIMEOUT):
            try:
                if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
                    await client.session.send_discover(client.protocol_version)
                else:
                    await client.session.send_ping()
            except MCPError:
                return  # an answer, or an end that is noticed elsewhere
        if self._last_received < since:
            self.error = TimeoutError("it hangs: it answers neither calls nor a ping")
            logger.warning("{} hangs; its connection is closed", self._spec.name)
            self._end.set()

    def _ended(self, reason: str) -> None:
        if not self._end.is_set():
            self.error = self.error or ConnectionError(reason or "the server closed the connection")
            self._end.set()

    def _changed(self) -> None:
        if self._on_tools_changed is not None:
            self._on_tools_changed()

    def _received(self) -> None:
        self._last_received = anyio.current_time()


def describe(error: BaseException | None) -> str:
    """Why a connection failed, in a phrase."""
    if isinstance(error, PraxisError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"there is no {error.filename}"
    text = str(error) if error is not None else ""
    return text or type(error).__name__


def _innermost(exc: Exception) -> Exception:
    """The first cause in groups of exceptions, which the SDK's task groups make."""
    found: Any = exc
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found if isinstance(found, Exception) else ConnectionError(str(found) or type(found).__name__)


FIRST_DELAY = 0.25
LONGEST_DELAY = 30.0
"""Seconds between two tries: none after the first failure, then doubling, each shortened by chance by up to half, so
that many clients of a server that comes back do not come at once."""
THRESHOLD = 4
"""Failures in a row after which calls are refused at once until the next try is due."""


class CircuitBreaker:
    """Counts the failures of one server in a row.

    *Closed*, a call waits out the delay and then tries. *Open*, calls fail at once. When the next try is due, one call
    is let through to find out (*half-open*); the others are still refused.
    """

    def __init__(
        self, name: str, *, clock: Callable[[], float] = anyio.current_time, chance: Callable[[], float] = random.random
    ) -> None:
        self._name = name
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._reason = ""
        self._next_try = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, but for the one that tries."""
        return self._failures >= THRESHOLD

    @property
    def reason(self) -> str:
        """Why the last try failed; empty where it did not."""
        return self._reason

    def admit(self) -> float:
        """Seconds to wait before trying; 0 means now, and its outcome must be reported.

        Raises:
            EngineUnavailable: the circuit is open, and no try is due.
        """
        wait = max(0.0, self._next_try - self._clock())
        if not self.is_open:
            return wait
        if wait or self._probing:
            when = f"in {wait:.0f} s" if wait >= 1 else "now" if self._probing else "in less than a second"
            raise EngineUnavailable(
                f"{self._name} failed {counted(self._failures, 'time')} in a row, and is next tried {when}; this call "
                f"was refused without trying. The last failure: {self._reason}",
                remedy="Start it or fix its address, then call again.",
            )
        self._probing = True
        return 0.0

    def record_success(self) -> None:
        """The server answered."""
        self._failures, self._reason, self._next_try, self._probing = 0, "", 0.0, False

    def record_failure(self, reason: str) -> None:
        """The server could not be reached, or broke."""
        self._failures += 1
        self._reason = reason
        self._probing = False
        delay = 0.0
        if self._failures > 1:
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures - 2, 16)) * (1 - self._chance() / 2)
        self._next_try = self._clock() + delay
