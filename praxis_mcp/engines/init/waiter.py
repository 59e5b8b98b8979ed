"""One call on an init waiter: a praxis-init that waits at the other end of a channel, whichever engine has started it.

A waiter is for a single call. Closing the channel ends it, and all that it has started.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.to_thread

from praxis_mcp.engines.init.frame_types import Found
from praxis_mcp.engines.init.framing import (
    FRAME_PIECE,
    MAX_PAYLOAD,
    Detail,
    Event,
    FrameDecoder,
    FramingError,
    Hello,
    Output,
    Refused,
    StdinClosed,
    StdinCredit,
    WaitCall,
    WaitFile,
    encode_call,
    encode_file,
    encode_start,
    encode_stdin,
    encode_stdin_end,
)
from praxis_mcp.engines.output import StreamCollector, StreamName
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import CallFile, Plan
from praxis_mcp.support.praxis_init import Ended, EndKind
from praxis_mcp.support.tasks import unwrapped
from praxis_mcp.support.text import printable

if TYPE_CHECKING:
    from praxis_mcp.engines.init.trees import ReturningTrees, Tree

WAITER_MAX_AGE = 900.0
"""Seconds that a container or exec waits for a call at most; then another takes its place."""
WAITER_PATIENCE = WAITER_MAX_AGE + 60
"""Seconds after which praxis-init leaves by itself, when nobody has ended it before."""
TREE_PAUSE = 60.0
"""Seconds without progress after which the sending, or the return, of a call's trees ends the call."""
REPORT_GRACE = 10.0
"""Seconds past a call's deadline within which its waiter must have reported the end."""
CALL_FILE_MODE = 0o444
"""Permissions of a call's files: for the tool to read, whatever user it runs as."""


class Channel(Protocol):
    """Bytes both ways; an anyio `ByteStream` is one."""

    async def receive(self, max_bytes: int = ...) -> bytes:
        """The next bytes; raises `anyio.EndOfStream` at the end."""
        ...

    def is_silent(self) -> bool:
        """Whether it is known to be open, with nothing to receive; looks, and does not wait."""
        ...

    async def send(self, item: bytes) -> None:
        """Send all of it."""
        ...

    async def aclose(self) -> None:
        """Close both directions."""
        ...


class WaiterLost(Exception):
    """The channel ended, or brought what is not valid, before the waiter reported the end of the call; the message says
    which.

    Attributes:
        may_have_run: whether the call may have reached it whole; where it cannot, the call has surely not run.
    """

    def __init__(self, message: str, *, may_have_run: bool) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


@dataclass(slots=True)
class Stop:
    """Ends a call from this side, as a signal to praxis-init would: politely first, as its `WaitCall.kill_after` says.

    Attributes:
        ask: asks for the end. Must not block.
        after: seconds from the call's start after which that is done; the call then needs no timeout of its own.
        passed: whether they have passed.
    """

    ask: Callable[[], None]
    after: float
    passed: bool = False

    def take_effect(self) -> None:
        """They have passed."""
        self.passed = True
        self.ask()


class WaiterSilent(Exception):
    """Nothing was received for so long that its waiter must have ended it: what is between is frozen.

    Attributes:
        seconds: that the call was waited for.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"nothing was received for {seconds:g} s")
        self.seconds = seconds


def awake_or_not() -> float:
    """Seconds that only go up, those in which this machine slept among them: what waits elsewhere did not sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


def wait_call(plan: Plan, *, words: Sequence[str] = (), env: Mapping[str, str] | None = None,
              files: Sequence[CallFile] | None = None, no_network: bool = False, kill_after: float = 0.0,
              seccomp: bytes | None = None) -> WaitCall:  # fmt: skip
    """The call of a plan, as a waiter takes it.

    Args:
        plan: the plan; its blueprint's timeout is the deadline.
        words: in front of the plan's own: the image's entrypoint.
        env: variables in addition to the plan's own.
        files: the files that the waiter makes; None is all of the plan's.
        no_network: see `WaitCall`.
        kill_after: see `WaitCall`.
        seccomp: see `WaitCall`.
    """
    call = plan.call
    return WaitCall(
        argv=[_bytes(word) for word in (*words, *call.argv)],
        env={_bytes(name): _bytes(value) for name, value in {**call.env, **(env or {})}.items()},
        files=[
            WaitFile(_bytes(file.path), file.content, CALL_FILE_MODE)
            for file in (call.files if files is None else files)
        ],
        timeout=plan.blueprint.limits.timeout,
        kill_after=kill_after,
        no_network=no_network,
        no_new_privileges=not plan.blueprint.privileged,
        seccomp=seccomp,
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class Waiter:
    """The other end of a channel to a waiting praxis-init.

    Args:
        channel: the channel.
        secret: what praxis-init wants to see before it says hello (`wait_words`); None: nothing.

    Attributes:
        detail: what the waiter says about the failure of a step, for people; empty: nothing.
    """

    def __init__(self, channel: Channel, secret: bytes | None = None) -> None:
        self._channel = channel
        self._secret = secret
        self._decoder = FrameDecoder()
        self._hello: Hello | None = None
        self._credit = 0
        self._may_feed = anyio.Event()
        self._feeds = True
        self._may_have_run = False
        self._until = awake_or_not() + WAITER_MAX_AGE
        self._limit: float | None = None
        self._deadline: anyio.CancelScope | None = None
        self._unsent: ExecutionError | FramingError | None = None
        self.detail = ""

    def is_waiting(self) -> bool:
        """Whether it can still take its call: it is there, and not older than `WAITER_MAX_AGE`; looks, and does not
        wait."""
        return awake_or_not() < self._until and self._channel.is_silent()

    async def greet(self) -> Hello:
        """Wait until it says that it is ready. The caller bounds the time.

        Raises:
            WaiterLost: it never will.
        """
        if self._hello is None:
            await self._prove()
            why = ""
            async with aclosing(self._events()) as events:
                async for event in events:
                    match event:
                        case Hello():
                            self._hello = event
                            self._credit = event.stdin_window
                            return event
                        case Detail(text) | Refused(text):
                            why = f": {text}"
                        case Ended():
                            why = why or f": {event.step}: {event.reason}"
                        case _:
                            break
            raise WaiterLost(f"the waiter did not say hello{why}", may_have_run=False)
        return self._hello

    async def _prove(self) -> None:
        secret, self._secret = self._secret, None
        if secret is not None:
            try:
                await self._channel.send(secret)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
                raise WaiterLost("the channel broke before the waiter said hello", may_have_run=False) from exc

    async def run(
        self,
        call: WaitCall,
        stdin: bytes | None,
        stdout: StreamCollector,
        stderr: StreamCollector,
        *,
        grace: float | None = None,
        stop: Stop | None = None,
        trees: Sequence[Tree] = (),
        stays: bool = False,
    ) -> Ended:
        """Have it run a call, and close the channel.

        Args:
            call: the call; its timeout counts from the command's start.
            stdin: standard input; None is empty.
            stdout, stderr: take the output in. Where they are slow, so is the command.
            grace: seconds past the deadline and what ending takes, within which the end must have been received; None
                is `REPORT_GRACE`.
            stop: ends the call at its deadline, and where it is cancelled or its output cannot be kept; None: the call
                has a timeout, and ends with its channel.
            trees: directories that are made before the command starts, and what became of them; their way there and
                back does not count against the timeout, and ends where nothing moves for `TREE_PAUSE`.
            stays: leave the channel open where the end was reported; the waiter stays until it is closed.

        Returns:
            How it ended. Nothing comes back of trees unless the command exited, or died of a signal.

        Raises:
            FramingError: the call breaks the framing's bounds; it has not run.
            WaiterLost: nobody can tell how it ended.
            WaiterSilent: nothing was received within `grace`. The tool is not at fault: its end would have come.
            ExecutionError: its output cannot be kept, or a tree cannot be sent (it has not run then) or kept.
        """
        begin = encode_call(call)
        collectors: dict[StreamName, StreamCollector] = {"stdout": stdout, "stderr": stderr}
        end: Ended | None = None
        failure: WaiterLost | WaiterSilent | ExecutionError | FramingError | None = None
        grace = REPORT_GRACE if grace is None else grace
        timeout = call.timeout if stop is None else stop.after
        self._limit = None if timeout is None else timeout + call.kill_after + grace
        stopping: asyncio.TimerHandle | None = None
        try:
            await self.greet()
            if stop is not None:
                stopping = asyncio.get_running_loop().call_later(stop.after, stop.take_effect)
            send = partial(self._send, begin, call.files, trees, stdin or b"")
            with anyio.move_on_after(TREE_PAUSE if trees else self._limit) as self._deadline:
                try:
                    end = await self._exchange(send, collectors, trees, is_short=not call.files and not stdin)
                except (WaiterLost, ExecutionError) as exc:
                    failure = exc
            if self._deadline.cancelled_caught:
                failure = self._unsent or WaiterSilent(self._limit or TREE_PAUSE)
        finally:
            if stopping is not None:
                stopping.cancel()
            # Not where it is lost, or has been asked: there is nobody, or no more to wait for.
            if end is None and stop is not None and self._may_have_run and isinstance(failure, ExecutionError | None):
                await self._end(stop, call.kill_after + grace)
            for tree in trees:
                tree.close()
            if end is None or not stays:
                await self.aclose()
        if end is None:
            raise failure or WaiterLost("nothing was received", may_have_run=self._may_have_run)
        return end

    async def aclose(self) -> None:
        """Close the channel: what waits or runs at its other end, ends."""
        with anyio.CancelScope(shield=True):
            await self._channel.aclose()

    async def _end(self, stop: Stop, limit: float) -> None:
        """Ask for the end, and wait for it; what is written meanwhile is nobody's any more."""
        stop.ask()
        with anyio.move_on_after(limit, shield=True), suppress(WaiterLost):
            async with aclosing(self._events()) as events:
                async for event in events:
                    if isinstance(event, Ended | Refused):
                        return

    async def _deliver(self, returning: ReturningTrees) -> None:
        try:
            await anyio.to_thread.run_sync(returning.deliver)
        except FramingError as exc:
            raise WaiterLost(f"the waiter sent {exc}", may_have_run=self._may_have_run) from exc
        if self._deadline is not None:
            self._deadline.deadline = max(self._deadline.deadline, anyio.current_time() + TREE_PAUSE)

    async def _exchange(
        self,
        send: Callable[[], Coroutine[Any, Any, None]],
        collectors: Mapping[StreamName, StreamCollector],
        trees: Sequence[Tree],
        *,
        is_short: bool,
    ) -> Ended:
        """Send the call, and receive until it ends."""
        if is_short and not trees:  # which the other side reads whatever happens: no task has to wait for its turn
            await send()
            return await self._receive(collectors, trees)
        end: Ended | None = None
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                end = await self._receive(collectors, trees)
                tasks.cancel_scope.cancel()
        assert end is not None
        return end

    async def _receive(self, collectors: Mapping[StreamName, StreamCollector], trees: Sequence[Tree]) -> Ended:
        returning = _returning(trees) if trees else None
        async with aclosing(self._events()) as events:
            async for event in events:
                match event:
                    case Found():
                        if returning is None:
                            raise WaiterLost("trees of a call without", may_have_run=self._may_have_run)
                        if returning.add(event):
                            await self._deliver(returning)
                    case Output(stream, data):
                        await collectors[stream].write(data)
                    case StdinCredit(size):
                        self._credit += size
                        self._may_feed.set()
                    case StdinClosed():
                        self._feeds = False
                        self._may_feed.set()
                    case Ended():
                        is_whole = returning is None or returning.is_whole
                        if not is_whole and event.kind in (EndKind.EXIT, EndKind.SIGNAL):
                            raise WaiterLost("its trees did not come back", may_have_run=self._may_have_run)
                        return event
                    case Detail(text):
                        self.detail = printable(text)
                    case Refused(reason):
                        raise WaiterLost(f"praxis-init refused the call: {reason}", may_have_run=self._may_have_run)
                    case Hello():
                        raise WaiterLost("the waiter said hello again", may_have_run=self._may_have_run)
        raise WaiterLost("the channel ended before the call did", may_have_run=self._may_have_run)

    async def _events(self) -> AsyncGenerator[Event, None]:
        while True:
            try:
                data = await self._channel.receive(FRAME_PIECE)
            except anyio.EndOfStream:
                return
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
                raise WaiterLost("the channel broke", may_have_run=self._may_have_run) from exc
            try:
                for event in self._decoder.feed(data):
                    yield event
            except FramingError as exc:
                raise WaiterLost(f"the waiter sent {exc}", may_have_run=self._may_have_run) from exc

    async def _send(self, begin: bytes, files: Sequence[WaitFile], trees: Sequence[Tree], stdin: bytes) -> None:
        try:
            for piece in _pieces(begin, files):
                await self._channel.send(piece)
            if trees:
                if not files:
                    await self._channel.send(begin)
                await self._send_trees(trees)
            # The rest in one piece where it fits: the usual call is one write.
            first = stdin[: min(self._credit, FRAME_PIECE)]
            last = encode_stdin_end() if len(first) == len(stdin) else b""
            self._credit -= len(first)
            self._may_have_run = True
            sent = b"" if files or trees else begin
            await self._channel.send(sent + encode_start() + encode_stdin(first) + last)
            if not last:
                await self._feed(stdin, len(first))
        except (ExecutionError, FramingError) as exc:  # of a tree; before START
            self._unsent = exc
            if self._deadline is not None:
                self._deadline.cancel()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass  # the receiving side learns why

    async def _send_trees(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            with closing(tree.frames()) as frames:
                while (piece := await anyio.to_thread.run_sync(next, frames, None)) is not None:
                    await self._channel.send(piece)
                    self._give_time(TREE_PAUSE)
        self._give_time(math.inf if self._limit is None else self._limit)

    def _give_time(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.deadline = anyio.current_time() + seconds

    async def _feed(self, stdin: bytes, position: int) -> None:
        while position < len(stdin):
            while self._feeds and self._credit == 0:
                self._may_feed = anyio.Event()
                await self._may_feed.wait()
            if not self._feeds:
                return
            piece = stdin[position : position + min(self._credit, MAX_PAYLOAD)]
            self._credit -= len(piece)
            position += len(piece)
            await self._channel.send(encode_stdin(piece))
        await self._channel.send(encode_stdin_end())


def _returning(trees: Sequence[Tree]) -> ReturningTrees:
    # Here, as in `framing`: few calls have trees.
    from praxis_mcp.engines.init.trees import ReturningTrees

    return ReturningTrees(trees)


def _pieces(begin: bytes, files: Sequence[WaitFile]) -> Iterator[bytes]:
    if files:
        yield begin
    for file in files:
        yield from encode_file(file)
