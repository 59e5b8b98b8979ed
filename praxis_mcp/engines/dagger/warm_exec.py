"""A warm exec: one that waits for its only call. Its channel through Dagger, its query in flight, its end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from praxis_mcp.engines.dagger.call import KILL_TIME
from praxis_mcp.engines.dagger.errors import QueryFailed, SessionLost
from praxis_mcp.engines.dagger.prefix import Prefix
from praxis_mcp.engines.dagger.query import Field, chain, value_at
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.dagger.workspace import Upload
from praxis_mcp.engines.init.framing import WaitCall, encode_call
from praxis_mcp.engines.init.waiter import Waiter, WaiterLost
from praxis_mcp.engines.warm.call import WarmKey
from praxis_mcp.errors import EngineUnavailable
from praxis_mcp.support.unix_stream import UnixStream

DaggerKey = WarmKey[Session]
"""The key of warm execs."""
EXEC_END_TIMEOUT = 2.0
"""Seconds for an exec to end by itself after it was asked to, or has reported its end; then Dagger kills it."""

_HANG_UP = encode_call(WaitCall([b"none"])) * 2
"""A call that begins twice: praxis-init ends all that it runs, and leaves, where it reads that between two frames."""


class ForwardedChannel(UnixStream):
    """A channel that Dagger forwards from an exec. It does not tell the exec that this end was closed (seen with
    v0.21.8, as with BuildKit's forwarding), so closing says so in words that praxis-init refuses."""

    async def aclose(self) -> None:
        """See `UnixStream.aclose`."""
        with contextlib.suppress(OSError):
            self._socket.send(_HANG_UP, socket.MSG_DONTWAIT)
        await super().aclose()


class CallSocket:
    """A Unix socket on this machine to which one exec connects, once."""

    def __init__(self, path: Path) -> None:
        """Raises OSError: the path is too long (107 bytes), or cannot be written to."""
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.setblocking(False)
            self._listener.bind(str(path))
            self._listener.listen(1)
        except BaseException:
            self._listener.close()
            raise

    async def accept(self, abandoned: anyio.Event) -> ForwardedChannel:
        """The connection, when it comes.

        Raises:
            WaiterLost: `abandoned` was set before.
        """
        async with anyio.create_task_group() as tasks:

            async def give_up() -> None:
                await abandoned.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(give_up)
            await anyio.wait_readable(self._listener)
            tasks.cancel_scope.cancel()
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError as exc:
            raise WaiterLost("the exec ended before it connected", may_have_run=False) from exc
        connection.setblocking(False)
        return ForwardedChannel(connection)

    def close(self) -> None:
        """Nothing connects any more, the tool of the call least of all."""
        self._listener.close()
        self.path.unlink(missing_ok=True)


class WaitingQuery:
    """The query that runs a waiting exec, in flight until that has ended.

    Attributes:
        ended: set when the exec has ended, or the query failed.
    """

    def __init__(self, session: Session, steps: Sequence[Field], *selected: Field) -> None:
        """`steps`: the chain of fields to the exec; `selected`: what is asked of it."""
        self.ended = anyio.Event()
        self._session = session
        self._steps = steps
        self._selected = selected
        self._answer: Mapping[str, Any] | None = None
        self._failure: QueryFailed | EngineUnavailable | None = None
        self._life = anyio.CancelScope()

    async def run(self) -> None:
        """Ask, and wait for the answer."""
        try:
            with self._life:
                self._answer = await self._session.query(chain(self._steps, *self._selected))
        except (QueryFailed, EngineUnavailable) as exc:
            self._failure = exc
        finally:
            self.ended.set()

    async def answer(self) -> Mapping[str, Any]:
        """What was asked of the exec, when it is there.

        Raises:
            QueryFailed, EngineUnavailable: there is none.
        """
        await self.ended.wait()
        if self._failure is not None:
            raise self._failure
        if self._answer is None:
            raise SessionLost("The Dagger engine was closed while the call was using it.")
        found: Mapping[str, Any] = value_at(self._answer, *(step.name for step in self._steps))
        return found

    async def end(self, *, at_once: bool = False) -> None:
        """Wait for the exec to end, unless `at_once`, and have Dagger kill it where it does not; bounded."""
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(0 if at_once else EXEC_END_TIMEOUT):
                await self.ended.wait()
                return
            self._life.cancel()
            await self.ended.wait()
            if not self._session.lost:
                await anyio.sleep(KILL_TIME)


class WarmExec:
    """An exec whose praxis-init has said hello."""

    def __init__(
        self,
        key: DaggerKey,
        prefix: Prefix,
        uploads: Sequence[Upload],
        query: WaitingQuery,
        channel: ForwardedChannel,
        is_current: Callable[[Session], bool],
    ) -> None:
        self.key = key
        self.prefix = prefix
        self.uploads = uploads
        self.query = query
        self.waiter = Waiter(channel)
        self._is_current = is_current

    def is_fresh(self) -> bool:
        """See `WarmItem.is_fresh`. Not if a mount held something else when a call last looked."""
        session = self.key.session
        return (
            self.waiter.is_waiting()
            and not self.query.ended.is_set()
            and self._is_current(session)
            and all(item.is_latest(session) for item in self.uploads)
        )

    async def discard(self) -> None:
        """See `WarmItem.discard`."""
        await self.waiter.aclose()
        await self.query.end()
