"""praxis-init, the small static program that engines put in front of a tool's command.

It enforces a deadline over the whole process tree, lets no process outlive the command, and can take the network away
without privileges. This module finds the binary, writes its command line and reads its report, whose words for how a
command ended (`Ended`) are those of every engine; `native/` holds the source. A package built without a compiler lacks
the binaries: `praxis_init_path` then returns None, and an engine must declare that it cannot enforce these things.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

from praxis_mcp.errors import EngineUnavailable

_FOLDER = Path(__file__).resolve().parent.parent / "_native"

# What uname, Docker, OCI images and Windows call the two machines that praxis-init is built for.
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "x64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

_FAILED = "failed.txt"
"""Next to the binaries: why there are none (`native/build.py`)."""

_FOUND: set[Path] = set()

INIT_VERSION = 12
"""What `praxis-init --version` prints for the command line and the frames that are written here (`version` in
native/praxis_init.c). Raise both when an option, a form or a frame changes."""

KEPT = "PRAXIS_KEPT_"
"""How a variable's name begins that praxis-init gives its own name back (`run_prefix`, ``hide``)."""

CHANNEL_SECRET_BYTES = 32
"""Of the secret that a connection to a listening praxis-init begins with."""

DEFAULT_KILL_AFTER = 2.0
"""Seconds between the polite signal and SIGKILL."""


def normalize_machine(machine: str) -> str | None:
    """`x86_64` or `aarch64` for any spelling of them (`amd64`, `ARM64`, `arm64/v8`), None for another machine."""
    return _MACHINES.get(machine.strip().lower().partition("/")[0])


def praxis_init_path(machine: str | None = None) -> Path | None:
    """The praxis-init binary for a machine as uname, Docker or an image manifest names it.

    Args:
        machine: where the command will run; this machine if None. A container engine may be on another one.

    Returns:
        The file, or None where this package has no binary for that machine. The file is Linux's, whatever runs here.

    Raises:
        EngineUnavailable: the binary is of another version than this code; says how to build it again.
    """
    known = normalize_machine(machine or platform.machine())
    if known is None:
        return None
    return _found(_binary(_FOLDER, known)) or _found(_binary(_installed_folder(), known))


OTHER_MACHINES = "Install the wheel of praxis-mcp, or in a clone: pip install ziglang && python native/build.py all."
"""How to get praxis-init for another machine than this one: a clone is built for its own."""


class MissingInit(NamedTuple):
    """That this installation has no praxis-init for this machine: why, and how to get it."""

    reason: str
    remedy: str


def find_missing() -> MissingInit | None:
    """Why this installation has no praxis-init for this machine; None where it has one."""
    try:
        if praxis_init_path() is not None:
            return None
    except EngineUnavailable as exc:
        return MissingInit(exc.message, exc.remedy or "")
    if normalize_machine(platform.machine()) is None:
        return MissingInit(
            f"praxis-init is not built for {platform.machine()} machines, and what it enforces is missing.",
            "Use an engine on an x86-64 or arm64 machine.",
        )
    cause = ""
    for folder in (_FOLDER, _installed_folder()):
        with suppress(OSError):
            cause = f" ({(folder / _FAILED).read_text(encoding='utf-8', errors='replace').strip()})"
    return MissingInit(
        "praxis-init was not built when praxis-mcp was installed, and what it enforces is missing: deadlines inside "
        f"containers, network: none on Dagger, warm starts{cause}.",
        "Install the wheel of praxis-mcp, or in a clone: pip install ziglang && python native/build.py.",
    )


def host_init_path() -> Path | None:
    """praxis-init for commands on this machine; None where it cannot run here."""
    path = praxis_init_path() if sys.platform == "linux" else None
    return path if path is not None and os.access(path, os.X_OK) else None


@cache
def _installed_folder() -> Path:
    """Where an editable install of a checkout that may not be written puts what it builds."""
    import sysconfig  # only where the package itself has none: the start of a server does not wait for it

    return Path(sysconfig.get_path("purelib")) / "praxis_mcp" / "_native"


@cache  # every call needs it, and to join paths takes longer than to look at files
def _binary(folder: Path, machine: str) -> Path:
    return folder / f"praxis-init-{machine}"


def _found(path: Path) -> Path | None:
    # Every call needs it several times; what was there once stays.
    if path not in _FOUND and path.is_file():
        _check_version(path)
        _FOUND.add(path)
    return path if path in _FOUND else None


def _check_version(path: Path) -> None:
    """Refuse a binary that was built before this code: it would end every call with exit code 125, as if by the tool.

    Looks into the file, which may be another machine's, and is small.
    """
    if b"praxis-init %d\n\0" % INIT_VERSION not in path.read_bytes():
        raise EngineUnavailable(
            f"{path} is not the praxis-init that this praxis-mcp needs (version {INIT_VERSION}): it was built for "
            "other code.",
            remedy="Install praxis-mcp again; in a clone: python native/build.py.",
        )


def run_prefix(
    target: str,
    *,
    timeout: float | None,
    no_network: bool,
    kill_after: float = DEFAULT_KILL_AFTER,
    no_new_privileges: bool = True,
    parent: int | None = None,
    report: str | int | None = None,
    plain_status: bool = False,
    output: tuple[str, str] | None = None,
    seccomp: bytes | None = None,
    hide: Sequence[str] = (),
) -> list[str]:
    """The words to put in front of a command's own argv.

    Args:
        target: praxis-init's path where the command runs (inside the container, say).
        timeout: seconds from praxis-init's start until the whole tree is ended; None: no deadline.
        no_network: leave no sockets but AF_UNIX, and no io_uring. Implies `no_new_privileges`.
        kill_after: seconds between SIGTERM and SIGKILL, at the deadline or when praxis-init is told to end; 0: none.
        no_new_privileges: set-user-id programs and file capabilities give the command nothing.
        parent: the process id of the caller, when it starts praxis-init itself, in its own pid namespace: the tree
            ends when the *thread* that started it does. Start it from a thread that lives as long as the process.
            Unless `no_new_privileges` is False, the command cannot end praxis-init by a signal, by tracing, or by
            taking its limits away.
        report: where praxis-init writes how the command ended: a path, or a descriptor (3 or more) that it inherits.
        output: files for standard output and standard error, in which praxis-init keeps all of them; the first 256
            KiB of each reach its own streams as well.
        seccomp: a filter of system calls for the command (see `seccomp`), which implies `no_new_privileges`.
        hide: beginnings of names of variables that the command does not get; of a variable that is called `KEPT` and a
            name it gets that name.
        plain_status: leave with `EXIT_SETUP_FAILED` where the exit code would be 128 to 191; the report tells.

    Raises:
        ValueError: praxis-init would refuse the value.
    """
    words = [target, "run"]
    if timeout is not None:
        words += ["--timeout", _seconds("timeout", timeout, zero=False)]
    words += ["--kill-after", _seconds("kill_after", kill_after, zero=True)]
    if no_network:
        words.append("--no-network")
    elif no_new_privileges:
        words.append("--no-new-privileges")
    if seccomp is not None:
        words += ["--filter", seccomp.hex()]
    if hide:
        words += ["--hide", ",".join(hide)]
    if parent is not None:
        words += ["--parent", str(parent)]
    if report is not None:
        words += ["--report", _report_target(report)]
    if output is not None:
        words += ["--stdout", output[0], "--stderr", output[1]]
    if plain_status:
        if report is None:
            raise ValueError("plain_status needs a report, which alone tells the exit code then")
        words.append("--plain-status")
    words.append("--")
    return words


def wait_words(
    target: str,
    patience: float,
    socket: str | None = None,
    sources: Sequence[tuple[tuple[int, int], str]] = (),
    hide: Sequence[str] = (),
    *,
    listen: str | None = None,
    secret: bytes | None = None,
    caller: float | None = None,
) -> list[str]:
    """The words that start praxis-init waiting for a call (see `framing` and `waiter`).

    Args:
        target: praxis-init's path where it runs.
        patience: seconds after which it leaves if no call has come.
        socket: path of the unix socket that it connects to; None is its standard input and output.
        sources: device and inode of what was judged, and where it must lie: else the call ends with
            `EndKind.SETUP_FAILED`, step `MOUNTS_STEP`. Under another kernel than this one, whose numbers
            differ, it does not look.
        hide: as for `run_prefix`; variables of the call itself are not hidden.
        listen: ADDRESS:PORT at which it takes one TCP connection, instead of `socket`; an IPv6 address in brackets, in
            which an IPv4 address may be, too.
        secret: what that connection begins with, `CHANNEL_SECRET_BYTES` random bytes; only their digest is among the
            words. None needs a loopback address: any process that reaches it may take the place.
        caller: seconds after which it leaves if nobody has connected (and given the secret); None is a minute.

    Raises:
        ValueError: praxis-init would refuse the value.
    """
    words = [target, "wait", "--patience", _seconds("patience", patience, zero=False)]
    if socket is not None:
        words += ["--socket", socket]
    if listen is not None:
        words += ["--listen", listen]
    if secret is not None:
        if listen is None or len(secret) != CHANNEL_SECRET_BYTES:
            raise ValueError(f"a secret has {CHANNEL_SECRET_BYTES} bytes, and goes with an address to listen at")
        words += ["--secret-sha256", hashlib.sha256(secret).hexdigest()]
    if caller is not None:
        words += ["--caller", _seconds("caller", caller, zero=False)]
    if hide:
        words += ["--hide", ",".join(hide)]
    boot = _boot_id() if sources else None
    if boot is not None:
        words += ["--boot", boot]
        for (device, inode), path in sources:
            words += ["--source", f"{device}:{inode}", path]
    return words


@cache
def _boot_id() -> str | None:
    """What tells this kernel, since it was booted, from any other; None where there is no such thing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except OSError:
        return None


def sandbox_words(path: str, layout: int, *, reply: int | None = None, parent: int | None = None) -> list[str]:
    """The words that make a sandbox (native/FRAMING.md, `engines.init.layout`).

    Args:
        path: praxis-init.
        layout: the descriptor of the message.
        reply: of what comes back; None for a sandbox that waits, which uses its standard output.
        parent: the process that must be its parent; it ends with it.
    """
    words = [path, "sandbox", "--layout", str(layout)]
    words += [] if reply is None else ["--reply", str(reply)]
    words += [] if parent is None else ["--parent", str(parent)]
    return words


def standby_words(path: str, *, parent: int) -> list[str]:
    """The words that start a sandbox ahead of the message that lays it out; `parent`: see `sandbox_words`."""
    return [path, "sandbox", "--standby", "--parent", str(parent)]


def join_words(
    target: str,
    files: Sequence[Path] = (),
    *,
    group: Path | None = None,
    private_mounts: bool = False,
    overlay: tuple[Path, int] | None = None,
) -> list[str]:
    """The words to put in front of a command so that it begins its life in control groups and namespaces.

    Args:
        target: praxis-init's path.
        files: absolute paths of ``tasks`` of groups of version 1.
        group: a group of version 2. The command then runs as a child of praxis-init, which ends as it does; both are
            killed when the *thread* that started them ends.
        private_mounts: in a mount namespace of its own, where what the host mounts later does not appear.
        overlay: a directory, in which ``layer/root`` then is ``rootfs`` with an empty layer in memory to write to, and
            the bytes that this layer may hold. The directory becomes the working directory.
    """
    words = [target, "join"]
    if group is not None:
        words += ["--group", str(group)]
    if private_mounts:
        words.append("--private-mounts")
    if overlay is not None:
        words += ["--overlay", str(overlay[0]), str(overlay[1])]
    return [*words, *map(str, files), "--"]


def _seconds(name: str, value: float, *, zero: bool) -> str:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")
    text = f"{value:.9f}"  # never an exponent, which praxis-init does not read; it counts nanoseconds
    if not zero and float(text) == 0:
        raise ValueError(f"{name} must be more than 0 seconds; leave it out (None) for no limit")
    return text.rstrip("0").rstrip(".")


def _report_target(report: str | int) -> str:
    if isinstance(report, int):
        if report < 3:
            raise ValueError("a report goes to a descriptor of its own, 3 or more: the streams belong to the command")
        return str(report)
    if not report or "\0" in report:
        raise ValueError(f"not a path for a report: {report!r}")
    # praxis-init reads digits as a descriptor.
    return f"./{report}" if report.isdecimal() else report


EXIT_TIMED_OUT = 124
EXIT_SETUP_FAILED = 125
EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128
"""Exit codes that praxis-init adds to the command's own, those of timeout(1) and of the shell. A command may exit with
the same numbers: only the report (`parse_report`) tells which it was."""
EXIT_KILLED = EXIT_SIGNAL_BASE + 9
"""That of a command which SIGKILL ended; by its number, since Windows has no such signal."""

MOUNTS_STEP = "mounts"
"""The step of `EndKind.SETUP_FAILED` where something else was mounted than was judged."""


class EndKind(StrEnum):
    """How a command ended, in praxis-init's words."""

    EXIT = "exit"
    """It exited; `number` is its exit code, None where the engine cannot tell."""
    SIGNAL = "signal"
    """It died of signal `number`, not by the deadline."""
    TIMEOUT = "timeout"
    """The deadline passed, and its tree was ended, however the command itself took that; `number` is the exit code
    that it left with, where that is known."""
    EXEC_FAILED = "exec-failed"
    """It could not be executed; `number` is an errno of Linux (2: not found)."""
    SETUP_FAILED = "setup-failed"
    """It was never started; `number` is an errno of Linux, `step` what failed (`seccomp`, `fork`, …)."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        kind, number, step: see `EndKind`.
        out_of_memory: the memory limit was reached, and the kernel killed a process of the command.
    """

    kind: EndKind
    number: int | None = None
    step: str | None = None
    out_of_memory: bool = False

    @classmethod
    def by_code(cls, exit_code: int | None, *, timed_out: bool = False) -> Ended:
        """The end of a command of which the exit code is known, and whether its deadline passed."""
        return cls(EndKind.TIMEOUT if timed_out else EndKind.EXIT, exit_code)

    @property
    def timed_out(self) -> bool:
        """Whether the deadline passed."""
        return self.kind is EndKind.TIMEOUT

    @property
    def reason(self) -> str:
        """Why it was not started, in the system's words (strerror(3))."""
        return os.strerror(self.number or 0)

    @property
    def exit_code(self) -> int | None:
        """Its exit code, 128 + signal where a signal ended it; else that of praxis-init, which says why there is
        none."""
        match self.kind:
            case EndKind.EXIT:
                return self.number
            case EndKind.SIGNAL:
                return EXIT_SIGNAL_BASE + (self.number or 0)
            case EndKind.TIMEOUT:
                return EXIT_TIMED_OUT if self.number is None else self.number
            case EndKind.SETUP_FAILED:
                return EXIT_SETUP_FAILED
            case EndKind.EXEC_FAILED:
                return EXIT_NOT_FOUND if self.number == 2 else EXIT_CANNOT_RUN


def describe_exit(code: int) -> str:
    """An exit code in words, with what it means where a shell, praxis-init or a signal has made it."""
    meaning = ""
    if code == EXIT_CANNOT_RUN:
        meaning = " (the command was found, but could not be executed)"
    elif code == EXIT_NOT_FOUND:
        meaning = " (a command was not found)"
    elif code > EXIT_SIGNAL_BASE:
        with suppress(ValueError):
            meaning = f" (ended by {signal.Signals(code - EXIT_SIGNAL_BASE).name})"
    return f"exit code {code}{meaning}"


def parse_report(text: str) -> Ended | None:
    """What praxis-init reported; None for an empty or torn report, which means that praxis-init was itself killed."""
    if not text.endswith("\n"):
        return None
    word, *rest = text[:-1].split(" ", 2)
    try:
        kind = EndKind(word)
        number = int(rest[0]) if rest else None
    except ValueError:
        return None
    if (number is None) != (kind is EndKind.TIMEOUT):
        return None
    return Ended(kind, number, rest[1] if len(rest) > 1 else None)
