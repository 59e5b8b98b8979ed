"""What the chaos tests stand on: tools on every engine, the environment of a server that serves them, and what a server
that is gone may have left on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from praxis_mcp.engines.host.cgroups import find_cgroups
from praxis_mcp.support.processes import OWNER_VARIABLE
from tests.kit.measuring import measured

LONG = "trap '' TERM; (setsid sleep 1000 &); echo ready; sleep 1000 & wait; wait"
"""Runs on in two sessions, and is not impressed by the polite signal."""
_LOUD = "i=0; while [ $i -lt 300 ]; do echo $i 0123456789012345678901234567890123456789; i=$((i+1)); done; sleep 0.1"
_FILED = "cat /work/in.txt > /out/copy.txt; sleep 0.1"
_IMAGE = "image: busybox:1.36\n"
_FILED_FIELDS = """\
parameters: {mark: string, text: {type: string, bind: {file: /work/in.txt}}}
artifacts: ["/out/*.txt"]
"""

ENGINES = tuple(os.environ.get("PRAXIS_CHAOS_ENGINES", "docker,sandbox,local").split(","))
KINDS = ("quick", "loud", "filed", "limited", "long")
LIMITED = ("docker", "sandbox")
"""Engines whose tools have a memory limit, and a root of their own to write to."""


@dataclass(frozen=True)
class Remains:
    """One server that is gone: its process id, the mark of its calls, and what of it was seen right after its end."""

    pid: int
    mark: str
    temporary: tuple[Path, ...]
    containers: tuple[tuple[str, str], ...]
    """Ids, and where each one's root was mounted."""


@dataclass(frozen=True)
class Sandbox:
    """One that a server has made: praxis-init outside, and inside (None: not started yet); `waits`: it was made ahead
    of its call, whether or not that has come."""

    outer: int
    inner: int | None
    waits: bool

    @classmethod
    def all_of(cls, server: int) -> list[Sandbox]:
        """Those of a server that are there now."""
        found: list[Sandbox] = []
        for pid in _children(server):
            with suppress(OSError):  # it ended just now
                words = _words(pid)
                if _makes_sandbox(words):
                    found.append(cls(pid, next(iter(_children(pid)), None), b"--reply" not in words))
        return found

    @contextmanager
    def watched(self) -> Iterator[Callable[[], list[str]]]:
        """Gives what tells the processes that are still there of it."""
        try:
            namespace = None if self.inner is None else os.open(f"/proc/{self.inner}/ns/pid", os.O_RDONLY)
        except OSError:  # it ended just now
            namespace = None
        try:
            yield lambda: [] if namespace is None else _processes_in(os.fstat(namespace).st_ino)
        finally:
            if namespace is not None:  # open until now: the number would go to the next namespace
                os.close(namespace)

    def kill(self, pid: int) -> bool:
        """Kill one of the two; whether it was there."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if _makes_sandbox(_words(pid)):  # and not another one that has got the number meanwhile
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return True
        except OSError:
            pass
        finally:
            os.close(descriptor)
        return False


@dataclass
class Ground:
    """A directory of tools, a temporary directory and an image store that a test's servers share."""

    root: Path
    tools: list[tuple[str, str]] = field(default_factory=list)

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @classmethod
    def make(cls, root: Path) -> Ground:
        ground = cls(root)
        ground.temporary.mkdir()
        for engine in ENGINES:
            for kind in KINDS:
                if kind == "limited" and engine not in LIMITED:
                    continue
                place = root / "tools" / f"{engine}_{kind}"
                place.mkdir(parents=True)
                (place / "contract.yaml").write_text(_contract(engine, kind))
                ground.tools.append((engine, kind))
        return ground

    def environment(self, *, local_sandbox: bool, store: Path | None = None) -> dict[str, str]:
        """The environment of a server."""
        return {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            **measured(),
            "HOME": str(self.root),
            "TMPDIR": str(self.temporary),
            "PRAXIS_PULL": "never",
            "PRAXIS_LOG_LEVEL": "DEBUG",
            "PRAXIS_ENGINES__LOCAL__SANDBOX": "auto" if local_sandbox else "off",
            "PRAXIS_ENGINES__SANDBOX__STORE": str(store or self.store),
            "PRAXIS_HTTP__DRAIN": "0.3",
        }

    def remains_of(self, pid: int, mark: str) -> Remains:
        """To be asked when a server has ended and no other one has started."""
        ids = _container_ids(pid)
        return Remains(pid, mark, tuple(self.temporary.iterdir()), tuple(_root_of(each) for each in ids))

    def leftovers(self, gone: Remains) -> list[str]:
        """What is still there of a server that is gone, a phrase each."""
        found = [f"container {each[:12]}" for each in _container_ids(gone.pid)]
        found += [f"process {each}" for each in marked_processes(gone)]
        bases = set(find_cgroups().bases.values())
        found += [f"cgroup {each}" for base in bases for each in base.glob(f"praxis-mcp-{gone.pid}-*")]
        groups = [base / "docker" / each for base in bases for each, _ in gone.containers]
        found += [f"cgroup {group}" for group in groups if group.exists()]
        found += [f"temporary {path}" for path in gone.temporary if path.exists()]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        places = [str(self.root), *(place for _, place in gone.containers if place)]
        found += [f"mount {line}" for line in mounts if any(place in line.split() for place in places)]
        sockets = Path("/proc/net/unix").read_text().splitlines()
        # Sockets of the server that runs now would be among them, if it had any in the file system.
        found += [f"socket {line}" for line in sockets if str(self.root) in line]
        return found


def marked_processes(gone: Remains) -> list[str]:
    """Processes of a server's calls, wherever they run: id, and words."""
    signs = (f"mark={gone.mark}".encode(), f"{OWNER_VARIABLE}={gone.pid}-".encode())
    found: list[str] = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            variables = (place / "environ").read_bytes().split(b"\0")
            if any(each.startswith(sign) for each in variables for sign in signs):
                words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{place.name}: {words[:400]}")
        except OSError:  # it ended just now
            continue
    return found


def _processes_in(namespace: int) -> list[str]:
    found: list[str] = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended just now
            if os.stat(place / "ns/pid").st_ino == namespace:
                found.append(f"{place.name}: {(place / 'cmdline').read_bytes()[:120]!r}")
    return found


def _words(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _makes_sandbox(words: list[bytes]) -> bool:
    return words[1:2] == [b"sandbox"]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for place in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread ended just now
            found += map(int, place.read_text().split())
    return found


def _contract(engine: str, kind: str) -> str:
    command = {"long": LONG, "loud": _LOUD, "filed": _FILED}.get(kind, "echo hi")
    text = f"name: {engine}_{kind}\ndescription: Of the chaos tests.\nengine: {engine}\ntimeout: 600\n"
    text += f"command: {json.dumps(['/bin/sh', '-c', command])}\n"
    text += _FILED_FIELDS if kind == "filed" else "parameters: {mark: string}\n"
    if engine in LIMITED:
        text += _IMAGE
    if kind == "limited":
        text += "memory_limit: 64m\nread_only: false\n"
    return text


def _container_ids(pid: int) -> list[str]:
    if "docker" not in ENGINES:
        return []
    command = ["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label=praxis-mcp.pid={pid}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def _root_of(container: str) -> tuple[str, str]:
    command = ["docker", "inspect", "--format", "{{.GraphDriver.Data.MergedDir}}", container]
    return container, subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
