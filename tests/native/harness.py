"""Running praxis-init for real: in two places, as two users, with nothing left unnoticed afterwards."""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from praxis_mcp.testing.bench import DEADLINES

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that anything may take on a busy machine; reaching it is a failure."""

MARK = "PRAXIS_TEST_MARK"
NOBODY = 65534
IS_ROOT = os.geteuid() == 0


def landlock_version() -> int:
    """Of the kernel's Landlock; 6 (Linux 6.12) has scopes. Not positive: there is none."""
    return ctypes.CDLL(None).syscall(444, None, 0, 1)


def marked(mark: str) -> list[int]:
    """The processes that carry a mark in their environment: what a run has left behind, wherever it hid."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            if needle in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # gone, or another user's
            continue
    return found


def past_its_deadline(run: Callable[[float], T], said: Callable[[T], object]) -> T:
    """What a command gives that reaches its deadline, once it has said something: see `praxis_mcp.testing.bench`."""
    for seconds in DEADLINES:
        seen = run(seconds)
        if said(seen):
            return seen
    raise AssertionError(f"it says nothing within {DEADLINES[-1]:g} s")


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: bytes
    stderr: bytes
    seconds: float
    survivors: list[int]


class Running:
    """A started praxis-init, its stdout being read with a limit on every wait."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str, *, behind_unshare: bool) -> None:
        self.process = process
        self.mark = mark
        self._behind_unshare = behind_unshare

    def read_line(self) -> str:
        return self._read(until=b"\n").decode().strip()

    def read_to_end(self) -> bytes:
        """All that is left on stdout; returns only when nobody holds its other end any more."""
        return self._read(until=None)

    def _read(self, until: bytes | None) -> bytes:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        got = b""
        limit = time.monotonic() + PATIENCE
        while until is None or not got.endswith(until):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, limit - time.monotonic()))
            assert ready, f"nothing more than {got!r} in {PATIENCE} s"
            chunk = os.read(descriptor, 1 if until else 65536)
            if not chunk:
                break
            got += chunk
        return got

    def send(self, number: signal.Signals) -> None:
        """Signals praxis-init itself, even behind unshare, which stays in front of it as its parent."""
        target = self.process.pid
        if self._behind_unshare:
            target = int(Path(f"/proc/{target}/task/{target}/children").read_text().split()[0])
        os.kill(target, number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


@dataclass(frozen=True)
class PraxisInit:
    """praxis-init in one place: as a subreaper among others, or as PID 1 of its own pid namespace."""

    path: Path
    as_pid_1: bool = False

    def words(self, options: Sequence[str], command: Sequence[str], user: int | None = None) -> list[str]:
        front = ["unshare", "--pid", "--fork", "--mount-proc"] if self.as_pid_1 else []
        if user is not None:  # behind unshare, which needs root; setpriv becomes praxis-init by exec
            front += [shutil.which("setpriv") or "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return [*front, str(self.path), "run", *options, "--", *command]

    @contextmanager
    def start(
        self, *command: str, options: Sequence[str] = (), user: int | None = None, **popen: Any
    ) -> Iterator[Running]:
        mark = uuid.uuid4().hex
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        environment = {**os.environ, MARK: mark}
        words = self.words(options, command, user)
        more: Any = {"env": environment, **pipes, **popen}
        process = cast("subprocess.Popen[bytes]", subprocess.Popen(words, **more))
        try:
            yield Running(process, mark, behind_unshare=self.as_pid_1)
        finally:
            for pid in marked(mark):
                with suppress(ProcessLookupError):  # it ended just now
                    os.kill(pid, signal.SIGKILL)
            process.wait(PATIENCE)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def run(self, *command: str, options: Sequence[str] = (), stdin: bytes = b"", **more: Any) -> Outcome:
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
        begin = time.monotonic()
        with self.start(*command, options=options, **pipes, **more) as running:
            stdout, stderr = running.process.communicate(stdin, timeout=PATIENCE)
            seconds = time.monotonic() - begin
            return Outcome(running.process.returncode, stdout, stderr, seconds, marked(running.mark))


def python_for(user: int | None) -> str | None:
    """A Python that this user can execute in a sandbox too: the one running may lie in root's home, or below /tmp."""
    for candidate in (sys.executable, shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")):
        if candidate is None or candidate.startswith("/tmp/"):
            continue
        try:
            group, groups = user, None if user is None else []
            subprocess.run(
                [candidate, "-c", "import ctypes, socket, resource"],
                user=user, group=group, extra_groups=groups, check=True, capture_output=True, timeout=PATIENCE, cwd="/",
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            continue
        return candidate
    return None
