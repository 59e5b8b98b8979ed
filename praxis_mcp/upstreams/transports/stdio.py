"""A server started by command, used over its standard streams, one message a line (specification, transports).

The SDK's own transport takes in a line of any length, so that a server could fill our memory, and an argument that
UTF-8 cannot carry ends its connection. Here a line is bounded, and messages take no detour through further tasks.

Closing its standard input asks such a server to end, but one that is busy or ignores that would outlive us where we are
killed. So on Linux it runs under praxis-init, which notices our death, and ends the whole tree, whatever in it has
begun a session of its own or left its parent. Where there is no praxis-init, or it was killed as well, the next server
finds the processes by the owner in their environment (`owners`).
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TextIO

import anyio
import anyio.abc
import anyio.to_thread
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.os.posix.utilities import terminate_posix_process_tree
from mcp.os.win32.utilities import (
    ServerProcess,
    close_process_job,
    create_windows_process,
    get_windows_executable_command,
    terminate_windows_process_tree,
)
from mcp.shared.message import SessionMessage

from praxis_mcp.support import praxis_init as native
from praxis_mcp.support.logs import logger
from praxis_mcp.support.mcp_sdk import TransportStreams
from praxis_mcp.support.praxis_init import EndKind, parse_report
from praxis_mcp.support.processes import OWNER_VARIABLE, MarkedTree, Owner, SupervisedTree
from praxis_mcp.upstreams.messages import message_in
from praxis_mcp.upstreams.raw_answers import MAX_UPSTREAM_MESSAGE

_GONE = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, OSError)


@asynccontextmanager
async def stdio_streams(
    words: tuple[str, ...], env: Mapping[str, str], cwd: Path | None, errors: TextIO
) -> AsyncIterator[TransportStreams]:
    """Start the server; the two streams of its connection. When this is left, it and all that it started have ended.

    Args:
        words: the command.
        env: variables in addition to PATH, HOME and the few others of the SDK's list.
        cwd: where it is started; None is here.
        errors: its standard error; a real file.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    process = await start_process(words, {**get_default_environment(), **env}, cwd, errors)
    try:
        yield _Incoming(process), _Outgoing(process)
    finally:
        with anyio.CancelScope(shield=True):
            await _end_server(process)


class _Incoming(ObjectReceiveStream[SessionMessage | Exception]):
    """Messages of the server."""

    def __init__(self, process: UpstreamProcess) -> None:
        assert process.process.stdout is not None
        self._process = process
        self._stdout = process.process.stdout
        self._pieces: list[bytes] = []
        self._size = 0
        self._rest = b""

    async def receive(self) -> SessionMessage | Exception:
        """The next message, or why a line is not one.

        Raises:
            anyio.EndOfStream: the server has ended.
            anyio.BrokenResourceError: it sends a line that is too long.
        """
        while not (line := await self._line()).strip():
            pass
        return message_in(line)

    async def aclose(self) -> None:
        """Nothing: the process is ended by who started it."""

    async def _line(self) -> bytes:
        while True:
            piece, newline, rest = self._rest.partition(b"\n")
            self._size += len(piece)
            if self._size > MAX_UPSTREAM_MESSAGE:
                raise anyio.BrokenResourceError(
                    f"it sent a message of more than {MAX_UPSTREAM_MESSAGE // 1024**2} MiB, "
                    "which is the most that is taken in"
                )
            self._pieces.append(piece)
            if newline:
                self._rest = rest
                line = b"".join(self._pieces)
                self._pieces, self._size = [], 0
                return line
            self._rest = b""
            try:
                self._rest = await self._stdout.receive()
            except (anyio.EndOfStream, ConnectionError) as exc:
                raise anyio.EndOfStream(await self._process.why_not_run()) from exc


class _Outgoing(ObjectSendStream[SessionMessage]):
    """Messages to the server."""

    def __init__(self, process: UpstreamProcess) -> None:
        assert process.process.stdin is not None
        self._process = process
        self._stdin = process.process.stdin
        self._lock = anyio.Lock()

    async def send(self, item: SessionMessage) -> None:
        """Send a message.

        Raises:
            anyio.BrokenResourceError: the server no longer reads.
        """
        message = item.message.model_dump(by_alias=True, mode="python", exclude_unset=True)
        # In ASCII: half of a surrogate pair, which a JSON text may escape, has no UTF-8.
        line = json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            async with self._lock:
                await self._stdin.send(line)
        except (OSError, anyio.BrokenResourceError) as exc:
            # Which direction notices first that a command could not be run is chance.
            raise anyio.BrokenResourceError(await self._process.why_not_run()) from exc

    async def aclose(self) -> None:
        """Nothing: the process is ended by who started it."""


async def _end_server(server: UpstreamProcess) -> None:
    """Close its input, wait, then end the whole tree. Bounded."""
    process = server.process
    assert process.stdin is not None
    assert process.stdout is not None
    async with anyio.create_task_group() as tasks:
        # One that is still writing does not read that its input is closed.
        tasks.start_soon(_drain, process.stdout)
        await _close(process.stdin)
        await server.end()
        tasks.cancel_scope.cancel()
    await _close(process.stdout)
    # Where a process that it started holds its pipes, asyncio keeps them open, and has no public way to let go of them.
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    if transport is not None:
        with suppress(PermissionError):  # from killing once more a process of another user
            transport.close()


async def _drain(stream: anyio.abc.ByteReceiveStream) -> None:
    with suppress(*_GONE):
        while True:
            await stream.receive()


async def _close(stream: anyio.abc.AsyncResource) -> None:
    with suppress(*_GONE):
        await stream.aclose()


SERVER_EXIT_GRACE = 2.0
"""Seconds that a server may take to end after its standard input was closed (specification 2025-11-25, lifecycle,
"Shutdown"), and again after SIGTERM."""
SERVER_REAP_TIMEOUT = 2.0
SERVER_KILL_TIMEOUT = 10.0
"""Seconds after which a process that survives SIGKILL (a dead disk, another user's) is no longer waited for."""
MARK_VARIABLE = "_PRAXIS_MCP_UPSTREAM"
"""In the environment of a server that is started by command: which start of it this is."""
_EXIT_POLL = 0.01


class UpstreamProcess:
    """A server that was started by command (`start_process`).

    Attributes:
        process: what was started.
    """

    def __init__(self, process: ServerProcess, word: str, mark: str, report: int | None) -> None:
        self.process = process
        self._word = word
        self._mark = mark
        self._report = report
        self._is_supervised = report is not None
        self._why_not_run: str | None = None

    async def why_not_run(self) -> str:
        """Why the command could not be executed after all; empty where it was, or nobody knows."""
        if self._report is None or not await self._has_ended(SERVER_REAP_TIMEOUT):
            return ""
        if self._why_not_run is None:  # the report can be read once, and both directions may ask
            self._why_not_run = self._read_report(self._report)
        return self._why_not_run

    def _read_report(self, report: int) -> str:
        try:
            end = parse_report(os.read(report, 4096).decode())
        except (BlockingIOError, UnicodeDecodeError):
            return ""
        if end is None or end.kind not in (EndKind.EXEC_FAILED, EndKind.SETUP_FAILED):
            return ""
        return f"{self._word} could not be started: {end.reason}"

    async def end(self) -> None:
        """Wait for its end, its standard input being closed, then end the whole tree. Bounded."""
        has_ended = await self._has_ended(SERVER_EXIT_GRACE)
        if sys.platform == "linux":
            await self._end_tree()
        elif not has_ended:
            await self._terminate()
        close_process_job(self.process)
        if self._report is not None:
            os.close(self._report)
            self._report = None

    async def _end_tree(self) -> None:
        command = _Command(self.process)
        tree = SupervisedTree(command, self._mark) if self._is_supervised else MarkedTree(command, self._mark)
        if command.poll() is None:
            await tree.terminate()
            await self._has_ended(tree.grace + SERVER_EXIT_GRACE)
        with anyio.move_on_after(SERVER_KILL_TIMEOUT) as limit:
            await tree.kill()
            await self._has_ended(SERVER_REAP_TIMEOUT)
        if limit.cancelled_caught:
            logger.error("process {} or one that it started survives SIGKILL", self.process.pid)

    async def _terminate(self) -> None:
        if sys.platform == "win32":
            await terminate_windows_process_tree(self.process)
        else:
            assert isinstance(self.process, anyio.abc.Process)
            await terminate_posix_process_tree(self.process, SERVER_EXIT_GRACE)
        await self._has_ended(SERVER_REAP_TIMEOUT)

    async def _has_ended(self, timeout: float) -> bool:
        # Not process.wait(): it waits until the pipes are closed as well, which a process that it started may hold.
        with anyio.move_on_after(timeout):
            while self.process.returncode is None:  # noqa: ASYNC110
                await anyio.sleep(_EXIT_POLL)
        return self.process.returncode is not None


async def start_process(
    words: tuple[str, ...], env: Mapping[str, str], cwd: Path | None, errors: TextIO
) -> UpstreamProcess:
    """Start a server.

    Args:
        words: the command.
        env: the whole environment.
        cwd: where it is started; None is here.
        errors: its standard error; a real file.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    if sys.platform == "win32":
        command = await anyio.to_thread.run_sync(get_windows_executable_command, words[0], abandon_on_cancel=True)
        started = await create_windows_process(command, list(words[1:]), dict(env), errors, cwd)
        return UpstreamProcess(started, words[0], "", None)
    number = secrets.token_hex(8)
    mark, marked = f"{MARK_VARIABLE}={number}", {**env, MARK_VARIABLE: number}
    init = native.host_init_path()
    if sys.platform == "linux":
        marked[OWNER_VARIABLE] = str(Owner.current())
    if init is None:
        process = await anyio.open_process(words, env=marked, stderr=errors, cwd=cwd, start_new_session=True)
        return UpstreamProcess(process, words[0], mark, None)
    _check_program(words[0], env, cwd)
    read_end, write_end = os.pipe()
    try:
        os.set_blocking(read_end, False)
        # From this thread, which is the event loop's: praxis-init notices the end of the *thread* that started it.
        prefix = native.run_prefix(
            str(init),
            timeout=None,
            no_network=False,
            no_new_privileges=False,  # a server is as free as it would be without us
            kill_after=SERVER_EXIT_GRACE,
            parent=os.getpid(),
            report=write_end,
        )
        process = await anyio.open_process(
            [*prefix, *words], env=marked, stderr=errors, cwd=cwd, start_new_session=True, pass_fds=(write_end,)
        )
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return UpstreamProcess(process, words[0], mark, read_end)


def _check_program(word: str, env: Mapping[str, str], cwd: Path | None) -> None:
    """Say at once what praxis-init could only report."""
    program = str(Path(cwd or ".", word)) if "/" in word else word
    if shutil.which(program, path=env.get("PATH", os.defpath)) is None:
        code = errno.EACCES if "/" in word and Path(program).exists() else errno.ENOENT
        raise OSError(code, os.strerror(code), word)


class _Command:
    """The process as `ProcessTree` sees one."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def poll(self) -> int | None:
        return self._process.returncode
