"""praxis-init, the small static program that engines put in front of a tool's command.

It enforces a deadline over the whole process tree, lets no process outlive the command, and can take the network away
without privileges. This module finds the binary and speaks its command line and its report; `native/` holds the
source. A package built where no compiler was to be had lacks the binaries: `praxis_init_path` then returns None, and
an engine must declare that it cannot enforce these things.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).resolve().parent.parent / "_native"

# What uname, Docker, OCI images and Windows call the two machines that praxis-init is built for.
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "x64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

_FAILED = "failed.txt"
"""Beside the binaries: why there are none (`native/build.py`)."""

_FOUND: set[Path] = set()

KEPT = "PRAXIS_KEPT_"
"""How a variable's name begins that praxis-init gives its own name back (`run_prefix`, ``hide``)."""

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
    """
    known = normalize_machine(machine or platform.machine())
    return None if known is None else _found(_FOLDER / f"praxis-init-{known}")


class MissingInit(NamedTuple):
    """That this installation has no praxis-init for this machine: why, and how to get it."""

    reason: str
    remedy: str


def find_missing() -> MissingInit | None:
    """Why this installation has no praxis-init for this machine; None where it has one."""
    if praxis_init_path() is not None:
        return None
    if normalize_machine(platform.machine()) is None:
        return MissingInit(
            f"praxis-init is not built for {platform.machine()} machines, and what it enforces is missing.",
            "Use an engine on an x86-64 or arm64 machine.",
        )
    try:
        said = f" ({(_FOLDER / _FAILED).read_text(encoding='utf-8', errors='replace').strip()})"
    except OSError:
        said = ""
    return MissingInit(
        "praxis-init was not built when praxis-mcp was installed, and what it enforces is missing: deadlines inside "
        f"containers, network: none on Dagger, warm starts{said}.",
        "Install the wheel of praxis-mcp, or in a clone: pip install ziglang && python native/build.py.",
    )


def host_init_path() -> Path | None:
    """praxis-init for commands on this machine; None where it cannot run here."""
    path = praxis_init_path() if sys.platform == "linux" else None
    return path if path is not None and os.access(path, os.X_OK) else None


def _found(path: Path) -> Path | None:
    # Every call asks several times; what was there once stays.
    if path not in _FOUND and path.is_file():
        _FOUND.add(path)
    return path if path in _FOUND else None


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
) -> list[str]:
    """The words that start praxis-init waiting for a call (see `framing` and `waiting`).

    Args:
        target: praxis-init's path where it runs.
        patience: seconds after which it leaves if no call has come.
        socket: path of the unix socket that it connects to; None is its standard input and output.
        sources: device and inode of what was judged, and where it must lie: else the call ends with
            `EndKind.SETUP_FAILED`, step `MOUNTS_STEP` (see `ended`). Under another kernel than this one, whose numbers
            differ, it does not look.
        hide: as for `run_prefix`; variables of the call itself are not hidden.

    Raises:
        ValueError: praxis-init would refuse the value.
    """
    words = [target, "wait", "--patience", _seconds("patience", patience, zero=False)]
    if socket is not None:
        words += ["--socket", socket]
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
