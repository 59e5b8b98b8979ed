"""One command as a child process: started, fed, listened to, and ended with all that it started.

Used by every engine that runs commands on this machine. Output passes through `StreamCollector`s, so memory is
bounded whatever the tool writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import anyio
import anyio.to_thread

from praxis_mcp.engines.host.pipes import READ_AFTER, PipeReader, feed, readable
from praxis_mcp.engines.outcomes import HOST, start_failure
from praxis_mcp.engines.output import StreamCollector
from praxis_mcp.errors import ExecutionError
from praxis_mcp.support.logs import logger
from praxis_mcp.support.praxis_init import EXIT_SIGNAL_BASE, Ended
from praxis_mcp.support.processes import ProcessTree
from praxis_mcp.support.tasks import BackgroundTasks, unwrapped

PROCESS_KILL_TIMEOUT = 10.0
"""Seconds after which a process that survives SIGKILL (a dead disk, another user's) is abandoned."""
PIPES_DRAIN_TIMEOUT = 5.0
"""Seconds for reading what is left in the pipes once every process has ended."""
LEAVE_AFTER = 0.015
"""Seconds from the early end of a call until its program is seen off, and has mostly left by itself: at once, that
would take the interpreter from what writes the record that the answer waits for, which is 0.2 ms."""

_REPORT_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start.

    Attributes:
        argv: program and words; a program without a slash is looked up on the PATH of `env`.
        env: the whole environment.
        cwd: working directory; None is the server's own.
        stdin: standard input; None is empty.
        capture: False discards both streams.
        channel: a descriptor that is standard input and standard output instead; standard error is discarded then.
        descriptors: open ones that the child inherits under the same numbers.
        own_session: False gives it a process group only, away from the terminal's Ctrl-C as well: for a program that
            makes a session for the command itself. A session is a group for the scheduler, too (sched(7),
            autogroup), and on a busy machine a new one waits for its first turn as long as the whole call takes else.
        umask: of the child; None is the server's.
        standby: makes a program that is there already become this one, and gives it, with its streams; or None where
            that cannot be, and nothing of it has begun. It knows no `channel`, working directory or session of its own.
    """

    argv: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    cwd: str | None = None
    stdin: bytes | None = field(default=None, repr=False)
    capture: bool = True
    channel: int | None = None
    descriptors: tuple[int, ...] = ()
    own_session: bool = True
    umask: int | None = None
    standby: Callable[[Launch], subprocess.Popen[bytes] | None] | None = None


class ReportPipe:
    """A pipe through which a program says how it went. A context manager, which owns both ends.

    Attributes:
        read_end: what it says is read there.
        write_end: what the program inherits.
    """

    def __enter__(self) -> Self:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.read_end)
        os.close(self.write_end)

    def is_complete(self) -> bool:
        """Whether it has said all, and its command is gone. Not known by default."""
        return False

    def read(self) -> bytes:
        """What has come since the last time; never waits. Nothing where the program was killed before it wrote."""
        found = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.read_end, _REPORT_PIECE):
                found += piece
        return found


@dataclass(slots=True)
class EarlyEnd:
    """What makes a call end before the program that ran its command has left: its report, which says that the command
    has ended, and that nothing of it is left. The program, and what it has, are gone a moment behind the answer.

    Attributes:
        report: says so.
        later: waits for the program to leave.
        release: is called then.
        is_taken: whether the call has ended so.
    """

    report: ReportPipe
    later: BackgroundTasks
    release: Callable[[], Awaitable[None]]
    is_taken: bool = False


async def run_process(
    launch: Launch,
    tree: Callable[[subprocess.Popen[bytes]], ProcessTree],
    *,
    timeout: float,
    stdout: StreamCollector,
    stderr: StreamCollector,
    on_start: Callable[[], None] = lambda: None,
    early: EarlyEnd | None = None,
) -> Ended:
    """Run a command to its end, or to its deadline `timeout` seconds after its start.

    When this returns or raises, cancelled or not, every process of the tree is gone; but for the program itself where
    the end was taken early.

    Args:
        launch: what to start.
        tree: makes what can end everything the command will have started.
        timeout: seconds.
        stdout, stderr: take the streams in.
        on_start: called when the process exists.
        early: see `EarlyEnd`. How the command has ended is in the report then, and not in what is returned.

    Raises:
        CommandNotFound: the program does not exist or cannot be executed.
        ExecutionError: the process cannot be started, or its output cannot be kept.
    """
    # On the event loop's thread, which outlives the call. A worker thread would not do: "die with parent" means the
    # *thread* that started the child (PR_SET_PDEATHSIG, prctl(2)), and idle worker threads end after ten seconds.
    process = start_process(launch)
    on_start()
    processes = tree(process)
    deadline = anyio.CancelScope(deadline=anyio.current_time() + timeout)
    readers: list[PipeReader] = []
    reading: asyncio.TimerHandle | None = None
    try:
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                try:
                    if process.stdin is not None:
                        feed(process.stdin, launch.stdin or b"", tasks)
                    for stream, into in ((process.stdout, stdout), (process.stderr, stderr)):
                        if stream is not None:
                            readers.append(PipeReader(stream, into, tasks))
                    reading = asyncio.get_running_loop().call_later(READ_AFTER, _watch, readers)
                    with deadline:
                        await exit_of(process, early)
                        if early is not None and process.returncode is None:
                            early.is_taken = True
                finally:
                    if early is not None and early.is_taken:
                        early.later.start(partial(_leave, process, processes, early.release), "see a sandbox off")
                    elif process.returncode is None or not processes.is_gone:
                        with anyio.CancelScope(shield=True):
                            await end_process(process, processes)
                tasks.cancel_scope.deadline = anyio.current_time() + PIPES_DRAIN_TIMEOUT
                for reader in readers:
                    await reader.finish(at_once=early is not None and early.is_taken)
    finally:
        if reading is not None:
            reading.cancel()
        if early is None or not early.is_taken:
            processes.close()
        for reader in readers:
            reader.close()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    if early is not None and early.is_taken:
        return Ended.by_code(None)
    code = process.returncode
    assert code is not None
    return Ended.by_code(EXIT_SIGNAL_BASE - code if code < 0 else code, timed_out=deadline.cancelled_caught)


def _watch(readers: Sequence[PipeReader]) -> None:
    for reader in readers:
        reader.watch()


def start_process(launch: Launch) -> subprocess.Popen[bytes]:
    """Start a command.

    Raises:
        CommandNotFound: the program does not exist or cannot be executed.
        ExecutionError: the process cannot be started.
    """
    output = subprocess.PIPE if launch.capture else subprocess.DEVNULL
    stdin, stdout, stderr = subprocess.DEVNULL if launch.stdin is None else subprocess.PIPE, output, output
    if launch.channel is not None:
        stdin, stdout, stderr = launch.channel, launch.channel, subprocess.DEVNULL
    try:
        if launch.standby is not None and (process := launch.standby(launch)) is not None:
            return process
        return subprocess.Popen(
            launch.argv,
            env=dict(launch.env),
            cwd=launch.cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
            pass_fds=launch.descriptors,
            start_new_session=launch.own_session,
            process_group=None if launch.own_session else 0,
            umask=-1 if launch.umask is None else launch.umask,
        )
    except OSError as exc:
        raise start_failure(launch.argv[0], str(exc.strerror), HOST) from exc
    except ValueError as exc:
        raise ExecutionError(
            f'"{launch.argv[0]}" could not be started: a word or variable cannot be passed to a process ({exc}).'
        ) from exc


async def exit_of(process: subprocess.Popen[bytes], early: EarlyEnd | None = None) -> None:
    """Return when the process has ended, even where others still hold its pipes, or when its report is complete."""
    if process.poll() is not None:
        return
    pidfd = _open_pidfd(process.pid)
    if pidfd is None:
        await anyio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
        return
    try:
        if early is None:
            await readable(pidfd)
            process.wait()
        else:
            while not early.report.is_complete() and process.poll() is None:
                await readable(pidfd, early.report.read_end)
    finally:
        os.close(pidfd)


async def _leave(process: subprocess.Popen[bytes], tree: ProcessTree, release: Callable[[], Awaitable[None]]) -> None:
    """Wait for a program whose command has ended; bounded. One that does not leave is killed, at once where this is
    cancelled: its engine is closed."""
    try:
        await anyio.sleep(LEAVE_AFTER)
        with anyio.move_on_after(PROCESS_KILL_TIMEOUT):
            await exit_of(process)
        if process.returncode is None or not tree.is_gone:
            await end_process(process, tree)
    except anyio.get_cancelled_exc_class():
        with anyio.move_on_after(PROCESS_KILL_TIMEOUT, shield=True):
            await tree.kill()
            await exit_of(process)
        raise
    finally:
        tree.close()
        await release()


def _open_pidfd(pid: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3, or a filter that does not know the call
        return None


async def end_process(process: subprocess.Popen[bytes], tree: ProcessTree) -> None:
    """End a command and all that it started, politely first where it still runs. Bounded.

    Raises:
        ExecutionError: the process survives that; it is logged.
    """
    if process.poll() is None:
        await tree.terminate()
        with anyio.move_on_after(tree.grace):
            await exit_of(process)
    with anyio.move_on_after(PROCESS_KILL_TIMEOUT) as limit:
        await tree.kill()
        await exit_of(process)
    if limit.cancelled_caught:
        logger.error("process {} or one that it started survives SIGKILL", process.pid)
        if process.returncode is None:
            raise unkillable(process)


def unkillable(process: subprocess.Popen[bytes]) -> ExecutionError:
    """The error for a process that survives SIGKILL, or that stays because one that it started does."""
    return ExecutionError(
        f"The tool's process {process.pid} cannot be killed.",
        remedy="Look for a hung file system or a process of another user.",
    )
