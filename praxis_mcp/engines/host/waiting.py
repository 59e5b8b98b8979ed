"""A sandbox that waits for its call: made by our own launcher ahead of it, for that one call, and gone after it.

All that a layout fixes is fixed when it is made: namespaces, mounts, control group. The command with its words,
variables and standard input comes over a socket that nobody else has, to praxis-init inside.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

import anyio
import anyio.to_thread

from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.cgroups import RunGroup
from praxis_mcp.engines.host.launcher import init_launch, init_tree, setup_failure
from praxis_mcp.engines.host.message import call_of, pack
from praxis_mcp.engines.host.process import (
    LEAVE_AFTER,
    PROCESS_KILL_TIMEOUT,
    end_process,
    exit_of,
    start_process,
    unkillable,
)
from praxis_mcp.engines.host.sandboxed import Sandboxed
from praxis_mcp.engines.init.framing import WaitCall
from praxis_mcp.engines.init.layout import encode_waiting_sandbox
from praxis_mcp.engines.init.seccomp import filter_for
from praxis_mcp.engines.init.waiter import WAITER_PATIENCE, Stop, Waiter, WaiterLost, WaiterSilent
from praxis_mcp.engines.mounts.layout import MountLayout, Step, StepKind
from praxis_mcp.engines.mounts.table import MountTable
from praxis_mcp.engines.output import Streams
from praxis_mcp.engines.phases import Phase
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.praxis_init import EXIT_KILLED, MOUNTS_STEP, Ended, EndKind
from praxis_mcp.support.processes import INIT_GIVES_UP_AFTER, send_signal
from praxis_mcp.support.rooted import Identity, identity_of
from praxis_mcp.support.scratch import Scratch
from praxis_mcp.support.unix_stream import UnixStream

HELLO_TIMEOUT = 30.0
"""Seconds for a sandbox to be made and to say hello."""
_END_TIMEOUT = 1.0
"""Seconds for praxis-init to leave once its channel is closed; then it is ended, and all of the sandbox with it."""


class HostMounts:
    """What the host had mounted where a sandbox shows it; that of a sandbox stays as it was when it was made."""

    def __init__(self, table: MountTable, layout: MountLayout) -> None:
        self._table = table
        self._layout = layout
        self._version = table.version
        self._seen = self._look()

    def are_current(self) -> bool:
        """Whether the host has the same there now; looks, and does not wait."""
        version = self._table.version
        if version != self._version:
            with suppress(OSError):
                if self._look() == self._seen:
                    self._version = version
        return version == self._version

    def _look(self) -> frozenset[str]:
        # What is mounted around a place counts too: it may have become read-only.
        return self._table.select(lambda place: self._layout.shows(place) or self._layout.rests_on(place))


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a sandbox is made from ahead of its call.

    Attributes:
        plan: of any such call; nothing of its words goes into the sandbox.
        sandboxed: the sandbox, with its `Sandboxed.state`.
        mounts: see `HostMounts`.
        artifacts: what holds the directory for artifacts; None: the contract declares none.
    """

    plan: Plan
    sandboxed: Sandboxed
    mounts: HostMounts
    artifacts: Scratch | None = None


class WaitingSandbox:
    """A sandbox whose praxis-init has said hello.

    Attributes:
        made: what it was made from.
    """

    def __init__(
        self, made: Ahead, process: subprocess.Popen[bytes], waiter: Waiter, group: RunGroup, ident: str
    ) -> None:
        self.made = made
        self._process = process
        self._tree = init_tree(process, ident)
        self._tree.grace = _END_TIMEOUT
        self._waiter = waiter
        self._group = group
        self._root = _root_of(made.sandboxed.steps)
        self._is_private = not made.sandboxed.layout.descriptors
        self._has_run = False

    @classmethod
    async def start(cls, program: str, ahead: Ahead, group: RunGroup, ident: str) -> WaitingSandbox:
        """Make one; nothing is left of it where that fails or is cancelled, but what `ahead` and `group` are.

        Args:
            program: praxis-init.
            ahead: see `Ahead`; its descriptors are closed by the caller.
            group: limits it.
            ident: names it among processes.

        Raises:
            ExecutionError: praxis-init cannot be started.
            WaiterLost: the sandbox could not be made; says why.
            TimeoutError: it was not made in time.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ExitStack() as held:
            held.callback(theirs.close)
            on_failure = held.enter_context(ExitStack())
            on_failure.callback(ours.close)
            ours.setblocking(False)
            encode = partial(encode_waiting_sandbox, patience=WAITER_PATIENCE, seccomp=filter_for(ahead.plan.blueprint))
            descriptors = pack(ahead.plan, ahead.sandboxed, group, held, encode)
            # On the event loop's thread, with which it ends (see `run_process`).
            launch = init_launch(program, descriptors, ident)
            process = start_process(replace(launch, channel=theirs.fileno(), umask=ahead.sandboxed.umask))
            on_failure.pop_all()
        made = cls(ahead, process, Waiter(UnixStream(ours)), group, ident)
        try:
            with anyio.fail_after(HELLO_TIMEOUT):
                await made._waiter.greet()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await made._end()
            raise
        return made

    def is_fresh(self) -> bool:
        """See `WarmItem.is_fresh`. Not if something was mounted on the host since where the sandbox shows it, or
        unmounted, or if its image was removed."""
        is_there = (
            self._waiter.is_waiting()
            and self._process.poll() is None
            and self._root == _root_of(self.made.sandboxed.steps)
        )
        return is_there and self.made.mounts.are_current()

    async def discard(self) -> None:
        """See `WarmItem.discard`. Right behind its call praxis-init is still leaving, and the answer is under way."""
        try:
            if self._has_run:
                await anyio.sleep(LEAVE_AFTER)
        finally:  # also where the event loop ends meanwhile
            await self._end()
            await self._group.remove()
            if self.made.artifacts is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self.made.artifacts.remove)

    async def run(self, plan: Plan, context: ExecutionContext, sandboxed: Sandboxed) -> Finished | None:
        """Run a call in it, to its end or its deadline, as `Launcher.run` would.

        Args:
            plan: the call.
            context: what surrounds it.
            sandboxed: its command, and a sandbox like this.

        Returns:
            None where something is not mounted any more at the place where it was: the call has not run.

        Raises:
            FramingError: the call is larger than Linux takes; it has not run.
            WaiterLost: the sandbox ended before the call did; see its `may_have_run`.
            CommandNotFound: there is no such command in the sandbox.
            ExecutionError: it could not be started, or its output cannot be kept.
        """
        context.phases.enter(Phase.RUN)
        if sandboxed.host_name is not None:
            sandboxed = replace(sandboxed, host_name=self.made.sandboxed.host_name)
        async with context.collectors(plan) as streams:
            call = replace(call_of(plan, sandboxed), seccomp=None)  # it has its filter
            end = await self._run(call, plan, streams)
            if end.kind is EndKind.SETUP_FAILED and end.step == MOUNTS_STEP:
                context.phases.enter(Phase.START)
                return None
            if end.kind is EndKind.EXEC_FAILED:
                raise sandboxed.start_failure(end.reason)
            if end.kind is EndKind.SETUP_FAILED:
                raise setup_failure(plan, end, None)
            context.phases.enter(Phase.COLLECT)
        self._has_run = True
        end = replace(end, out_of_memory=self._group.out_of_memory)
        if not self._is_private:
            await self._end()  # what it mounts may be unmounted or removed right behind the answer
        return Finished(end, *streams.captured)

    async def _run(self, call: WaitCall, plan: Plan, streams: Streams) -> Ended:
        stop = Stop(self._ask, plan.blueprint.limits.timeout)
        try:
            end = await self._waiter.run(
                call, plan.call.stdin, *streams, grace=INIT_GIVES_UP_AFTER, stop=stop, stays=True
            )
        except WaiterSilent:
            self._process.kill()
            return Ended.by_code(EXIT_KILLED, timed_out=True)
        except WaiterLost as exc:
            with anyio.move_on_after(PROCESS_KILL_TIMEOUT):
                await exit_of(self._process)
            if self._process.returncode is None:
                raise unkillable(self._process) from exc
            if stop.passed and exc.may_have_run:  # it left: asked to end before it had the whole call
                return Ended.by_code(EXIT_KILLED, timed_out=True)
            if not exc.may_have_run or self._process.returncode not in (EXIT_KILLED, -signal.SIGKILL):
                raise
            return Ended.by_code(EXIT_KILLED)  # the kernel, for the memory limit; or somebody outside
        return Ended.by_code(end.exit_code, timed_out=True) if stop.passed else end

    def _ask(self) -> None:
        if self._process.returncode is None:
            send_signal([self._process.pid], signal.SIGTERM)

    async def _end(self) -> None:
        """All of its processes; bounded, shielded from cancellation."""
        await self._waiter.aclose()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_END_TIMEOUT):
                await exit_of(self._process)
            if not self._tree.is_gone:
                with suppress(ExecutionError):  # it is logged
                    await end_process(self._process, self._tree)


def _root_of(steps: Sequence[Step]) -> Identity | None:
    """Which directory of the host the root is."""
    root = steps[0]
    if root.kind in (StepKind.ROOT, StepKind.LAYERED_ROOT) and root.source is not None:
        with suppress(OSError):
            return identity_of(os.lstat(root.source))
    return None
