"""Cancelling a call ends what it started, and nothing answers it."""

import os
from pathlib import Path

import anyio
import pytest

from tests.kit.until import until
from tests.serving.clients import Peer, text_of

pytestmark = pytest.mark.anyio


async def pid_from(path: Path) -> int:
    """The process id that a tool writes, once it has."""
    return int(await until(lambda: path.exists() and path.read_text().strip()))


async def ended(pid: int) -> None:
    """Return when the process is no more."""
    await until(lambda: has_ended(pid))


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return True


async def test_cancelling_a_call_kills_its_process(peer: Peer, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    pid = 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.call, "wait_for_ever", {"pidfile": str(pidfile)})
        pid = await pid_from(pidfile)
        tasks.cancel_scope.cancel()
    await ended(pid)
    assert text_of(await peer.call("echo", {"text": "after"})) == "after\n"
