"""Builds praxis-init, for this machine's architecture or for both that containers may have.

Run by hatch_build.py when a wheel or an editable install is made, and by hand after a change to the C sources:
`python native/build.py`; `python native/build.py all` makes the other architecture's as well, for a Docker daemon or a
Dagger engine on such a machine.

A C compiler of this machine that can link statically is enough for this machine. Otherwise, and for the other
architecture, the package `ziglang` is needed, which is a C compiler with a libc for both targets in it.
PRAXIS_NATIVE_COMPILER names one (`musl-gcc`, `cc`, `gcc`, `clang` or `zig`): zig is not fetched instead.
PRAXIS_NATIVE_MACHINES=all is `all`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

MACHINES = ("x86_64", "aarch64")
OWN_COMPILERS = ("musl-gcc", "cc", "gcc", "clang")
ZIG = "ziglang>=0.15,<0.17"  # the newest is that of scripts/build-release.sh: what CI tests is what ships
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-Os", "-flto", "-static", "-s")
# The last two: what a .c file shows to others stands in its header. Warnings are errors of zig alone: they are what we
# write by, and must not keep a user's newer compiler from building.
STRICT = ("-Wall", "-Wextra", "-Werror", "-Wmissing-prototypes", "-Wmissing-variable-declarations")
COMPILE_SECONDS = 900  # zig's first build also compiles musl; slow machines take minutes for it
TRY_SECONDS = 60
FAILED = "failed.txt"  # for `praxis_mcp.support.praxis_init`, which shows it

_NAMES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


class NativeBuildError(Exception):
    """praxis-init could not be built; the message says what was missing or what the compiler said."""


def folder_of(root: Path) -> Path:
    """Where a checkout's binaries are."""
    return root / "praxis_mcp" / "_native"


def wanted_machines(words: Sequence[str] = ()) -> tuple[str, ...]:
    """The architectures to build for: those named (`all`, or as uname has them), else this machine's; where that is a
    third one, both: only containers elsewhere will run it."""
    names = [*words, *os.environ.get("PRAXIS_NATIVE_MACHINES", "").split()]
    own = _NAMES.get(platform.machine().lower())
    if "all" in names or (not names and own is None):
        return MACHINES
    chosen = [_NAMES.get(name.lower()) for name in names] or [own]
    if None in chosen:
        raise NativeBuildError(
            f"there is no praxis-init for {' '.join(names)}: it is made for {' and '.join(MACHINES)}"
        )
    return tuple(machine for machine in MACHINES if machine in chosen)


def needs_zig(root: Path) -> bool:
    """Whether something is to be built, and no compiler of this machine builds it, nor is one named that should."""
    machines = [machine for machine in wanted_machines() if not is_current(root, folder_of(root), machine)]
    if os.environ.get("PRAXIS_NATIVE_COMPILER", "zig") != "zig":
        machines = [machine for machine in machines if machine != _NAMES.get(platform.machine().lower())]
    return any(_own_compiler(machine) is None for machine in machines)


def is_current(root: Path, folder: Path, machine: str) -> bool:
    """Whether a folder has the binary of these sources."""
    try:
        made_by = _stamp(folder, machine).read_text().split()
    except OSError:
        return False
    forced = os.environ.get("PRAXIS_NATIVE_COMPILER")
    return (
        len(made_by) == 2
        and made_by[0] == _digest(root)
        and (not forced or made_by[1] == forced)
        and _binary(folder, machine).is_file()
    )


def build(
    root: Path,
    machines: Sequence[str] | None = None,
    *,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Bring the binaries up to date with `native/`; gives the architectures for which one was compiled.

    Args:
        root: of the sources.
        machines: for which; None is `wanted_machines`.
        folder: where to; None is `praxis_mcp/_native/` below `root`.
        say: is called with what is being done.

    Raises:
        NativeBuildError: binaries of older sources are then gone, rather than passing for these, and why there are none
            stands in their place.
    """
    folder = folder or folder_of(root)
    try:
        folder.mkdir(exist_ok=True)
        machines = wanted_machines() if machines is None else machines
        _remove_older(root, folder)
        missing = [machine for machine in machines if not is_current(root, folder, machine)]
        for machine in missing:
            _build_one(root, folder, machine, say)
        (folder / FAILED).unlink(missing_ok=True)
    except NativeBuildError as error:
        with suppress(OSError):
            (folder / FAILED).write_text(str(error).splitlines()[0])
        raise
    except OSError as error:
        raise NativeBuildError(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    return tuple(missing)


def _remove_older(root: Path, folder: Path) -> None:
    for machine in MACHINES:
        if not is_current(root, folder, machine):
            _stamp(folder, machine).unlink(missing_ok=True)
            _binary(folder, machine).unlink(missing_ok=True)


def _build_one(root: Path, folder: Path, machine: str, say: Callable[[str], None]) -> None:
    compiler = _own_compiler(machine)
    if compiler is None and importlib.util.find_spec("ziglang") is None:
        raise NativeBuildError(
            f"no C compiler for {machine}: install one that can link statically (on Debian and Ubuntu: apt install "
            "gcc libc6-dev), or the package `ziglang`, which has no wheel for some systems"
            if machine == _NAMES.get(platform.machine().lower())
            else f"no C compiler for {machine}: the package `ziglang` is one"
        )
    say(f"compiling praxis-init for {machine} by {compiler or 'zig, which takes a minute the first time'}")
    # Moved into place when it is there: another build, or a running server, may be looking.
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as scratch:
        output = Path(scratch) / machine
        sources = sorted((root / "native").glob("*.c"))
        if compiler is None:
            _compile(
                [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-musl", *STRICT], sources, output
            )
        else:
            _compile([compiler], sources, output)
        if machine == _NAMES.get(platform.machine().lower()) and sys.platform == "linux":
            _check(output)
        output.replace(_binary(folder, machine))
    _stamp(folder, machine).write_text(f"{_digest(root)} {compiler or 'zig'}\n")


def _own_compiler(machine: str) -> str | None:
    """A compiler of this machine that makes static programs for it; None where there is none, or zig is asked for."""
    if sys.platform != "linux" or machine != _NAMES.get(platform.machine().lower()):
        return None
    forced = os.environ.get("PRAXIS_NATIVE_COMPILER")
    for name in OWN_COMPILERS if not forced else [forced] if forced != "zig" else []:
        if shutil.which(name) is None:
            continue
        with tempfile.TemporaryDirectory(prefix="praxis-compiler-") as scratch, suppress(NativeBuildError):
            (Path(scratch) / "try.c").write_text('#include <stdio.h>\nint main(void) { return puts("") < 0; }\n')
            _compile([name], [Path(scratch) / "try.c"], Path(scratch) / "try", TRY_SECONDS)
            return name
    return None


def _digest(root: Path) -> str:
    digest = hashlib.sha256(repr((FLAGS, STRICT)).encode())
    for file in [*sorted((root / "native").glob("*.c")), *sorted((root / "native").glob("*.h"))]:
        digest.update(b"\0" + file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _binary(folder: Path, machine: str) -> Path:
    return folder / f"praxis-init-{machine}"


def _stamp(folder: Path, machine: str) -> Path:
    return folder / f"sources-{machine}.txt"


def _compile(command: list[str], sources: list[Path], output: Path, seconds: float = COMPILE_SECONDS) -> None:
    # Objects go to the scratch folder; the libc that zig compiles stays in zig's own cache for the next build.
    environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(output.parent / "cache")}
    if not os.access(Path.home(), os.W_OK):
        environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(output.parent / "global-cache"))
    command = [*command, *FLAGS, "-o", str(output), *map(str, sources)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeBuildError(f"the compiler {command[0]} did not finish: {error}") from error
    if done.returncode != 0:
        raise NativeBuildError(f"the compiler {command[0]} failed:\n{done.stderr.strip()}")
    output.chmod(0o755)


def _check(binary: Path) -> None:
    """See that it runs here: a toolchain may link what its own libc cannot start."""
    try:
        done = subprocess.run([binary, "run", "--", "true"], capture_output=True, text=True, timeout=TRY_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeBuildError(f"praxis-init was compiled and does not run: {error}") from error
    if done.returncode != 0:
        raise NativeBuildError(f"praxis-init was compiled and does not run: {done.stderr.strip()[:500]}")


if __name__ == "__main__":
    try:
        made = build(
            Path(__file__).resolve().parent.parent,
            wanted_machines(sys.argv[1:]),
            say=lambda text: print(f"praxis-init: {text}", flush=True),  # noqa: T201
        )
    except NativeBuildError as error:
        sys.exit(f"praxis-init: {error}")
    if not made:
        sys.stdout.write("praxis-init: already up to date\n")
