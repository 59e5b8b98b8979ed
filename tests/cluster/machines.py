"""Machines of a test's cluster: namespaces of their own (processes, mounts, network, host name) that one signal ends.

The first process of a machine ends when nobody holds the other end of its standard input any more, a pipe that the
guard of the cluster (tests/cluster/guard.py) holds. With it goes all that the machine has: processes, mounts, network.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster.programs import PATH
from tests.kit.until import until_blocking

TIMEOUT = 120.0
"""Seconds for one command, on a busy machine."""

LONGEST_LINE = 500
"""Characters of a line of a log that a failure shows."""

_FIRST = "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print(flush=True); sys.stdin.buffer.read()"
"""The first process of a machine: its orphans are reaped by the kernel."""

_SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""What a kubelet sets of the host, which is not the test's to change: there it finds files with these values."""

# What programs keep in fixed places is the machine's own; all else in /run and /var/lib is found where it was.
_MOUNTS = r"""
set -e
place=$1 name=$2
shift 2
own() { # own DIRECTORY NAME...: these names in it are the machine's own
    mkdir -p "$place/host$1"
    mount --rbind "$1" "$place/host$1"
    mount -t tmpfs -o mode=755 tmpfs "$1"
    for entry in "$place/host$1"/* "$place/host$1"/.[!.]*; do
        [ ! -e "$entry" ] && [ ! -L "$entry" ] || ln -s "$entry" "$1/"
    done
    directory=$1
    shift
    for entry in "$@"; do
        rm -f "$directory/$entry"
        mkdir "$directory/$entry"
    done
}
own /run containerd netns kubernetes etcd
own /var/lib kubelet cni
mount -t tmpfs -o mode=755 tmpfs /var/log
for file in $(cd "$place/sysctls" && find . -type f); do
    mount --bind "$place/sysctls/$file" "/proc/sys/$file"
done
# Connections to a machine that has ended would keep the network of this one for minutes.
echo 1 >/proc/sys/net/ipv4/tcp_orphan_retries
hostname "$name"
ip link set lo up
exec "$@"
"""


class MachineFailed(Exception):
    """A machine or a program on it does not do what it should; the message has the last lines that it wrote."""


class Machine:
    """One machine, which this process or another has started; it is known by its directory.

    Args:
        place: its directory, which is named as the machine is.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.name = place.name

    @property
    def process(self) -> int:
        """The id, on the host, of its first process.

        Raises:
            FileNotFoundError: it was not started, or was killed.
        """
        return int((self.place / "process").read_text())

    def start(self, alive: Path) -> None:
        """Start it.

        Args:
            alive: the named pipe whose end is the machine's.
        """
        self.place.mkdir(exist_ok=True)
        for name, value in _SYSCTLS.items():
            file = self.place / "sysctls" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")
        command = ["setsid", "--fork", "unshare", "--pid", "--fork", "--kill-child", "--mount", "--propagation=private",
                   "--net", "--uts", "--ipc", "--mount-proc", "sh", "-c", _MOUNTS, "machine", str(self.place),
                   self.name, sys.executable, "-I", "-S", "-c", _FIRST]  # fmt: skip
        # Its own session: else an interrupt at the terminal would end it before its cluster is tidied up.
        with (self.place / "machine.log").open("wb") as log, alive.open("rb") as stdin:
            done = subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=log, cwd="/", env=environment()
            )  # fmt: skip
            with done:
                assert done.stdout is not None
                if done.stdout.readline() != b"\n":
                    raise MachineFailed(f"{self.name} does not start: {tail(self.place / 'machine.log')}")
        (self.place / "process").write_text(str(_first_process(self.place)))

    def command(self, *arguments: str, timeout: float = TIMEOUT) -> str:
        """Run a command there, and return what it writes.

        Raises:
            MachineFailed: it failed.
        """
        return run(*self._enter(), *arguments, timeout=timeout)

    def spawn(self, *arguments: str) -> None:
        """Start a program there, which writes to its log and is then the machine's alone."""
        log = self.place / f"{Path(arguments[0]).name}.log"
        with log.open("ab") as out:
            subprocess.run(
                [*self._enter(), "setsid", "--fork", *arguments], cwd="/", env=environment(),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True, timeout=TIMEOUT,
            )  # fmt: skip

    def programs(self, name: str) -> list[int]:
        """The ids, on the host, of what was started by that name."""
        return [process for process in _children(self.process) if _name(process) == name]

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a program that was started there; after SIGKILL, wait until it has ended."""
        found = self.programs(name)
        if not found:
            raise MachineFailed(f"{name} does not run on {self.name}: {tail(self.place / f'{name}.log')}")
        for process in found:
            os.kill(process, number)
        if number == signal.SIGKILL:
            until_blocking(lambda: not self.programs(name), what=f"the end of {name}")

    def kill(self) -> None:
        """End it with all that runs there, as if its power were cut."""
        process = self.process
        (self.place / "process").unlink()  # another process may have that id soon
        os.kill(process, signal.SIGKILL)
        until_blocking(lambda: not Path(f"/proc/{process}").exists(), what=f"the end of {self.name}")

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self.process}", "--pid", "--mount", "--net", "--uts", "--ipc"]


def environment() -> dict[str, str]:
    """What programs of a cluster are started with: nothing of the tests' own."""
    return {"PATH": PATH, "LC_ALL": "C.UTF-8"}


def run(*command: str, timeout: float = TIMEOUT) -> str:
    """Run a command, and return what it writes.

    Raises:
        MachineFailed: it failed.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=timeout, check=False, cwd="/",
            env=environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise MachineFailed(f"`{' '.join(command)}` took longer than {timeout:g} s") from exc
    if done.returncode != 0:
        raise MachineFailed(f"`{' '.join(command)}` failed with {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log."""
    try:
        written = log.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return f"there is no {log.name}"
    return "\n".join(line[:LONGEST_LINE] for line in written) or "nothing was written"


def _first_process(place: Path) -> int:
    """By what its command names, for unshare(1) has been left to itself."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and str(place).encode() in _command(int(entry.name)):
            for child in _children(int(entry.name)):
                if _FIRST.encode() in _command(child):
                    return child
    raise MachineFailed(f"the first process of {place.name} is not to be found: {tail(place / 'machine.log')}")


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _command(process: int) -> list[bytes]:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _name(process: int) -> str:
    return Path(os.fsdecode((_command(process) or [b""])[0])).name
